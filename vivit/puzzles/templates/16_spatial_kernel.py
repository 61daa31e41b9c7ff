"""Spatial attention as a kernel.

Hint: let a step take all tokens of one time, a block (1, 1, s, 3c); the heads are a Python loop.
On a CPU, pl.pallas_call needs interpret=True.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl


def spatial_kernel(qkv: jax.Array, heads: int) -> jax.Array:
    """softmax(Q Kᵀ / √d) V in every head, among the tokens of one time, in a Pallas kernel with several steps.

    qkv: float32[b t s 3c]: query, key and value one after the other, the heads contiguous within each. Channel
    (i · heads + h) · d + j is channel j of head h of query (i = 0), key (1) or value (2). Returns float32[b t s c].
    """
    raise NotImplementedError
