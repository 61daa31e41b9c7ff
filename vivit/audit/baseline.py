"""The baseline: the same operations in the textbook formulation, one einsum per matrix product, without optimisations.

It embeds by convolution, keeps heads as an axis, holds all attention weights in memory, and computes every product in
the tested dtype. Production's error against the reference may be at most twice the baseline's (bound.py). The baseline
is also the reference for speed and for the compiler's count of multiply-adds. It differs from production in its Ops
only and shares the rest of the code; bound.py therefore also caps the baseline's own error.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp

from vivit import models, tubelet
from vivit.attention import merge_heads, split
from vivit.layers import LayerConfig, aligned, drop
from vivit.numerics.hash_dropout import Dropout, halves, multipliers
from vivit.ops import Ops
from vivit.reference.attention import record
from vivit.reference.dropout import AttentionDrops, MlpDrops
from vivit.reference.params import Dense, LayerNorm, Mlp


def embed(video: jax.Array, params: Dense) -> jax.Array:
    """Tubelet embedding as a 3-D convolution. Arguments and result as in tubelet.embed, which also handles patches."""
    if video.ndim == 4:
        return tubelet.embed(video, params)
    kernel = params.kernel.astype(jnp.float32)
    layout = ("NDHWC", "DHWIO", "NDHWC")
    tokens = jax.lax.conv_general_dilated(
        tubelet.pixels(video), kernel, kernel.shape[:3], "VALID", dimension_numbers=layout
    )
    b, t, rows, columns, c = tokens.shape
    return (tokens + aligned(params.bias, tokens)).reshape(b, t, rows * columns, c)


def joint(qkv, heads, *, mask=None, dropout=None, capture=None):
    """Same as attention.joint."""
    if mask is not None:
        mask = mask[:, jnp.newaxis, jnp.newaxis]
    return _attend(qkv, heads, "bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", mask, dropout, capture, "weights")


def spatial(qkv, heads, *, mask=None, dropout=None, capture=None):
    """Same as attention.spatial."""
    if mask is not None:
        mask = mask[:, :, jnp.newaxis, jnp.newaxis]
    return _attend(qkv, heads, "btqhd,btkhd->bthqk", "bthqk,btkhd->btqhd", mask, dropout, capture, "space_weights")


def temporal(qkv, heads, *, mask=None, dropout=None, capture=None):
    """Same as attention.temporal."""
    if mask is not None:
        mask = mask.transpose(0, 2, 1)[:, :, jnp.newaxis, jnp.newaxis]
    return _attend(qkv, heads, "bqshd,bkshd->bshqk", "bshqk,bkshd->bqshd", mask, dropout, capture, "time_weights")


def factorised_dot_product(qkv, heads, *, mask=None, dropout=None, capture=None):
    """Same as attention.factorised_dot_product."""
    query, key, value = jnp.split(qkv, 3, axis=-1)
    first, second = zip(*(jnp.split(part, 2, axis=-1) for part in (query, key, value)), strict=True)
    time_dropout, space_dropout = halves(dropout)
    over_time = temporal(jnp.concatenate(first, -1), heads // 2, mask=mask, dropout=time_dropout, capture=capture)
    over_space = spatial(jnp.concatenate(second, -1), heads // 2, mask=mask, dropout=space_dropout, capture=capture)
    return jnp.concatenate([over_time, over_space], axis=-1)


def _attend(qkv, heads, score_equation, out_equation, mask, dropout, capture, name):
    query, key, value = split(qkv, heads)
    scores = jnp.einsum(score_equation, query, key) / math.sqrt(query.shape[-1])
    if isinstance(dropout, Dropout):
        outer = scores.shape[1] if scores.ndim == 5 else 1
        dropout = multipliers(dropout, outer, *scores.shape[-2:]).reshape(scores.shape)
    if mask is not None:
        mask = jnp.broadcast_to(mask, scores.shape)
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1, where=mask)
    if mask is not None:
        weights = jnp.where(mask & mask.any(axis=-1, keepdims=True), weights, 0.0)
    record(capture, name, weights)
    return merge_heads(jnp.einsum(out_equation, drop(weights, dropout).astype(value.dtype), value))


def norm_dense(tokens: jax.Array, norm: LayerNorm, params: Dense, layer: LayerConfig) -> tuple[jax.Array, jax.Array]:
    """Same as layers.norm_dense."""
    return _dense(layer_norm(tokens, norm, layer.epsilon).astype(layer.dtype), params), tokens


def residual_dense(
    tokens, x, params: Dense, drops: AttentionDrops, layer: LayerConfig, *, capture=None, name="attention"
) -> jax.Array:
    """Same as layers.residual_dense."""
    branch = drop(_dense(x, params).astype(jnp.float32), drops.out)
    record(capture, name, branch)
    return tokens + drop(branch, drops.depth)


def residual_mlp(
    tokens, norm: LayerNorm, params: Mlp, drops: MlpDrops, layer: LayerConfig, *, capture=None
) -> jax.Array:
    """Same as layers.residual_mlp."""
    hidden = _dense(layer_norm(tokens, norm, layer.epsilon).astype(layer.dtype), params.hidden)
    hidden = jax.nn.gelu(hidden, approximate=layer.gelu == "tanh")
    hidden = drop(hidden.astype(jnp.float32), drops.hidden).astype(layer.dtype)
    branch = drop(_dense(hidden, params.out).astype(jnp.float32), drops.out)
    record(capture, "mlp", branch)
    return tokens + drop(branch, drops.depth)


def layer_norm(x: jax.Array, params: LayerNorm, epsilon: float) -> jax.Array:
    """Same as layers.layer_norm."""
    normal = jax.nn.standardize(x, axis=-1, epsilon=epsilon)
    return normal * aligned(params.scale, x) + aligned(params.bias, x)


def _dense(x, params: Dense):
    """x W + bias, with operands and result in x's dtype."""
    out = jnp.einsum("...c,cf->...f", x, params.kernel.astype(x.dtype))
    return out + aligned(params.bias, out).astype(x.dtype)


BASELINE = Ops(
    embed=embed,
    norm_dense=norm_dense,
    joint=joint,
    spatial=spatial,
    temporal=temporal,
    factorised_dot_product=factorised_dot_product,
    residual_dense=residual_dense,
    residual_mlp=residual_mlp,
    layer_norm=layer_norm,
)
forward = partial(models.forward, attention=BASELINE, unroll=True)  # the compiler counts every layer
