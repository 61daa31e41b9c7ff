"""Compiling quickly rather than well, where a test is about what is computed and not about the CPU's program for it.

So are compiled: interpreted kernels, whose loops no user ever runs; the plain formulation; random draws; options that
must change nothing; and training's steps, whose forward pass is tested by itself. Where production's accuracy or speed
is asked for it never is.
"""

QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
