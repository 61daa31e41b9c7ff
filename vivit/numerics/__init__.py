"""Arithmetic that XLA's functions and the kernels share, so that both give the same bits."""
