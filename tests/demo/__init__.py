"""The demo: its models, and its story told with programs that only pretend."""
