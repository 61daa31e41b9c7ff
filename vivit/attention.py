"""The attention variants, as in reference/attention.py, for XLA on any device.

All four become one shape of work: rows of [q d] against [k d], a row for each head of each sequence. Rows go through
the matrix unit in groups whose scores stay small: 12 heads of 3137² scores at once would be 472 MB a layer, and on the
CPU one head at a time is also two to three times faster. A group is recomputed in the backward pass, never stored.
Softmax is in float32, and its division comes after the second product, on [q d] instead of [q k].
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vivit.reference.attention import record

GROUP_SCORES = 2**23  # scores of one group of rows: 32 MiB in float32, about a CPU's last-level cache
_MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)


class Dropout(NamedTuple):
    """Attention dropout that is drawn where it is used, row by row, and drawn again in the backward pass."""

    key: jax.Array  # a random key
    rate: float

    def row_keys(self, rows: int) -> jax.Array:
        return jax.random.split(self.key, rows)

    def multiplier(self, row_key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return keep_multiplier(row_key, self.rate, shape)

    def all_multipliers(self, shape: tuple[int, ...]) -> jax.Array:
        """What the rows of weights of this shape are multiplied by, at once: float32[... q k]."""
        keys = self.row_keys(math.prod(shape[:-2]))
        return jax.vmap(lambda key: self.multiplier(key, shape[-2:]))(keys).reshape(shape)


def keep_multiplier(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """0 where dropped, 1 / (1 − rate) where kept: float32 of this shape."""
    return jax.random.bernoulli(key, 1.0 - rate, shape).astype(jnp.float32) / (1.0 - rate)


def joint(
    qkv: jax.Array,
    heads: int,
    *,
    mask: jax.Array | None = None,
    dropout: jax.Array | Dropout | None = None,
    capture: dict | None = None,
) -> jax.Array:
    """Every token attends to every token (model 1, and the temporal encoder of model 2).

    Source: Arnab et al. 2021, section 3.3, model 1. qkv: float[b n 3c]. mask: bool[b n]. dropout: float32[b h q k].
    Captures "weights" [b h q k]. Returns float[b n c], dtype of qkv.
    """
    b, n, _ = qkv.shape
    query, key, value = (part.transpose(0, 2, 1, 3) for part in split(qkv, heads))  # [b h n d]
    if mask is not None:
        mask = jnp.broadcast_to(mask[:, jnp.newaxis], (b, heads, n))
    out = attend(query, key, value, mask, dropout, capture, "weights")
    return merge_heads(out.transpose(0, 2, 1, 3))


def spatial(
    qkv: jax.Array,
    heads: int,
    *,
    mask: jax.Array | None = None,
    dropout: jax.Array | Dropout | None = None,
    capture: dict | None = None,
) -> jax.Array:
    """A token attends to the tokens of its own time (models 2 and 3).

    Source: Arnab et al. 2021, section 3.3, models 2 and 3. qkv: float[b t s 3c]. mask: bool[b t s].
    dropout: float32[b t h q k]. Captures "space_weights" [b t h q k]. Returns float[b t s c], dtype of qkv.
    """
    b, t, s, _ = qkv.shape
    query, key, value = (part.transpose(0, 1, 3, 2, 4) for part in split(qkv, heads))  # [b t h s d]
    if mask is not None:
        mask = jnp.broadcast_to(mask[:, :, jnp.newaxis], (b, t, heads, s))
    out = attend(query, key, value, mask, dropout, capture, "space_weights")
    return merge_heads(out.transpose(0, 1, 3, 2, 4))


def temporal(
    qkv: jax.Array,
    heads: int,
    *,
    mask: jax.Array | None = None,
    dropout: jax.Array | Dropout | None = None,
    capture: dict | None = None,
) -> jax.Array:
    """A token attends to the tokens of its own place (model 3).

    Source: Arnab et al. 2021, section 3.3, model 3. qkv: float[b t s 3c]. mask: bool[b t s].
    dropout: float32[b s h q k]. Captures "time_weights" [b s h q k]. Returns float[b t s c], dtype of qkv.
    """
    b, t, s, _ = qkv.shape
    query, key, value = (part.transpose(0, 2, 3, 1, 4) for part in split(qkv, heads))  # [b s h t d]
    if mask is not None:
        mask = jnp.broadcast_to(mask.transpose(0, 2, 1)[:, :, jnp.newaxis], (b, s, heads, t))
    out = attend(query, key, value, mask, dropout, capture, "time_weights")
    return merge_heads(out.transpose(0, 3, 1, 2, 4))


def factorised_dot_product(
    qkv: jax.Array,
    heads: int,
    *,
    mask: jax.Array | None = None,
    dropout: tuple[jax.Array, jax.Array] | Dropout | None = None,
    capture: dict | None = None,
) -> jax.Array:
    """The first half of the heads attends over time, the second half over space (model 4).

    Source: Arnab et al. 2021, section 3.3, model 4. qkv: float[b t s 3c]. mask: bool[b t s].
    dropout: (float32[b s h/2 q k] over time, float32[b t h/2 q k] over space). Captures "time_weights",
    "space_weights". Returns float[b t s c], dtype of qkv. Raises ValueError if heads is odd.
    """
    if heads % 2:
        raise ValueError(f"heads is {heads}: factorised_dot_product needs an even number, half for each axis")
    time_dropout, space_dropout = halve_dropout(dropout)
    b, t, s, fused = qkv.shape
    parts = qkv.reshape(b, t, s, 3, 2, fused // 6)  # query, key, value x half of the heads
    time_half, space_half = (parts[..., half, :].reshape(b, t, s, fused // 2) for half in (0, 1))
    over_time = temporal(time_half, heads // 2, mask=mask, dropout=time_dropout, capture=capture)
    over_space = spatial(space_half, heads // 2, mask=mask, dropout=space_dropout, capture=capture)
    return jnp.concatenate([over_time, over_space], axis=-1)


def halve_dropout(dropout: tuple[jax.Array, jax.Array] | Dropout | None) -> tuple:
    """The dropout of the two halves of the heads: over time, over space."""
    if isinstance(dropout, Dropout):
        time_key, space_key = jax.random.split(dropout.key)
        return Dropout(time_key, dropout.rate), Dropout(space_key, dropout.rate)
    return (None, None) if dropout is None else dropout


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    dropout: jax.Array | Dropout | None,
    capture: dict | None,
    name: str,
) -> jax.Array:
    """softmax(Q Kᵀ / √d) V for every row, in groups. query: float[... q d]. key, value: float[... k d].

    mask: bool[... k]. dropout: float32[... q k] or drawn here. Captures the weights [... q k] before dropout as `name`.
    Returns float[... q d], dtype of value. Source: Arnab et al. 2021, eq. 7.
    """
    *batch, q, d = query.shape
    k = key.shape[-2]
    rows = math.prod(batch)
    multipliers = None if dropout is None or isinstance(dropout, Dropout) else dropout.reshape(rows, q, k)
    row_keys = dropout.row_keys(rows) if isinstance(dropout, Dropout) else None

    def one_row(query, key, value, mask, multiplier, row_key):
        if isinstance(dropout, Dropout):
            multiplier = dropout.multiplier(row_key, (q, k))
        return _row(query, key, value, mask, multiplier, keep_weights=capture is not None)

    inputs = (
        query.reshape(rows, q, d),
        key.reshape(rows, k, d),
        value.reshape(rows, k, d),
        None if mask is None else mask.reshape(rows, k),
        multipliers,
        row_keys,
    )
    group = max(1, GROUP_SCORES // (q * k))
    if rows <= group:
        out, weights = jax.vmap(one_row)(*inputs)
    else:
        step = jax.checkpoint(lambda row: one_row(*row))
        out, weights = jax.lax.map(step, inputs, batch_size=group if group > 1 else None)
    if weights is not None:
        record(capture, name, weights.reshape(*batch, q, k))
    return out.reshape(*batch, q, d)


def _row(query, key, value, mask, multiplier, *, keep_weights: bool) -> tuple[jax.Array, jax.Array | None]:
    """One head of one sequence: ([q d], weights [q k] or None)."""
    product = partial(jnp.einsum, preferred_element_type=jnp.float32)
    scores = product("qd,kd->qk", query, key) * (1.0 / math.sqrt(query.shape[-1]))
    if mask is not None:
        mask = jnp.broadcast_to(mask[jnp.newaxis], scores.shape)
        scores = jnp.where(mask, scores, _MASKED)
    exponentials = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    if mask is not None:
        exponentials = jnp.where(mask, exponentials, 0.0)
    total = exponentials.sum(axis=-1, keepdims=True)
    if mask is not None:
        total = jnp.where(total == 0.0, 1.0, total)  # a row that sees nothing
    kept = exponentials if multiplier is None else exponentials * multiplier
    out = product("qk,kd->qd", kept.astype(value.dtype), value) / total
    return out.astype(value.dtype), exponentials / total if keep_weights else None


def split(qkv: jax.Array, heads: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Query, key and value of every head: float[... 3c] to three float[... h d].

    Raises ValueError if the last axis is not three times a multiple of heads.
    """
    *batch, fused = qkv.shape
    if heads < 1 or fused % (3 * heads):
        raise ValueError(f"qkv has {fused} channels: with {heads} heads it must be a multiple of {3 * heads}")
    parts = qkv.reshape(*batch, 3, heads, fused // 3 // heads)
    return parts[..., 0, :, :], parts[..., 1, :, :], parts[..., 2, :, :]


def merge_heads(out: jax.Array) -> jax.Array:
    """float[... h d] to float[... c]."""
    *batch, heads, d = out.shape
    return out.reshape(*batch, heads * d)
