"""The HTTP edge: `/v1/models`, `/api`, events, the dashboard's files."""
