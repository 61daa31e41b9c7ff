"""The attention variants, as in reference/attention.py, for XLA on any device.

All four become one shape of work: rows of [q d] against [k d], a row for each head of each sequence. Rows go through
the matrix unit in groups whose scores stay small: 12 heads of 3137² scores at once would be 472 MB a layer, and on the
CPU one head at a time is also two to three times faster.

Softmax is in float32. Its division comes after the second product, on [q d] instead of [q k]; the backward pass divides
first, as reference/gradients.py does, since there the other order would subtract large numbers that nearly cancel. It
computes the weights again: none are ever stored.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp

from vivit.kernels.dropout import Dropout, halves, keep, place
from vivit.reference.attention import check_core, record

GROUP_SCORES = 2**23  # scores of one group of rows: 32 MiB in float32, about a CPU's last-level cache
_MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)


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
    check_core(qkv, "b n 3c", heads, mask)
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
    check_core(qkv, "b t s 3c", heads, mask)
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
    check_core(qkv, "b t s 3c", heads, mask)
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
    check_core(qkv, "b t s 3c", heads, mask)
    time_dropout, space_dropout = halves(dropout)
    b, t, s, fused = qkv.shape
    parts = qkv.reshape(b, t, s, 3, 2, fused // 6)  # query, key, value x half of the heads
    time_half, space_half = (parts[..., half, :].reshape(b, t, s, fused // 2) for half in (0, 1))
    over_time = temporal(time_half, heads // 2, mask=mask, dropout=time_dropout, capture=capture)
    over_space = spatial(space_half, heads // 2, mask=mask, dropout=space_dropout, capture=capture)
    return jnp.concatenate([over_time, over_space], axis=-1)


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
    drawn = isinstance(dropout, Dropout)
    inputs = (
        query.reshape(rows, q, d),
        key.reshape(rows, k, d),
        value.reshape(rows, k, d),
        None if mask is None else mask.reshape(rows, k),
        None if drawn or dropout is None else dropout.reshape(rows, q, k),
        _row_seeds(dropout, batch) if drawn else None,
    )
    one_row = partial(_row, dropout.rate if drawn else 0.0, capture is not None)
    group = max(1, GROUP_SCORES // (q * k))
    if rows <= group:
        out, weights = jax.vmap(one_row)(*inputs)
    else:
        out, weights = jax.lax.map(lambda row: one_row(*row), inputs, batch_size=group if group > 1 else None)
    if weights is not None:
        record(capture, name, weights.reshape(*batch, q, k))
    return out.reshape(*batch, q, d)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _row(rate: float, keep_weights: bool, query, key, value, mask, multiplier, seeds):
    """One head of one sequence: (out [q d], weights [q k] or None).

    query: [q d]. key, value: [k d]. mask: bool[k] or None. multiplier: float32[q k], or drawn from seeds, or None.
    """
    exponentials, total = _exponentials(query, key, mask)
    multiplier = _multiplier(rate, multiplier, seeds, exponentials.shape)
    kept = exponentials if multiplier is None else exponentials * multiplier
    out = _product("qk,kd->qd", kept.astype(value.dtype), value) / total
    return out.astype(value.dtype), exponentials / total if keep_weights else None


def _row_forward(rate, keep_weights, *inputs):
    return _row(rate, keep_weights, *inputs), inputs


def _row_backward(rate, keep_weights, inputs, cotangents):
    """As reference/gradients.py, attend_vjp; the captured weights may have a cotangent too."""
    query, key, value, mask, multiplier, seeds = inputs
    out_cotangent, weights_cotangent = cotangents
    scale = 1.0 / math.sqrt(query.shape[-1])
    exponentials, total = _exponentials(query, key, mask)
    weights = exponentials / total
    multiplier = _multiplier(rate, multiplier, seeds, weights.shape)
    kept, through = weights, _product("qd,kd->qk", out_cotangent, value)
    if multiplier is not None:
        kept, through = weights * multiplier, through * multiplier
    if keep_weights:
        through = through + weights_cotangent
    scores_cotangent = weights * (through - (through * weights).sum(axis=-1, keepdims=True))
    scores_cotangent = (scores_cotangent * scale).astype(query.dtype)
    return (
        _product("qk,kd->qd", scores_cotangent, key).astype(query.dtype),
        _product("qk,qd->kd", scores_cotangent, query).astype(key.dtype),
        _product("qk,qd->kd", kept.astype(value.dtype), out_cotangent).astype(value.dtype),
        None,
        None,
        None,
    )


_row.defvjp(_row_forward, _row_backward)

_product = partial(jnp.einsum, preferred_element_type=jnp.float32)


def _exponentials(query: jax.Array, key: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """exp(scores − largest) float32[q k], and the sum of each row [q 1] (1 where a row sees nothing)."""
    scores = _product("qd,kd->qk", query, key) * (1.0 / math.sqrt(query.shape[-1]))
    if mask is None:
        exponentials = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
        return exponentials, exponentials.sum(axis=-1, keepdims=True)
    mask = jnp.broadcast_to(mask[jnp.newaxis], scores.shape)
    scores = jnp.where(mask, scores, _MASKED)
    exponentials = jnp.where(mask, jnp.exp(scores - scores.max(axis=-1, keepdims=True)), 0.0)
    total = exponentials.sum(axis=-1, keepdims=True)
    return exponentials, jnp.where(total == 0.0, 1.0, total)


def _row_seeds(dropout: Dropout, batch: list[int]) -> jax.Array:
    """What a row's dropout is drawn from: its entry's and head's two seeds, and where it stands on the axis between.

    batch: [b h] or [b outer h]. Returns int32[rows 3].
    """
    b, *between, h = batch
    outer = between[0] if between else 1
    seeds = jnp.broadcast_to(dropout.seeds[:, jnp.newaxis], (b, outer, h, 2))
    index = jax.lax.broadcasted_iota(jnp.int32, (b, outer, h, 1), 1)
    return jnp.concatenate([seeds, index], axis=-1).reshape(b * outer * h, 3)


def _multiplier(rate: float, multiplier: jax.Array | None, seeds: jax.Array | None, shape: tuple[int, ...]):
    if seeds is None:
        return multiplier
    query, key = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    first, second, outer = (jnp.broadcast_to(seeds[i], shape) for i in range(3))
    return keep((first, second), place(outer, query, key, *shape), rate)


def split(qkv: jax.Array, heads: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Query, key and value of every head: float[... 3c] to three float[... h d]."""
    *batch, fused = qkv.shape
    parts = qkv.reshape(*batch, 3, heads, fused // 3 // heads)
    return parts[..., 0, :, :], parts[..., 1, :, :], parts[..., 2, :, :]


def merge_heads(out: jax.Array) -> jax.Array:
    """float[... h d] to float[... c]."""
    *batch, heads, d = out.shape
    return out.reshape(*batch, heads * d)
