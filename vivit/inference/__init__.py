"""Uses a model: classifies videos, extracts features, evaluates, exports. Needs no extra."""
