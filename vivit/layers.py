"""The parts between the attentions, as in reference/layers.py: layer norm, dense, GELU, MLP, dropout, pooling.

Arithmetic is in float32 whatever the operands' dtype: every matmul accumulates in float32 and yields float32, and the
caller rounds the result where it enters the next matmul. That is what a TPU's matrix unit does anyway, and on XLA:CPU
the other form (bfloat16 out) is up to three times slower.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vivit.numerics.gelu import gelu
from vivit.reference.attention import record
from vivit.reference.config import Config
from vivit.reference.dropout import AttentionDrops, MlpDrops
from vivit.reference.params import Dense, LayerNorm, Mlp

FIRST = ("token", "first")  # poolings that take the first token


class LayerConfig(NamedTuple):
    """What one layer knows of its config, and the dtype of its matmuls' operands.

    Models whose layers have one config, shape and number share one compiled encoder, whatever their pooling and head.
    """

    heads: int
    gelu: str
    epsilon: float
    order: str
    dtype: str


def layer_config(config: Config, dtype: str) -> LayerConfig:
    """The layers of a config, with "float32" or "bfloat16" operands."""
    return LayerConfig(config.heads, config.gelu, config.epsilon, config.order, dtype)


def layer_norm(x: jax.Array, params: LayerNorm, epsilon: float) -> jax.Array:
    """LN(x) over the channels. x: float[... c]. Returns float32[... c]."""
    x = x.astype(jnp.float32)
    mean = x.mean(axis=-1, keepdims=True)
    variance = jnp.square(x - mean).mean(axis=-1, keepdims=True)
    normal = (x - mean) * jax.lax.rsqrt(variance + epsilon)
    return normal * aligned(params.scale, x) + aligned(params.bias, x)


def dense(x: jax.Array, params: Dense, dtype: DTypeLike) -> jax.Array:
    """x W + bias, both operands of the product in `dtype`. x: float[... c], kernel [c f]. Returns float32[... f]."""
    out = jnp.einsum("...c,cf->...f", x.astype(dtype), params.kernel.astype(dtype), preferred_element_type=jnp.float32)
    return out + aligned(params.bias, out)


def mlp(x: jax.Array, params: Mlp, form: str, dtype: DTypeLike, *, dropout: jax.Array | None = None) -> jax.Array:
    """GELU(x W₁ + b₁) W₂ + b₂. x: float[... c]. dropout: multiplier of the hidden layer. Returns float32[... c]."""
    return dense(drop(gelu(dense(x, params.hidden, dtype), form), dropout), params.out, dtype)


def norm_dense(tokens: jax.Array, norm: LayerNorm, params: Dense, layer: LayerConfig) -> tuple[jax.Array, jax.Array]:
    """(LN(z) W + b in the layer's dtype, z). tokens: float32[... n c]."""
    return dense(layer_norm(tokens, norm, layer.epsilon), params, layer.dtype).astype(layer.dtype), tokens


def residual_dense(
    tokens: jax.Array,
    x: jax.Array,
    params: Dense,
    drops: AttentionDrops,
    layer: LayerConfig,
    *,
    capture: dict | None = None,
    name: str = "attention",
) -> jax.Array:
    """z + x W + b. tokens: float32[... n c]. Captures the branch x W + b as `name`. Returns float32[... n c]."""
    branch = drop(dense(x, params, layer.dtype), drops.out)
    record(capture, name, branch)
    return tokens + drop(branch, drops.depth)


def residual_mlp(
    tokens: jax.Array,
    norm: LayerNorm,
    params: Mlp,
    drops: MlpDrops,
    layer: LayerConfig,
    *,
    capture: dict | None = None,
) -> jax.Array:
    """z + MLP(LN(z)). tokens: float32[... n c]. Captures the branch as "mlp". Returns float32[... n c]."""
    normal = layer_norm(tokens, norm, layer.epsilon)
    branch = drop(mlp(normal, params, layer.gelu, layer.dtype, dropout=drops.hidden), drops.out)
    record(capture, "mlp", branch)
    return tokens + drop(branch, drops.depth)


def drop(x: jax.Array, multiplier: jax.Array | None) -> jax.Array:
    """x · multiplier; None: nothing is dropped."""
    return x if multiplier is None else x * multiplier


@partial(jax.jit, static_argnames="pooling")
def pool(tokens: jax.Array, pooling: str, mask: jax.Array | None = None) -> jax.Array:
    """One vector a sequence. tokens: float32[... n c]. mask: bool[... n], True where one counts. Returns [... c]."""
    if pooling in FIRST:
        return tokens[..., 0, :]
    keep = None if mask is None else mask[..., jnp.newaxis]
    if pooling == "max":
        return _largest(tokens if keep is None else jnp.where(keep, tokens, -jnp.inf))
    total = (tokens if keep is None else jnp.where(keep, tokens, 0.0)).sum(axis=-2)
    if pooling == "sum":
        return total
    return total / (tokens.shape[-2] if keep is None else keep.sum(axis=-2).astype(jnp.float32))


@jax.custom_jvp
def _largest(tokens: jax.Array) -> jax.Array:
    """The largest token of every channel: float32[... n c] to [... c]."""
    return tokens.max(axis=-2)


@_largest.defjvp
def _largest_jvp(primals, tangents):
    (tokens,), (tangent,) = primals, tangents
    return _largest(tokens), (_largest_share(tokens) * tangent).sum(axis=-2)


def _largest_share(tokens: jax.Array) -> jax.Array:
    """1 where a token is the largest of its channel, equal parts where several are; float32[... n c], without gradient.

    XLA may compute tokens anew wherever they are used, rounded otherwise: compared with their maximum, none may equal
    it. So the place of the largest is found as an index, and equal ones are looked for only where there are two places,
    in a branch, whose operand is computed once.
    """
    tokens = jax.lax.stop_gradient(tokens)
    first = jnp.argmax(tokens, axis=-2, keepdims=True)
    last = tokens.shape[-2] - 1 - jnp.argmax(jnp.flip(tokens, axis=-2), axis=-2, keepdims=True)
    place = jax.lax.broadcasted_iota(first.dtype, tokens.shape, tokens.ndim - 2)

    def share(tokens: jax.Array) -> jax.Array:
        largest = (tokens == tokens.max(axis=-2, keepdims=True)) | (place == first)
        return largest.astype(jnp.float32) / largest.sum(axis=-2, keepdims=True, dtype=jnp.float32)

    return jax.lax.cond(jnp.all(first == last), lambda _: (place == first).astype(jnp.float32), share, tokens)


def aligned(x: jax.Array, like: jax.Array) -> jax.Array:
    """x in float32 with leading axes of 1, as many as `like` has more: the explicit form of broadcasting."""
    return jax.lax.expand_dims(x.astype(jnp.float32), range(like.ndim - x.ndim))
