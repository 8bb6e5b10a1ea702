"""Properties are tried quickly, and never fail for being slow."""

from hypothesis import settings

settings.register_profile("steady", deadline=None, max_examples=50, database=None)
settings.load_profile("steady")
