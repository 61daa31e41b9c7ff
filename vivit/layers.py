"""The layers of reference/layers.py in JAX: layer norm, dense, GELU, MLP, dropout, pooling.

Arithmetic is in float32 for every operand dtype: matmuls accumulate in float32 and return float32, and the caller
rounds the result before the next matmul. A TPU's matrix unit accumulates in float32 anyway; on XLA:CPU a matmul with
bfloat16 output is up to three times slower.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Float32

from vivit.numerics.gelu import gelu
from vivit.reference.attention import record
from vivit.reference.config import Config
from vivit.reference.dropout import AttentionDrops, MlpDrops
from vivit.reference.params import Dense, LayerNorm, Mlp

FIRST_TOKEN = ("token", "first")  # poolings that return the first token


class LayerConfig(NamedTuple):
    """The part of a Config that a layer uses, and the dtype of its matmuls' operands.

    It is a static argument of jit: models that differ only in pooling or head share one compiled encoder.
    """

    heads: int
    gelu: str
    epsilon: float
    order: str
    dtype: str


def layer_config(config: Config, dtype: str) -> LayerConfig:
    """Returns the LayerConfig of a config. dtype: "float32" or "bfloat16"."""
    return LayerConfig(config.heads, config.gelu, config.epsilon, config.order, dtype)


def layer_norm(x: Float[Array, "... c"], params: LayerNorm, epsilon: float) -> Float32[Array, "... c"]:
    """LN(x) over the channels. x: float[... c]. Returns float32[... c]."""
    x = x.astype(jnp.float32)
    mean = x.mean(axis=-1, keepdims=True)
    variance = jnp.square(x - mean).mean(axis=-1, keepdims=True)
    normal = (x - mean) * jax.lax.rsqrt(variance + epsilon)
    return normal * aligned(params.scale, x) + aligned(params.bias, x)


def dense(x: Float[Array, "... c"], params: Dense, dtype: DTypeLike) -> Float32[Array, "... f"]:
    """x W + bias, both operands of the product in `dtype`. x: float[... c], kernel [c f]. Returns float32[... f]."""
    out = jnp.einsum("...c,cf->...f", x.astype(dtype), params.kernel.astype(dtype), preferred_element_type=jnp.float32)
    return out + aligned(params.bias, out)


def mlp(
    x: Float[Array, "... c"], params: Mlp, form: str, dtype: DTypeLike, *, dropout: jax.Array | None = None
) -> Float32[Array, "... c"]:
    """GELU(x W₁ + b₁) W₂ + b₂. x: float[... c]. dropout: multiplier of the hidden layer. Returns float32[... c]."""
    hidden = checkpoint_name(dense(x, params.hidden, dtype), "hidden")
    return dense(drop(gelu(hidden, form), dropout), params.out, dtype)


def norm_dense(
    tokens: Float32[Array, "... n c"], norm: LayerNorm, params: Dense, layer: LayerConfig
) -> tuple[Float[Array, "... n f"], Float32[Array, "... n c"]]:
    """Returns (LN(z) W + b in the layer's dtype, z unchanged). tokens: float32[... n c]."""
    projected = dense(layer_norm(tokens, norm, layer.epsilon), params, layer.dtype).astype(layer.dtype)
    return checkpoint_name(projected, "projected"), tokens


def residual_dense(
    tokens: Float32[Array, "... n c"],
    x: Float[Array, "... n d"],
    params: Dense,
    drops: AttentionDrops,
    layer: LayerConfig,
    *,
    capture: dict | None = None,
    name: str = "attention",
) -> Float32[Array, "... n c"]:
    """z + x W + b. tokens: float32[... n c]. Captures the branch x W + b as `name`. Returns float32[... n c]."""
    branch = drop(dense(checkpoint_name(x, "mixed"), params, layer.dtype), drops.out)
    record(capture, name, branch)
    return checkpoint_name(tokens + drop(branch, drops.depth), "attended")


def residual_mlp(
    tokens: Float32[Array, "... n c"],
    norm: LayerNorm,
    params: Mlp,
    drops: MlpDrops,
    layer: LayerConfig,
    *,
    capture: dict | None = None,
) -> Float32[Array, "... n c"]:
    """z + MLP(LN(z)). tokens: float32[... n c]. Captures the branch as "mlp". Returns float32[... n c]."""
    normal = layer_norm(tokens, norm, layer.epsilon)
    branch = drop(mlp(normal, params, layer.gelu, layer.dtype, dropout=drops.hidden), drops.out)
    record(capture, "mlp", branch)
    return tokens + drop(branch, drops.depth)


def drop(x: jax.Array, multiplier: jax.Array | None) -> jax.Array:
    """x · multiplier; returns x if multiplier is None."""
    return x if multiplier is None else x * multiplier


@partial(jax.jit, static_argnames="pooling")
def pool(
    tokens: Float32[Array, "... n c"], pooling: str, mask: Bool[Array, "... m"] | None = None
) -> Float32[Array, "... c"]:
    """Pools each sequence to one vector. mask: True for tokens that count. n: m, or 1 if only one was computed."""
    if pooling in FIRST_TOKEN:
        return tokens[..., 0, :]
    keep = None if mask is None else mask[..., jnp.newaxis]
    if pooling == "max":
        return _max(tokens if keep is None else jnp.where(keep, tokens, -jnp.inf))
    total = (tokens if keep is None else jnp.where(keep, tokens, 0.0)).sum(axis=-2)
    if pooling == "sum":
        return total
    return total / (tokens.shape[-2] if keep is None else keep.sum(axis=-2).astype(jnp.float32))


@jax.custom_jvp
def _max(tokens: Float32[Array, "... n c"]) -> Float32[Array, "... c"]:
    """Returns the maximum over the tokens in each channel: float32[... n c] to [... c]."""
    return tokens.max(axis=-2)


@_max.defjvp
def _max_jvp(primals, tangents):
    (tokens,), (tangent,) = primals, tangents
    return _max(tokens), (_largest_share(tokens) * tangent).sum(axis=-2)


def _largest_share(tokens: Float32[Array, "... n c"]) -> Float32[Array, "... n c"]:
    """Returns the derivative of `_max`: 1 for the largest token of a channel, equal parts for ties; has no gradient.

    XLA may recompute tokens for each use, with other roundings, so that none equals the maximum. The largest token is
    therefore found by its index. Ties are searched only if the first and the last index differ, in a branch of `cond`,
    whose operand is computed once.
    """
    tokens = jax.lax.stop_gradient(tokens)
    first = jnp.argmax(tokens, axis=-2, keepdims=True)
    last = tokens.shape[-2] - 1 - jnp.argmax(jnp.flip(tokens, axis=-2), axis=-2, keepdims=True)
    index = jax.lax.broadcasted_iota(first.dtype, tokens.shape, tokens.ndim - 2)

    def share(tokens: jax.Array) -> jax.Array:
        largest = (tokens == tokens.max(axis=-2, keepdims=True)) | (index == first)
        return largest.astype(jnp.float32) / largest.sum(axis=-2, keepdims=True, dtype=jnp.float32)

    return jax.lax.cond(jnp.all(first == last), lambda _: (index == first).astype(jnp.float32), share, tokens)


def aligned(x: jax.Array, like: jax.Array) -> jax.Array:
    """Returns x in float32 with leading axes of size 1 up to the rank of `like`, for explicit broadcasting."""
    return jax.lax.expand_dims(x.astype(jnp.float32), range(like.ndim - x.ndim))
