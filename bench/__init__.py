"""Benchmarks. Each program checks its results before it measures. None is a test, and none is installed."""
