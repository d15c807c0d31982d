"""Hypothesis tries the same examples everywhere, and no machine is too slow for them."""

from hypothesis import settings

settings.register_profile("gradwatch", deadline=None, derandomize=True)
settings.load_profile("gradwatch")
