"""The JSON of the HTTP API: one class for each object, made from the services' views."""
