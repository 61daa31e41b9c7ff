"""Dropout by a hash, without a random generator.

Hint: int32 products wrap around by themselves. jax.lax.shift_right_logical(x, jnp.full_like(x, 16)) shifts in zeros.
"""

import jax
import jax.numpy as jnp

FACTORS = (-1640531535, 2146121005, -2073254261)


def hash_dropout(first: jax.Array, second: jax.Array, counter: jax.Array, rate: float) -> jax.Array:
    """The multiplier of each attention weight: 0 if it is dropped, 1 / (1 − rate) if it is kept.

    With x >> n the logical shift, ^ the exclusive or, and all sums and products modulo 2³²:
        x = counter · FACTORS[0] + first
        x = (x ^ x >> 16) · FACTORS[1]
        x = (x ^ x >> 15) + second
        x = (x ^ x >> 16) · FACTORS[2]
        x = x ^ x >> 15
    A weight is kept if the upper 24 bits of x, x >> 8, are at least round(rate · 2²⁴).
    first, second: int32[1 1], the seed. counter: int32[q k]. Returns float32[q k].
    """
    raise NotImplementedError
