"""Benchmarks: figures, never timed tests."""
