"""The Hub as we see it; nobody else in the router knows huggingface_hub."""
