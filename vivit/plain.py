"""The yardstick: the same four models in the usual formulation, an einsum where the paper has a product, no tricks.

Embedding by convolution, heads as an axis, all attention weights at once, layers in a Python loop, every product in the
tested dtype. Production's error against the reference may be at most twice this one's (accuracy.py), its speed is
compared with this one's, and the compiler counts the multiply-adds of this one. Nobody needs to run it otherwise.
"""

import math
from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vivit import tubelet
from vivit.attention import merge_heads, split
from vivit.encoder import Kind, kind_of
from vivit.layers import aligned, drop
from vivit.models import Parts, checked, run
from vivit.reference.attention import record
from vivit.reference.config import Config
from vivit.reference.dropout import AttentionDrops, BlockDrops, Drops, EncoderDrops, FactorisedBlockDrops, MlpDrops
from vivit.reference.params import Attention, Block, Dense, Encoder, FactorisedBlock, LayerNorm, Mlp, Params, layer


def forward(
    params: Params,
    video: jax.Array | np.ndarray,
    config: Config,
    *,
    frames_valid: jax.Array | np.ndarray | None = None,
    resize: bool = False,
    dtype: str | None = None,
    drops: Drops | None = None,
    capture: dict | None = None,
) -> jax.Array:
    """The logits of a batch of clips. Arguments as vivit.forward's, but drops are given, as to the reference."""
    video, frames_valid, grid, dtype = checked(params, video, config, frames_valid, resize, dtype)

    def encode_part(*args, name: str = "encoder", only_first: bool = False, **kwargs):  # always all tokens
        return encode(*args, **kwargs, dtype=dtype, drops=getattr(drops or Drops(), name), name=name)

    parts = Parts(
        embed,
        encode_part,
        partial(block, core=joint),
        partial(block, core=spatial),
        factorised_block,
        partial(block, core=factorised_dot_product),
    )
    return run(params, video, config, grid, parts, frames_valid=frames_valid, capture=capture)


def embed(video: jax.Array, params: Dense) -> jax.Array:
    """Tubelet embedding as a 3-D convolution. Arguments and result as tubelet.embed; patches have no convolution."""
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
    """As attention.joint."""
    if mask is not None:
        mask = mask[:, jnp.newaxis, jnp.newaxis]
    return _attend(qkv, heads, "bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", mask, dropout, capture, "weights")


def spatial(qkv, heads, *, mask=None, dropout=None, capture=None):
    """As attention.spatial."""
    if mask is not None:
        mask = mask[:, :, jnp.newaxis, jnp.newaxis]
    return _attend(qkv, heads, "btqhd,btkhd->bthqk", "bthqk,btkhd->btqhd", mask, dropout, capture, "space_weights")


def temporal(qkv, heads, *, mask=None, dropout=None, capture=None):
    """As attention.temporal."""
    if mask is not None:
        mask = mask.transpose(0, 2, 1)[:, :, jnp.newaxis, jnp.newaxis]
    return _attend(qkv, heads, "bqshd,bkshd->bshqk", "bshqk,bkshd->bqshd", mask, dropout, capture, "time_weights")


def factorised_dot_product(qkv, heads, *, mask=None, dropout=None, capture=None):
    """As attention.factorised_dot_product."""
    query, key, value = jnp.split(qkv, 3, axis=-1)
    first, second = zip(*(jnp.split(part, 2, axis=-1) for part in (query, key, value)), strict=True)
    time_dropout, space_dropout = dropout or (None, None)
    over_time = temporal(jnp.concatenate(first, -1), heads // 2, mask=mask, dropout=time_dropout, capture=capture)
    over_space = spatial(jnp.concatenate(second, -1), heads // 2, mask=mask, dropout=space_dropout, capture=capture)
    return jnp.concatenate([over_time, over_space], axis=-1)


def _attend(qkv, heads, score_equation, out_equation, mask, dropout, capture, name):
    query, key, value = split(qkv, heads)
    scores = jnp.einsum(score_equation, query, key) / math.sqrt(query.shape[-1])
    if mask is not None:
        mask = jnp.broadcast_to(mask, scores.shape)
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1, where=mask)
    if mask is not None:
        weights = jnp.where(mask & mask.any(axis=-1, keepdims=True), weights, 0.0)
    record(capture, name, weights)
    return merge_heads(jnp.einsum(out_equation, drop(weights, dropout).astype(value.dtype), value))


def encode(
    tokens: jax.Array,
    params: Encoder,
    config: Config,
    positions: jax.Array | None,
    block,
    *,
    mask: jax.Array | None = None,
    sequences: int = 1,
    dtype: str,
    drops: EncoderDrops,
    capture: dict | None = None,
    name: str,
) -> jax.Array:
    """As encoder.encode."""
    if params.class_token is not None:
        class_token = jnp.broadcast_to(aligned(params.class_token, tokens), (*tokens.shape[:-2], 1, tokens.shape[-1]))
        tokens = jnp.concatenate([class_token, tokens], axis=-2)
    if positions is not None:
        tokens = tokens + aligned(positions, tokens)
    tokens = drop(tokens, drops.tokens)
    record(capture, f"{name}/tokens", tokens)
    kind = kind_of(config, dtype, "xla")
    for index in range(config.layers):
        one, dropped = layer(params.blocks, index), layer(drops.blocks, index)
        tokens, stages = block(tokens, one, dropped, mask, kind=kind, capturing=capture is not None)
        for stage, value in stages.items():
            record(capture, f"{name}/{index}/{stage}", value)
    tokens = _layer_norm(tokens, params.norm, config.epsilon, "float32")
    record(capture, f"{name}/norm", tokens)
    return tokens


@partial(jax.jit, static_argnames=("core", "kind", "capturing"))
def block(tokens, params: Block, drops: BlockDrops | None, mask, *, core, kind: Kind, capturing: bool):
    """As encoder.block; returns (tokens, stages)."""
    drops, stages = drops or BlockDrops(), OrderedDict()
    capture = stages if capturing else None
    attention = (params.attention_norm, params.attention, core, drops.attention)
    tokens = tokens + _attention(tokens, *attention, capture, kind, mask, "attention")
    return _mlp_residual(tokens, params.mlp_norm, params.mlp, drops.mlp, capture, kind), stages


@partial(jax.jit, static_argnames=("kind", "capturing"))
def factorised_block(
    tokens, params: FactorisedBlock, drops: FactorisedBlockDrops | None, mask, *, kind: Kind, capturing: bool
):
    """As encoder.factorised_block; returns (tokens, stages)."""
    drops, stages = drops or FactorisedBlockDrops(), OrderedDict()
    capture = stages if capturing else None
    axes = {
        "time": (params.time_norm, params.time_attention, temporal, drops.time),
        "space": (params.space_norm, params.space_attention, spatial, drops.space),
    }
    for axis in kind.order.split("_"):
        tokens = tokens + _attention(tokens, *axes[axis], capture, kind, mask, f"{axis}_attention")
    return _mlp_residual(tokens, params.mlp_norm, params.mlp, drops.mlp, capture, kind), stages


def _attention(
    tokens, norm: LayerNorm, params: Attention, core, drops: AttentionDrops, capture, kind: Kind, mask, name: str
):
    qkv = _dense(_layer_norm(tokens, norm, kind.epsilon, kind.dtype), params.qkv)
    mixed = core(qkv, kind.heads, mask=mask, dropout=drops.weights, capture=capture)
    out = drop(_dense(mixed, params.out).astype(jnp.float32), drops.out)
    record(capture, name, out)
    return drop(out, drops.depth)


def _mlp_residual(tokens, norm: LayerNorm, params: Mlp, drops: MlpDrops, capture, kind: Kind):
    hidden = _dense(_layer_norm(tokens, norm, kind.epsilon, kind.dtype), params.hidden)
    hidden = jax.nn.gelu(hidden, approximate=kind.gelu == "tanh")
    hidden = drop(hidden.astype(jnp.float32), drops.hidden).astype(kind.dtype)
    branch = drop(_dense(hidden, params.out).astype(jnp.float32), drops.out)
    record(capture, "mlp", branch)
    tokens = tokens + drop(branch, drops.depth)
    record(capture, "out", tokens)
    return tokens


def _layer_norm(x, params: LayerNorm, epsilon: float, dtype: str):
    normal = jax.nn.standardize(x, axis=-1, epsilon=epsilon)
    return (normal * aligned(params.scale, x) + aligned(params.bias, x)).astype(dtype)


def _dense(x, params: Dense):
    """Both operands and the result in x's dtype."""
    out = jnp.einsum("...c,cf->...f", x, params.kernel.astype(x.dtype))
    return out + aligned(params.bias, out).astype(x.dtype)
