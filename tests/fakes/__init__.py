"""Stand-ins that behave: real programs in this process, made to misbehave on request."""
