"""The daemon on a node: receives orders, downloads, verifies, reports bytes."""
