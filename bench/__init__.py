"""Programs that measure. Each checks its results first; none is a test, and none is installed."""
