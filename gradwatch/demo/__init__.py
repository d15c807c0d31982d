"""What `gradwatch demo` shows: networks that really train, well and badly, on scikit-learn's handwritten digits."""

NAMES = ("vanishing", "exploding", "rnn", "healthy")
"""The stories that can be told; known without importing what telling them needs."""
