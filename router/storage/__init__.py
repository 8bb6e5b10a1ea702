"""What survives a restart, in tables. Nobody else knows that there is a database."""
