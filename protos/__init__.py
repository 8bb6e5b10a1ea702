"""The contract between router, agents and clients, and what every daemon of the project shares."""
