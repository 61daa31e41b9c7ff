"""A kernel with a mask.

Hint: pass the mask as int32; a block of it is (1, 1, s). A row without a key must give 0.
On a CPU, pl.pallas_call needs interpret=True.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl


def masked_kernel(qkv: jax.Array, heads: int, mask: jax.Array) -> jax.Array:
    """Puzzle 16 among the tokens whose mask is True; where there is none, the result is 0.

    qkv: float32[b t s 3c]. mask: bool[b t s]. Returns float32[b t s c].
    """
    raise NotImplementedError
