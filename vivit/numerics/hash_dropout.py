"""Attention dropout: which weights are kept, as a hash of where they stand.

The same few integer operations give the same bits in a kernel, in its backward pass, in XLA and in a test, on every
device, however the work is cut into blocks or sharded; nothing is stored. The reference takes the same multipliers as
an array (`multipliers`).
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ODD = (np.int32(-1640531535), np.int32(2146121005), np.int32(-2073254261))  # 2³²/φ, and the two of "lowbias32"
_BITS = 24  # of the hash that are compared with the rate


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dropout:
    """Attention dropout that is drawn where it is used. seeds: int32[b h 2], random. rate: from 0 up to 1."""

    seeds: jax.Array
    rate: float = field(metadata={"static": True})


def halves(dropout: Any) -> tuple[Any, Any]:
    """The dropout of the first half of the heads and of the second; arrays and None are given as a pair, or None."""
    if not isinstance(dropout, Dropout):
        return (None, None) if dropout is None else dropout
    half = dropout.seeds.shape[1] // 2
    return Dropout(dropout.seeds[:, :half], dropout.rate), Dropout(dropout.seeds[:, half:], dropout.rate)


def keep(seed: tuple[jax.Array, jax.Array], counter: jax.Array, rate: float) -> jax.Array:
    """The multiplier of the weight with this counter: 0 where dropped, 1 / (1 − rate) where kept.

    seed: two int32 of a batch entry and head. counter: int32, distinct for each weight of that entry and head; all of
    shapes that broadcast. Returns float32.
    """
    first, second = seed
    x = counter * _ODD[0] + first
    x = (x ^ _shifted(x, 16)) * _ODD[1]
    x = (x ^ _shifted(x, 15)) + second
    x = (x ^ _shifted(x, 16)) * _ODD[2]
    kept = _shifted(x ^ _shifted(x, 15), 32 - _BITS) >= np.int32(round(rate * 2**_BITS))
    return jnp.where(kept, np.float32(1.0 / (1.0 - rate)), np.float32(0.0))


def counter(outer: Any, query: Any, key: Any, queries: int, keys: int) -> Any:
    """The number of a weight among those of its batch entry and head, for `keep`: every path must count alike."""
    return (outer * queries + query) * keys + key


def beginning_at(dropout: Dropout, outer: Any, queries: int, keys: int) -> Dropout:
    """The dropout of a part of the weights, cut along the axis that the attention is not over: from `outer` on.

    The part's own counters begin at 0; this shifts the seeds so that it draws what the whole draws there.
    """
    start = jnp.asarray(counter(outer, 0, 0, queries, keys), jnp.int32)
    shift = jnp.stack([start * _ODD[0], jnp.zeros_like(start)])
    return Dropout(dropout.seeds + shift[np.newaxis, np.newaxis], dropout.rate)


def keep_of_heads(seeds: Any, first: Any, count: int, counters: jax.Array, rate: float) -> list[jax.Array]:
    """`keep` for `count` heads from `first` on. seeds: a ref or array [1 1 2h...] of one batch entry."""
    heads = [first + i for i in range(count)]
    return [keep((seeds[0, 0, 2 * head], seeds[0, 0, 2 * head + 1]), counters, rate) for head in heads]


def multipliers(dropout: Dropout, outer: int, queries: int, keys: int) -> jax.Array:
    """All multipliers of a core at once: float32[b outer h q k]; outer is the axis that the attention is not over.

    `spatial` has outer = t, `temporal` has outer = s, `joint` has outer = 1.
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
