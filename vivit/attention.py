"""The attention cores of reference/attention.py, computed by XLA on any device.

All cores reduce to one computation, softmax(Q Kᵀ / √d) V on rows of [q d] and [k d], with one row per head of each
sequence. Rows are processed in groups to limit the memory of the scores: 12 heads of 3137² scores would be 472 MB a
layer, and on a CPU one head at a time is also two to three times faster.

Softmax is in float32. The forward pass divides by the softmax's sum after the second product, on [q d] instead of
[q k]. Derivatives divide before it, as reference/gradients.py does, to avoid cancellation between large numbers. The
backward pass recomputes the weights and never stores them. JAX can differentiate the cores in every mode and order.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from vivit.layers import drop
from vivit.numerics.hash_dropout import Dropout, counter, halves, keep
from vivit.reference.attention import check_core, record

GROUP_SCORES = 2**23  # scores of one group of rows: 32 MiB in float32, about a CPU's last-level cache
_MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)


def joint(
    qkv: Float[Array, "b n qkv"],
    heads: int,
    *,
    mask: Bool[Array, "b n"] | None = None,
    dropout: Float32[Array, "b h n n"] | Dropout | None = None,
    capture: dict | None = None,
) -> Float[Array, "b n c"]:
    """Joint attention: every token attends to every token (model 1, and the temporal encoder of model 2).

    Source: Arnab et al. 2021, section 3.3, model 1. qkv: float[b n 3c]. mask: bool[b n]. dropout: float32[b h q k].
    Captures "weights" [b h q k]. Returns float[b n c], dtype of qkv.
    """
    check_core(qkv, "b n 3c", heads, mask)
    qkv = readable(qkv, mask)
    b, n, _ = qkv.shape
    query, key, value = (part.transpose(0, 2, 1, 3) for part in split(qkv, heads))  # [b h n d]
    if mask is not None:
        mask = jnp.broadcast_to(mask[:, jnp.newaxis], (b, heads, n))
    out = attend(query, key, value, mask, dropout, capture, "weights")
    return merge_heads(out.transpose(0, 2, 1, 3))


def spatial(
    qkv: Float[Array, "b t s qkv"],
    heads: int,
    *,
    mask: Bool[Array, "b t s"] | None = None,
    dropout: Float32[Array, "b t h s s"] | Dropout | None = None,
    capture: dict | None = None,
) -> Float[Array, "b t s c"]:
    """Spatial attention: a token attends to the tokens with the same time index (models 2 and 3).

    Source: Arnab et al. 2021, section 3.3, models 2 and 3. qkv: float[b t s 3c]. mask: bool[b t s].
    dropout: float32[b t h q k]. Captures "space_weights" [b t h q k]. Returns float[b t s c], dtype of qkv.
    """
    check_core(qkv, "b t s 3c", heads, mask)
    qkv = readable(qkv, mask)
    b, t, s, _ = qkv.shape
    query, key, value = (part.transpose(0, 1, 3, 2, 4) for part in split(qkv, heads))  # [b t h s d]
    if mask is not None:
        mask = jnp.broadcast_to(mask[:, :, jnp.newaxis], (b, t, heads, s))
    out = attend(query, key, value, mask, dropout, capture, "space_weights")
    return merge_heads(out.transpose(0, 1, 3, 2, 4))


def temporal(
    qkv: Float[Array, "b t s qkv"],
    heads: int,
    *,
    mask: Bool[Array, "b t s"] | None = None,
    dropout: Float32[Array, "b s h t t"] | Dropout | None = None,
    capture: dict | None = None,
) -> Float[Array, "b t s c"]:
    """Temporal attention: a token attends to the tokens with the same spatial index (model 3).

    Source: Arnab et al. 2021, section 3.3, model 3. qkv: float[b t s 3c]. mask: bool[b t s].
    dropout: float32[b s h q k]. Captures "time_weights" [b s h q k]. Returns float[b t s c], dtype of qkv.
    """
    check_core(qkv, "b t s 3c", heads, mask)
    qkv = readable(qkv, mask)
    b, t, s, _ = qkv.shape
    query, key, value = (part.transpose(0, 2, 3, 1, 4) for part in split(qkv, heads))  # [b s h t d]
    if mask is not None:
        mask = jnp.broadcast_to(mask.transpose(0, 2, 1)[:, :, jnp.newaxis], (b, s, heads, t))
    out = attend(query, key, value, mask, dropout, capture, "time_weights")
    return merge_heads(out.transpose(0, 3, 1, 2, 4))


def factorised_dot_product(
    qkv: Float[Array, "b t s qkv"],
    heads: int,
    *,
    mask: Bool[Array, "b t s"] | None = None,
    dropout: tuple[Float32[Array, "b s half t t"], Float32[Array, "b t half s s"]] | Dropout | None = None,
    capture: dict | None = None,
) -> Float[Array, "b t s c"]:
    """Attends over time with the first half of the heads and over space with the second half (model 4).

    Source: Arnab et al. 2021, section 3.3, model 4. qkv: float[b t s 3c]. mask: bool[b t s].
    dropout: (float32[b s h/2 q k] over time, float32[b t h/2 q k] over space). Captures "time_weights",
    "space_weights". Returns float[b t s c], dtype of qkv. Raises ValueError if heads is odd.
    """
    time_half, space_half = halves_of_heads(qkv, heads, mask)
    time_dropout, space_dropout = halves(dropout)
    over_time = temporal(time_half, heads // 2, mask=mask, dropout=time_dropout, capture=capture)
    over_space = spatial(space_half, heads // 2, mask=mask, dropout=space_dropout, capture=capture)
    return jnp.concatenate([over_time, over_space], axis=-1)


def attend(
    query: Float[Array, "*rows q d"],
    key: Float[Array, "*rows k d"],
    value: Float[Array, "*rows k d"],
    mask: Bool[Array, "*rows k"] | None,
    dropout: Float32[Array, "*rows q k"] | Dropout | None,
    capture: dict | None,
    name: str,
) -> Float[Array, "*rows q d"]:
    """softmax(Q Kᵀ / √d) V for every row, computed in groups of rows.

    Source: Arnab et al. 2021, eq. 7. query: float[... q d]. key, value: float[... k d]. mask: bool[... k].
    dropout: multipliers float32[... q k], or a Dropout to draw them from. Captures the weights [... q k] before dropout
    as `name`. Returns float[... q d], dtype of value.
    """
    *batch, q, d = query.shape
    k = key.shape[-2]
    rows = math.prod(batch)
    seeded = isinstance(dropout, Dropout)
    inputs = (
        query.reshape(rows, q, d),
        key.reshape(rows, k, d),
        value.reshape(rows, k, d),
        None if mask is None else mask.reshape(rows, k),
        None if seeded or dropout is None else dropout.reshape(rows, q, k),
        _row_seeds(dropout, batch) if seeded else None,
    )
    one_row = jax.checkpoint(partial(_row, dropout.rate if seeded else 0.0, capture is not None))
    group = max(1, GROUP_SCORES // (q * k))
    if rows <= group:
        out, weights = jax.vmap(one_row)(*inputs)
    else:
        out, weights = jax.lax.map(lambda row: one_row(*row), inputs, batch_size=group if group > 1 else None)
    if weights is not None:
        record(capture, name, weights.reshape(*batch, q, k))
    return out.reshape(*batch, q, d)


def readable(qkv: Float[Array, "*rows qkv"], mask: Bool[Array, "*rows"] | None) -> Float[Array, "*rows qkv"]:
    """Returns qkv with zeros in place of entries that are not read; see reference.attention.readable."""
    if mask is None:
        return qkv
    of_query = jnp.arange(qkv.shape[-1]) < qkv.shape[-1] // 3
    of_query = jnp.broadcast_to(of_query, qkv.shape)
    return jnp.where(mask[..., jnp.newaxis] | (of_query & jnp.isfinite(qkv)), qkv, jnp.zeros((), qkv.dtype))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _row(rate: float, keep_weights: bool, query, key, value, mask, multiplier, seeds):
    """Attention of one head of one sequence. Returns (out [q d], weights [q k] or None).

    query: [q d]. key, value: [k d]. mask: bool[k] or None. multiplier: float32[q k]; None draws it from seeds, if any.
    """
    exponentials, total = _exponentials(query, key, mask)
    kept = drop(exponentials, _multiplier(rate, multiplier, seeds, exponentials.shape))
    out = _product("qk,kd->qd", kept.astype(value.dtype), value) / total
    return out.astype(value.dtype), exponentials / total if keep_weights else None


def _row_jvp(rate, keep_weights, primals, tangents):
    """dW = W∘(dS − Σ W∘dS) and d(W V) = dW V + W dV: the transpose of reference/gradients.py's attend_vjp."""
    query, key, value, mask, multiplier, seeds = primals
    query_tangent, key_tangent, value_tangent, _, multiplier_tangent, _ = tangents
    exponentials, total = _exponentials(query, key, mask)
    weights = exponentials / total
    multiplier = _multiplier(rate, multiplier, seeds, weights.shape)
    scores_tangent = _product("qd,kd->qk", query_tangent, key) + _product("qd,kd->qk", query, key_tangent)
    scores_tangent = scores_tangent * (1.0 / math.sqrt(query.shape[-1]))
    weights_tangent = weights * (scores_tangent - (weights * scores_tangent).sum(axis=-1, keepdims=True))
    kept, kept_tangent = drop(weights, multiplier).astype(value.dtype), drop(weights_tangent, multiplier)
    if multiplier_tangent is not None:
        kept_tangent = kept_tangent + weights * multiplier_tangent
    out = _product("qk,kd->qd", kept, value)
    out_tangent = _product("qk,kd->qd", kept_tangent.astype(value.dtype), value)
    out_tangent = out_tangent + _product("qk,kd->qd", kept, value_tangent)
    return (
        (out.astype(value.dtype), weights if keep_weights else None),
        (out_tangent.astype(value.dtype), weights_tangent if keep_weights else None),
    )


_row.defjvp(_row_jvp)
_product = partial(jnp.einsum, preferred_element_type=jnp.float32)


def _exponentials(
    query: Float[Array, "q d"], key: Float[Array, "k d"], mask: Bool[Array, " k"] | None
) -> tuple[Float32[Array, "q k"], Float32[Array, "q 1"]]:
    """Returns exp(scores − largest), float32[q k], and the sum of each row, [q 1] (1 if every key is masked)."""
    scores = _product("qd,kd->qk", query, key) * (1.0 / math.sqrt(query.shape[-1]))
    if mask is not None:
        mask = jnp.broadcast_to(mask[jnp.newaxis], scores.shape)
        scores = jnp.where(mask, scores, _MASKED)
    # the weights do not depend on what is subtracted, so the maximum needs no derivative
    exponentials = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    if mask is None:
        return exponentials, exponentials.sum(axis=-1, keepdims=True)
    exponentials = jnp.where(mask, exponentials, 0.0)
    total = exponentials.sum(axis=-1, keepdims=True)
    return exponentials, jnp.where(total == 0.0, 1.0, total)


def _row_seeds(dropout: Dropout, batch: list[int]) -> Int32[Array, "rows 3"]:
    """Returns the dropout seeds of every row, int32[rows 3]: two seeds of its example and head, and its outer index.

    batch: [b h] or [b outer h].
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
    return keep((first, second), counter(outer, query, key, *shape), rate)


def halves_of_heads(
    qkv: Float[Array, "b t s qkv"], heads: int, mask: Bool[Array, "b t s"] | None = None
) -> tuple[Float[Array, "b t s half"], Float[Array, "b t s half"]]:
    """Splits the heads of model 4: float[b t s 3c] to two float[b t s 3c/2], over time and over space."""
    if heads % 2:
        raise ValueError(f"heads is {heads}: factorised_dot_product needs an even number, half for each axis")
    check_core(qkv, "b t s 3c", heads, mask)
    b, t, s, fused = qkv.shape
    parts = qkv.reshape(b, t, s, 3, 2, fused // 6)  # query, key, value x half of the heads
    over_time, over_space = (parts[..., half, :].reshape(b, t, s, fused // 2) for half in (0, 1))
    return over_time, over_space


def split(
    qkv: Float[Array, "*rows qkv"], heads: int
) -> tuple[Float[Array, "*rows h d"], Float[Array, "*rows h d"], Float[Array, "*rows h d"]]:
    """Splits qkv into query, key and value of every head: float[... 3c] to three float[... h d]."""
    *batch, fused = qkv.shape
    parts = qkv.reshape(*batch, 3, heads, fused // 3 // heads)
    return parts[..., 0, :, :], parts[..., 1, :, :], parts[..., 2, :, :]


def merge_heads(out: Float[Array, "*rows h d"]) -> Float[Array, "*rows c"]:
    """Merges heads into channels: float[... h d] to float[... c]."""
    *batch, heads, d = out.shape
    return out.reshape(*batch, heads * d)
