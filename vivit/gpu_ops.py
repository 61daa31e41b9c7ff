"""The attention cores through cuDNN's fused attention, on NVIDIA GPUs of compute capability 8.0 or later.

`jax.nn.dot_product_attention(implementation="cudnn")` holds no scores in memory, forward or backward. It takes bfloat16
with heads of a multiple of 8 and up to 128 channels. Float32, other heads and dropout (whose multipliers must be
vivit's) go through XLA's form, attention.py.

cuDNN knows masks as the number of tokens that each row starts with; masks of other forms are slow. So these cores
require that a row's True come before its False, as `models.forward` makes masks: frames of padding stand last. A row of
length 0 is computed with length 1 and replaced by zeros, since cuDNN leaves such rows undefined.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vivit import attention
from vivit.numerics.hash_dropout import Dropout
from vivit.ops import XLA, Op
from vivit.reference.attention import check_core
from vivit.reverse_once import reverse_once

MOST_CHANNELS = 128  # of a head, on every GPU that has the fused attention


def fits(qkv: jax.Array, heads: int) -> bool:
    """Whether cuDNN computes these heads. qkv: float[... 3c]."""
    channels = qkv.shape[-1] // 3 // heads
    return qkv.dtype == jnp.bfloat16 and channels % 8 == 0 and channels <= MOST_CHANNELS and qkv.size > 0


def joint(qkv: Float[Array, "b n qkv"], heads: int, *, mask: Bool[Array, "b n"] | None = None) -> Float[Array, "b n c"]:
    """Joint attention: every token attends to every token (model 1, and the temporal encoder of model 2).

    Source: Arnab et al. 2021, section 3.3, model 1. qkv: bfloat16[b n 3c]. mask: bool[b n], True before False.
    Returns bfloat16[b n c].
    """
    check_core(qkv, "b n 3c", heads, mask)
    query, key, value = attention.split(attention.readable(qkv, mask), heads)  # [b n h d]
    if mask is None:
        return attention.merge_heads(jax.nn.dot_product_attention(query, key, value, implementation="cudnn"))
    lengths = mask.sum(axis=1, dtype=jnp.int32)
    out = jax.nn.dot_product_attention(
        query, key, value, key_value_seq_lengths=jnp.maximum(lengths, 1), implementation="cudnn"
    )
    return attention.merge_heads(jnp.where(lengths[:, np.newaxis, np.newaxis, np.newaxis] > 0, out, 0))


def spatial(
    qkv: Float[Array, "b t s qkv"], heads: int, *, mask: Bool[Array, "b t s"] | None = None
) -> Float[Array, "b t s c"]:
    """Spatial attention: a token attends to the tokens with the same time index (models 2 and 3).

    Source: Arnab et al. 2021, section 3.3, models 2 and 3. qkv: bfloat16[b t s 3c]. mask: bool[b t s], True before
    False on the last axis. Returns bfloat16[b t s c].
    """
    check_core(qkv, "b t s 3c", heads, mask)
    b, t, s, fused = qkv.shape
    rows = joint(qkv.reshape(b * t, s, fused), heads, mask=None if mask is None else mask.reshape(b * t, s))
    return rows.reshape(b, t, s, fused // 3)


def temporal(
    qkv: Float[Array, "b t s qkv"], heads: int, *, mask: Bool[Array, "b t s"] | None = None
) -> Float[Array, "b t s c"]:
    """Temporal attention: a token attends to the tokens with the same spatial index (model 3).

    Source: Arnab et al. 2021, section 3.3, model 3. qkv: bfloat16[b t s 3c]. mask: bool[b t s], True before False on
    the axis of time. Returns bfloat16[b t s c].
    """
    check_core(qkv, "b t s 3c", heads, mask)
    mask = None if mask is None else mask.swapaxes(1, 2)
    return spatial(qkv.swapaxes(1, 2), heads, mask=mask).swapaxes(1, 2)


def factorised_dot_product(
    qkv: Float[Array, "b t s qkv"], heads: int, *, mask: Bool[Array, "b t s"] | None = None
) -> Float[Array, "b t s c"]:
    """Attends over time with the first half of the heads and over space with the second half (model 4).

    Source: Arnab et al. 2021, section 3.3, model 4. qkv: bfloat16[b t s 3c]. mask: bool[b t s], True before False on
    both axes. Returns bfloat16[b t s c]. Raises ValueError if heads is odd.
    """
    over_time, over_space = attention.halves_of_heads(qkv, heads, mask)
    halves = temporal(over_time, heads // 2, mask=mask), spatial(over_space, heads // 2, mask=mask)
    return jnp.concatenate(halves, axis=-1)


def _where_it_fits(core: Callable[..., jax.Array], otherwise: Op) -> Op:
    """The core through cuDNN, or through XLA where cuDNN does not compute it."""

    def attend(
        qkv: jax.Array, heads: int, *, mask: jax.Array | None = None, dropout: Dropout | None = None
    ) -> jax.Array:
        if dropout is not None or not fits(qkv, heads):
            return otherwise(qkv, heads, mask=mask, dropout=dropout)
        return core(reverse_once(qkv), heads, mask=mask)

    return attend


CUDNN = XLA._replace(
    joint=_where_it_fits(joint, attention.joint),
    spatial=_where_it_fits(spatial, attention.spatial),
    temporal=_where_it_fits(temporal, attention.temporal),
    factorised_dot_product=_where_it_fits(factorised_dot_product, attention.factorised_dot_product),
)
