"""Attention over tokens that are sharded over the "sequence" axis of a mesh: the collectives before and after it.

Each function is called inside jax.shard_map with the attention of one device, `attend`, and computes its result for all
tokens. parts: number of devices p along the axis. qkv: this device's tokens, [b t/p s 3c] split by time or [b n/p 3c],
with all the heads of its position along the other mesh axes; the result is sharded in the same way. mask: for all
tokens. dropout: seeds of the whole tensor; each device draws its own slice.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vivit.numerics.hash_dropout import Dropout, dropout_shard, halves

Attend = Callable[..., jax.Array]


def local_slice(x: jax.Array, axis: int, name: str, parts: int) -> jax.Array:
    """Returns this device's slice of an array that is replicated over a mesh axis."""
    size = x.shape[axis] // parts
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(name) * size, size, axis) if parts > 1 else x


def spatial(attend: Attend, parts: int, qkv: jax.Array, heads: int, *, mask: Any, dropout: Any) -> jax.Array:
    """Spatial attention of this device's time indices: needs no communication."""
    _, t, s, _ = qkv.shape
    mask = None if mask is None else local_slice(mask, 1, "sequence", parts)
    return attend(qkv, heads, mask=mask, dropout=_local_dropout(dropout, t, s))


def temporal(attend: Attend, parts: int, qkv: jax.Array, heads: int, *, mask: Any, dropout: Any) -> jax.Array:
    """Temporal attention: an all-to-all reshards from time to space, [b t s/p 3c], and another one back."""
    qkv = jax.lax.all_to_all(qkv, "sequence", 2, 1, tiled=True)
    _, t, s, _ = qkv.shape
    mask = None if mask is None else local_slice(mask, 2, "sequence", parts)
    out = attend(qkv, heads, mask=mask, dropout=_local_dropout(dropout, s, t))
    return jax.lax.all_to_all(out, "sequence", 1, 2, tiled=True)


def factorised_dot_product(
    over_time: Attend, over_space: Attend, parts: int, qkv: jax.Array, heads: int, *, mask: Any, dropout: Any
) -> jax.Array:
    """The first half of the heads as `temporal`, with over_time; the second half as `spatial`, with over_space."""
    b, t, s, fused = qkv.shape
    split = qkv.reshape(b, t, s, 3, 2, fused // 6)
    time_half, space_half = (split[..., half, :].reshape(b, t, s, fused // 2) for half in (0, 1))
    time_drops, space_drops = halves(dropout)
    first = temporal(over_time, parts, time_half, heads // 2, mask=mask, dropout=time_drops)
    second = spatial(over_space, parts, space_half, heads // 2, mask=mask, dropout=space_drops)
    return jnp.concatenate([first, second], axis=-1)


def joint(attend: Attend, tokens: int, parts: int, qkv: jax.Array, heads: int, *, mask: Any, dropout: Any) -> jax.Array:
    """Joint attention, with heads in place of tokens split: [b n/p 3c] → all tokens of 1/p of the heads → [b n/p c].

    Two all-to-all collectives exchange the axes. tokens: length n of the sequence without the padding to a multiple of
    p; the padding is not attended to.
    """
    b, rows, fused = qkv.shape
    own = jax.lax.all_to_all(qkv.reshape(b, rows, 3, parts, fused // 3 // parts), "sequence", 3, 1, tiled=True)
    own = own.reshape(b, rows * parts, fused // parts)[:, :tokens]
    if dropout is not None:
        dropout = Dropout(local_slice(dropout.seeds, 1, "sequence", parts), dropout.rate)
    out = attend(own, heads // parts, mask=mask, dropout=dropout)
    out = jnp.pad(out, ((0, 0), (0, rows * parts - tokens), (0, 0)))
    return jax.lax.all_to_all(out, "sequence", 1, 2, tiled=True)


def _local_dropout(dropout: Dropout | None, outer: int, n: int) -> Dropout | None:
    """Returns the dropout of `outer` sequences of n tokens on this device, where the outer axis is sharded."""
    if dropout is None:
        return None
    return dropout_shard(dropout, jax.lax.axis_index("sequence") * outer, n, n)
