"""Compiler options for fast compilation and slow programs, where speed and XLA's optimisations do not matter.

They are for interpreted kernels, whose loops no user runs; the baseline; random draws; options that must not change a
result; and training steps, whose forward pass has its own tests. They are never for production's accuracy or speed.
"""

QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
