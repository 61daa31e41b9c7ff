"""Break it: an online softmax that forgets something.

Hint: what must happen when a later block holds the largest score? Which input never comes to that?
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

BLOCK = 2  # keys of a step


def _kernel(query, key, value, out, total, largest):
    @pl.when(pl.program_id(0) == 0)
    def _():
        out[...] = jnp.zeros(out.shape)
        total[...] = jnp.zeros(total.shape)
        largest[...] = jnp.full(largest.shape, -jnp.inf)

    scores = query[...] @ key[...].T / math.sqrt(query.shape[1])
    new = jnp.maximum(largest[...], scores.max(axis=1, keepdims=True))
    weights = jnp.exp(scores - new)
    total[...] = total[...] * jnp.exp(largest[...] - new) + weights.sum(axis=1, keepdims=True)
    out[...] = out[...] + weights @ value[...]
    largest[...] = new


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> jax.Array:
    """softmax(Q Kᵀ / √d) V, with a fault. float32: query [q d], key and value [k d], k a multiple of BLOCK."""
    (q, d), k = query.shape, len(key)
    if k % BLOCK:
        raise ValueError(f"k is {k}: it must be a multiple of {BLOCK}")
    keys = pl.BlockSpec((BLOCK, d), lambda i: (i, 0))
    queries, column = pl.BlockSpec((q, d), lambda i: (0, 0)), pl.BlockSpec((q, 1), lambda i: (0, 0))
    out, total, _ = pl.pallas_call(
        _kernel,
        grid=(k // BLOCK,),
        in_specs=[queries, keys, keys],
        out_specs=[queries, column, column],
        out_shape=[jax.ShapeDtypeStruct((q, size), jnp.float32) for size in (d, 1, 1)],
        interpret=True,
    )(query, key, value)
    return out / total


def break_online_softmax() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the smallest input, counted in numbers, of which attend is wrong: (query, key, value), float32.

    Wrong means: further off than float32 explains, by the bound of docs/correctness.md. No number may be above a
    million, and no axis above 64. The kernel that is graded is the one above, whatever you change in it.
    """
    raise NotImplementedError
