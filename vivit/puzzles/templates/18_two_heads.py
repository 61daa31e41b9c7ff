"""Two heads in 128 lanes.

Hint: zero the other head's lanes of the query; the product over all lanes is then that of one head.
On a CPU, pl.pallas_call needs interpret=True.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl


def two_heads(qkv: jax.Array, heads: int) -> jax.Array:
    """Attention among all tokens with two heads of 64 channels, without cutting the 128 lanes of a register.

    A TPU moves lanes at a price, so no value inside the kernel may have an axis of 64: select lanes by
    jnp.where(lane < 64, …) with lane = jax.lax.broadcasted_iota(jnp.int32, (1, 128), 1) instead.
    qkv: float32[1 n 384]; heads is 2. Returns float32[1 n 128].
    """
    raise NotImplementedError
