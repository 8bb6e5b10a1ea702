"""How answers look: tables and bars for people, JSON for programs."""
