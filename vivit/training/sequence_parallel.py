"""The attentions where tokens are split over the "sequence" axis of a mesh: what is exchanged before and after.

Each is called inside jax.shard_map with the attention of one device, `attend`, and computes what that computes of all
tokens. parts: devices of the axis. qkv: this device's tokens, [b t/p s 3c] split by time or [b n/p 3c], with all the
heads that its place on the other axes has; so is the result. mask: of all tokens. dropout: the seeds of the whole, from
which each part draws its own.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vivit.numerics.hash_dropout import Dropout, beginning_at, halves

Attend = Callable[..., jax.Array]


def own_part(x: jax.Array, axis: int, name: str, parts: int) -> jax.Array:
    """This device's part of what all devices of a mesh axis have."""
    size = x.shape[axis] // parts
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(name) * size, size, axis) if parts > 1 else x


def spatial(attend: Attend, parts: int, qkv: jax.Array, heads: int, *, mask: Any, dropout: Any) -> jax.Array:
    """Of some time indices: nothing is exchanged."""
    _, t, s, _ = qkv.shape
    mask = None if mask is None else own_part(mask, 1, "sequence", parts)
    return attend(qkv, heads, mask=mask, dropout=_part(dropout, t, s))


def temporal(attend: Attend, parts: int, qkv: jax.Array, heads: int, *, mask: Any, dropout: Any) -> jax.Array:
    """Tokens are exchanged to be split by space, [b t s/p 3c], and back."""
    qkv = jax.lax.all_to_all(qkv, "sequence", 2, 1, tiled=True)
    _, t, s, _ = qkv.shape
    mask = None if mask is None else own_part(mask, 2, "sequence", parts)
    out = attend(qkv, heads, mask=mask, dropout=_part(dropout, s, t))
    return jax.lax.all_to_all(out, "sequence", 1, 2, tiled=True)


def factorised_dot_product(
    over_time: Attend, over_space: Attend, parts: int, qkv: jax.Array, heads: int, *, mask: Any, dropout: Any
) -> jax.Array:
    """The first half of the heads as `temporal`, with the attention over_time; the second as `spatial`."""
    b, t, s, fused = qkv.shape
    split = qkv.reshape(b, t, s, 3, 2, fused // 6)
    time_half, space_half = (split[..., half, :].reshape(b, t, s, fused // 2) for half in (0, 1))
    time_drops, space_drops = halves(dropout)
    first = temporal(over_time, parts, time_half, heads // 2, mask=mask, dropout=time_drops)
    second = spatial(over_space, parts, space_half, heads // 2, mask=mask, dropout=space_drops)
    return jnp.concatenate([first, second], axis=-1)


def joint(attend: Attend, tokens: int, parts: int, qkv: jax.Array, heads: int, *, mask: Any, dropout: Any) -> jax.Array:
    """[b n/p 3c] → all tokens of 1/p of the heads → [b n/p c].

    tokens: of the sequence, without what fills it up to a multiple of parts, which takes no part.
    """
    b, rows, fused = qkv.shape
    own = jax.lax.all_to_all(qkv.reshape(b, rows, 3, parts, fused // 3 // parts), "sequence", 3, 1, tiled=True)
    own = own.reshape(b, rows * parts, fused // parts)[:, :tokens]
    if dropout is not None:
        dropout = Dropout(own_part(dropout.seeds, 1, "sequence", parts), dropout.rate)
    out = attend(own, heads // parts, mask=mask, dropout=dropout)
    out = jnp.pad(out, ((0, 0), (0, rows * parts - tokens), (0, 0)))
    return jax.lax.all_to_all(out, "sequence", 1, 2, tiled=True)


def _part(dropout: Dropout | None, outer: int, n: int) -> Dropout | None:
    """Of an attention that is split along its outer axis: of `outer` sequences of n tokens on each device."""
    if dropout is None:
        return None
    return beginning_at(dropout, jax.lax.axis_index("sequence") * outer, n, n)
