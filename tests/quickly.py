"""Compiling quickly rather than well, where a test is about what is computed and not about the CPU's program for it.

Interpreted kernels are such: what matters is what they compute, not how the interpreter's loops are compiled.
"""

QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
