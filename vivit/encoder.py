"""The encoder, as in reference/encoder.py, with its layers scanned: one layer is compiled, however many there are.

Numerics of the published mixed precision: the residual stream, layer norms and softmax in float32, the operands of the
layers' matmuls in their config's dtype.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vivit import dropout
from vivit.dropout import Rates, Site
from vivit.layers import LayerConfig, aligned, drop
from vivit.ops import Op, Ops
from vivit.reference.attention import record
from vivit.reference.dropout import AttentionDrops, BlockDrops, EncoderDrops, FactorisedBlockDrops, MlpDrops
from vivit.reference.params import Attention, Block, Encoder, FactorisedBlock, LayerNorm


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How an encoder is run, as opposed to what it is.

    remat: recompute each layer's activations in the backward pass instead of storing them.
    unroll: compile every layer by itself instead of one for all.
    """

    rates: Rates
    remat: bool = False
    unroll: bool = False


def encode(
    tokens: jax.Array,
    params: Encoder,
    layer: LayerConfig,
    positions: jax.Array | None,
    attend: Op | None,
    *,
    ops: Ops,
    mask: jax.Array | None = None,
    sequences: int = 1,
    options: RunOptions,
    key: jax.Array | None = None,
    drops: EncoderDrops | None = None,
    capture: dict | None = None,
    name: str = "encoder",
    only_first: bool = False,
) -> jax.Array:
    """z⁰ = [z_class, x₁, …, x_n] + p;  zˡ⁺¹ = block(zˡ);  LN(zᴸ).

    Source: Arnab et al. 2021, eq. 1 to 3. tokens: float32[... n c]. positions: float32[... n c], the class token's
    first. attend: the attention of `ops` that every layer has; None for model 3, whose layers have two. sequences: how
    many leading axes tell sequences apart. key: what is dropped is drawn from it; drops: it is given; neither: nothing
    is. Captures as the reference does. only_first: the caller pools the first token, so that the last layer norm need
    not see the others, unless they are captured. Returns float32[... n c], with the class token if any, or [... 1 c].
    """
    capturing = capture is not None
    only_first = only_first and not capturing
    tokens, stages = _encode(
        tokens,
        params,
        positions,
        mask,
        key,
        drops,
        layer=layer,
        attend=attend,
        ops=ops,
        sequences=sequences,
        options=options,
        capturing=capturing,
        only_first=only_first,
    )
    for stage, value in stages.items():
        record(capture, f"{name}/{stage}", value)
    return tokens


@partial(jax.jit, static_argnames=("layer", "attend", "ops", "sequences", "options", "capturing", "only_first"))
def _encode(
    tokens: jax.Array,
    params: Encoder,
    positions: jax.Array | None,
    mask: jax.Array | None,
    key: jax.Array | None,
    drops: EncoderDrops | None,
    *,
    layer: LayerConfig,
    attend: Op | None,
    ops: Ops,
    sequences: int,
    options: RunOptions,
    capturing: bool,
    only_first: bool,
):
    stages = OrderedDict()  # a plain dict would leave jit and scan sorted by name
    if params.class_token is not None:
        *batch, _, c = tokens.shape
        class_token = aligned(params.class_token, tokens)
        tokens = jnp.concatenate([jnp.broadcast_to(class_token, (*batch, 1, c)), tokens], axis=-2)
    if positions is not None:
        tokens = tokens + aligned(positions, tokens)
    count, _, hidden = params.blocks.mlp.hidden.kernel.shape
    site = Site(shape=tokens.shape, heads=layer.heads, hidden=hidden, sequences=sequences, factorised=attend is None)
    drops, layer_keys = drops or EncoderDrops(), None
    if key is not None:
        token_key, layer_keys = dropout.encoder_keys(key, count)
        drops = EncoderDrops(dropout.elements(token_key, options.rates, tokens.shape))
    tokens = drop(tokens, drops.tokens)
    if capturing:
        stages["tokens"] = tokens
    *outer, length, c = tokens.shape
    if missing := -length % ops.multiple:
        tokens = jnp.concatenate([tokens, jnp.zeros((*outer, missing, c))], axis=-2)

    def step(tokens, one):
        layer_params, layer_key, depth_rate, layer_drops = one
        if layer_key is not None:
            layer_drops = dropout.layer_drops(layer_key, depth_rate, options.rates, site)
        captured = OrderedDict() if capturing else None
        one_layer: Any = factorised_block if attend is None else partial(block, attend=attend)
        return one_layer(tokens, layer_params, layer_drops, captured, ops=ops, layer=layer, mask=mask), captured

    layers = (params.blocks, layer_keys, dropout.depth_rates(options.rates, count), drops.blocks)
    tokens, captured = jax.lax.scan(
        jax.checkpoint(step) if options.remat else step, tokens, layers, unroll=options.unroll
    )
    if capturing:
        stages.update((f"{i}/{stage}", values[i]) for i in range(count) for stage, values in (captured or {}).items())
    tokens = ops.layer_norm(tokens[..., : 1 if only_first else length, :], params.norm, layer.epsilon)
    if capturing:
        stages["norm"] = tokens
    return tokens, stages


def block(
    tokens: jax.Array,
    params: Block,
    drops: BlockDrops | None,
    capture: dict | None,
    *,
    attend: Op,
    ops: Ops,
    layer: LayerConfig,
    mask: jax.Array | None,
) -> jax.Array:
    """y = MSA(LN(z)) + z;  z' = MLP(LN(y)) + y, with the attention `attend` (models 1, 2 and 4).

    Source: Arnab et al. 2021, eq. 2 and 3. tokens: float32[... n c]. mask: as the attention's. Captures the attention's
    stages, "attention", "mlp" and "out". Returns float32[... n c].
    """
    drops = drops or BlockDrops()
    tokens = attention_residual(
        tokens, params.attention_norm, params.attention, drops.attention, capture, attend, ops, layer, mask
    )
    return mlp_residual(tokens, params, drops.mlp, capture, ops, layer)


def factorised_block(
    tokens: jax.Array,
    params: FactorisedBlock,
    drops: FactorisedBlockDrops | None,
    capture: dict | None,
    *,
    ops: Ops,
    layer: LayerConfig,
    mask: jax.Array | None,
) -> jax.Array:
    """y_t = MSA_t(LN(z)) + z;  y_s = MSA_s(LN(y_t)) + y_t, or space before time;  z' = MLP(LN(y_s)) + y_s (model 3).

    Source: Arnab et al. 2021, eq. 4 to 6. tokens: float32[b t s c]. mask: bool[b t s]. Returns float32[b t s c].
    """
    drops = drops or FactorisedBlockDrops()
    over_time = (params.time_norm, params.time_attention, drops.time, ops.temporal, "time_attention")
    over_space = (params.space_norm, params.space_attention, drops.space, ops.spatial, "space_attention")
    for norm, attention, dropped, attend, name in (
        (over_time, over_space) if layer.order == "time_space" else (over_space, over_time)
    ):
        tokens = attention_residual(tokens, norm, attention, dropped, capture, attend, ops, layer, mask, name)
    return mlp_residual(tokens, params, drops.mlp, capture, ops, layer)


def attention_residual(
    tokens: jax.Array,
    norm: LayerNorm,
    params: Attention,
    drops: AttentionDrops,
    capture: dict | None,
    attend: Op,
    ops: Ops,
    layer: LayerConfig,
    mask: jax.Array | None,
    name: str = "attention",
) -> jax.Array:
    """MSA(LN(z)) + z, with MSA(x) = attend(x W_qkv) W_O. tokens: float32[... n c]. Returns float32[... n c]."""
    captured = {} if capture is None else {"capture": capture}
    named = {} if capture is None else {"capture": capture, "name": name}
    qkv, tokens = ops.norm_dense(tokens, norm, params.qkv, layer)
    mixed = attend(qkv, layer.heads, mask=mask, dropout=drops.weights, **captured)
    return ops.residual_dense(tokens, mixed, params.out, drops, layer, **named)


def mlp_residual(
    tokens: jax.Array,
    params: Block | FactorisedBlock,
    drops: MlpDrops,
    capture: dict | None,
    ops: Ops,
    layer: LayerConfig,
) -> jax.Array:
    """MLP(LN(y)) + y. tokens: float32[... n c]. Returns float32[... n c]."""
    captured = {} if capture is None else {"capture": capture}
    tokens = ops.residual_mlp(tokens, params.mlp_norm, params.mlp, drops, layer, **captured)
    record(capture, "out", tokens)
    return tokens
