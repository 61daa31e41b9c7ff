"""The backward pass of the kernel.

Hint: puzzle 12 inside of puzzle 16. The cotangents go to three parts of one block (1, 1, s, 3c).
On a CPU, pl.pallas_call needs interpret=True.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl


def spatial_kernel_vjp(qkv: jax.Array, out_cotangent: jax.Array, heads: int) -> jax.Array:
    """The cotangent of qkv, given that of the result of puzzle 16, in a Pallas kernel with several steps.

    qkv: float32[b t s 3c]. out_cotangent: float32[b t s c]. Returns float32[b t s 3c].
    """
    raise NotImplementedError
