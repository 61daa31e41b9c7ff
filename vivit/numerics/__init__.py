"""Arithmetic that XLA's form and the kernels share, so that both give the same bits."""
