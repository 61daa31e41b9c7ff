"""The attention cores where tokens are split over the "sequence" axis of a mesh: who is exchanged for what.

Each is called inside jax.shard_map as core(parts, tokens, cores, qkv, heads, *, mask, dropout, …) in place of the core
of that name in `cores` (vivit.attention or vivit.kernels.attention). parts: devices of the axis. tokens: of a joint
sequence, without what fills it up to a multiple of parts. qkv: this device's tokens, with all the heads that its place
on the other axes has. mask: of all tokens. dropout: the seeds of the whole, from which each part draws its own.
"""

from typing import Any

import jax
import jax.numpy as jnp

from vivit.kernels.dropout import Dropout, beginning_at, halves


def own_part(x: jax.Array, axis: int, name: str, parts: int) -> jax.Array:
    """This device's part of what all devices of a mesh axis have."""
    size = x.shape[axis] // parts
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(name) * size, size, axis) if parts > 1 else x


def by_space(x: jax.Array, parts: int) -> jax.Array:
    """[b t/n s c] → [b t s/n c]."""
    return jax.lax.all_to_all(x, "sequence", 2, 1, tiled=True) if parts > 1 else x


def by_time(x: jax.Array, parts: int) -> jax.Array:
    """[b t s/n c] → [b t/n s c]."""
    return jax.lax.all_to_all(x, "sequence", 1, 2, tiled=True) if parts > 1 else x


def spatial(
    parts: int, tokens: int, cores: Any, qkv: jax.Array, heads: int, *, mask: Any, dropout: Any, **options
) -> jax.Array:
    """As cores.spatial, of some time indices. qkv: [b t s 3c] of this device."""
    _, t, s, _ = qkv.shape
    mask = None if mask is None else own_part(mask, 1, "sequence", parts)
    return cores.spatial(qkv, heads, mask=mask, dropout=_part(dropout, t, s), **options)


def temporal(
    parts: int, tokens: int, cores: Any, qkv: jax.Array, heads: int, *, mask: Any, dropout: Any, **options
) -> jax.Array:
    """As cores.temporal, of some places. qkv: [b t s 3c] of this device."""
    _, t, s, _ = qkv.shape
    mask = None if mask is None else own_part(mask, 2, "sequence", parts)
    return cores.temporal(qkv, heads, mask=mask, dropout=_part(dropout, s, t), **options)


def _part(dropout: Dropout | None, outer: int, n: int) -> Dropout | None:
    """Of a core that is split along its outer axis: of `outer` sequences of n tokens on each device."""
    if dropout is None:
        return None
    return beginning_at(dropout, jax.lax.axis_index("sequence") * outer, n, n)


def factorised_dot_product(
    parts: int, tokens: int, cores: Any, qkv: jax.Array, heads: int, *, mask: Any, dropout: Any, **options
) -> jax.Array:
    """The heads over time on tokens split by space, those over space on tokens split by time."""
    b, t, s, fused = qkv.shape
    split = qkv.reshape(b, t, s, 3, 2, fused // 6)
    time_half, space_half = (split[..., half, :].reshape(b, t, s, fused // 2) for half in (0, 1))
    time_drops, space_drops = halves(dropout)
    over_time = temporal(
        parts, tokens, cores, by_space(time_half, parts), heads // 2, mask=mask, dropout=time_drops, **options
    )
    over_space = spatial(parts, tokens, cores, space_half, heads // 2, mask=mask, dropout=space_drops, **options)
    return jnp.concatenate([by_time(over_time, parts), over_space], axis=-1)


def joint(
    parts: int, tokens: int, cores: Any, qkv: jax.Array, heads: int, *, mask: Any, dropout: Any, **options
) -> jax.Array:
    """[b n/p 3c] → all tokens of 1/p of the heads → [b n/p c]. What fills the sequence up takes no part."""
    b, rows, fused = qkv.shape
    own = jax.lax.all_to_all(qkv.reshape(b, rows, 3, parts, fused // 3 // parts), "sequence", 3, 1, tiled=True)
    own = own.reshape(b, rows * parts, fused // parts)[:, :tokens]
    if dropout is not None:
        dropout = Dropout(own_part(dropout.seeds, 1, "sequence", parts), dropout.rate)
    out = cores.joint(own, heads // parts, mask=mask, dropout=dropout, **options)
    out = jnp.pad(out, ((0, 0), (0, rows * parts - tokens), (0, 0)))
    return jax.lax.all_to_all(out, "sequence", 1, 2, tiled=True)


CORES = {
    "joint": joint,
    "spatial": spatial,
    "temporal": temporal,
    "factorised_dot_product": factorised_dot_product,
}
