"""What things are: models, variants, orders, tasks, nodes. Nothing but the standard library."""
