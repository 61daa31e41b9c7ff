"""Attention dropout: a hash of each weight's index and a seed decides whether the weight is kept.

The hash uses integer operations only. It gives the same bits in a kernel, in its backward pass, in XLA and in a test,
on every device and for every split into blocks or shards, and no mask is stored. `multipliers` returns the same
multipliers as an array, for the reference.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ODD = (np.int32(-1640531535), np.int32(2146121005), np.int32(-2073254261))  # 2³²/φ, and the two of "lowbias32"
_BITS = 24  # bits of the hash that are compared with the rate


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dropout:
    """Attention dropout that is drawn inside the attention. seeds: int32[b h 2], random. rate: 0 ≤ rate < 1."""

    seeds: jax.Array
    rate: float = field(metadata={"static": True})


def halves(dropout: Any) -> tuple[Any, Any]:
    """Splits dropout into the first and the second half of the heads. A pair of arrays is returned as it is."""
    if not isinstance(dropout, Dropout):
        return (None, None) if dropout is None else dropout
    half = dropout.seeds.shape[1] // 2
    return Dropout(dropout.seeds[:, :half], dropout.rate), Dropout(dropout.seeds[:, half:], dropout.rate)


def keep(seed: tuple[jax.Array, jax.Array], counter: jax.Array, rate: float) -> jax.Array:
    """Returns the multiplier of the weight with this counter: 0 if dropped, 1 / (1 − rate) if kept, float32.

    seed: the two int32 seeds of an example and head. counter: int32, unique for each weight of that example and head.
    The shapes must broadcast.
    """
    first, second = seed
    x = counter * _ODD[0] + first
    x = (x ^ _shifted(x, 16)) * _ODD[1]
    x = (x ^ _shifted(x, 15)) + second
    x = (x ^ _shifted(x, 16)) * _ODD[2]
    kept = _shifted(x ^ _shifted(x, 15), 32 - _BITS) >= np.int32(round(rate * 2**_BITS))
    return jnp.where(kept, np.float32(1.0 / (1.0 - rate)), np.float32(0.0))


def counter(outer: Any, query: Any, key: Any, queries: int, keys: int) -> Any:
    """Returns the index of a weight within its example and head, for `keep`. All implementations must number alike."""
    return (outer * queries + query) * keys + key


def dropout_shard(dropout: Dropout, outer: Any, queries: int, keys: int) -> Dropout:
    """Returns the dropout of a shard that starts at index `outer` of the axis that is not attended over.

    A shard's counters begin at 0. The seeds are shifted so that it draws the same multipliers as the unsharded
    attention.
    """
    start = jnp.asarray(counter(outer, 0, 0, queries, keys), jnp.int32)
    shift = jnp.stack([start * _ODD[0], jnp.zeros_like(start)])
    return Dropout(dropout.seeds + shift[np.newaxis, np.newaxis], dropout.rate)


def keep_of_heads(seeds: Any, first: Any, count: int, counters: jax.Array, rate: float) -> list[jax.Array]:
    """Returns `keep` for `count` heads, starting at `first`. seeds: a ref or array [1 1 2h...] of one example."""
    heads = [first + i for i in range(count)]
    return [keep((seeds[0, 0, 2 * head], seeds[0, 0, 2 * head + 1]), counters, rate) for head in heads]


def multipliers(dropout: Dropout, outer: int, queries: int, keys: int) -> jax.Array:
    """Returns all multipliers of an attention core: float32[b outer h q k].

    outer: the size of the axis that is not attended over: t in `spatial`, s in `temporal`, 1 in `joint`.
    """
    b, heads, _ = dropout.seeds.shape
    shape = (b, outer, heads, queries, keys)
    o, q, k = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (1, 3, 4))
    first, second = (
        jnp.broadcast_to(dropout.seeds[:, np.newaxis, :, i, np.newaxis, np.newaxis], shape) for i in (0, 1)
    )
    return keep((first, second), counter(o, q, k, queries, keys), dropout.rate)


def _shifted(x: jax.Array, by: int) -> jax.Array:
    return jax.lax.shift_right_logical(x, jnp.full_like(x, by))
