"""The encoder of reference/encoder.py with a scan over its layers, so that only one layer is compiled.

Mixed precision as in the published code: the residual stream, layer norms and softmax are in float32; the operands of
the layers' matmuls are in LayerConfig.dtype.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Key

from vivit import dropout
from vivit.dropout import DropoutSizes, Rates
from vivit.layers import LayerConfig, aligned, drop
from vivit.ops import Op, Ops
from vivit.reference.attention import record
from vivit.reference.dropout import AttentionDrops, BlockDrops, EncoderDrops, FactorisedBlockDrops, MlpDrops
from vivit.reference.params import Attention, Block, Encoder, FactorisedBlock, LayerNorm
from vivit.reference.values import quoted

# For the backward pass, by `remat`, besides the tokens that enter each layer; "none": everything. Kernels keep in place
# (Ops.scan) what their derivatives need for "fast", and long sequences' attention for "lean".
KEPT = {
    "fast": ("projected", "mixed", "statistics", "attended", "hidden"),  # what is dear to compute again
    "lean": (),
}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How the encoders of one forward are run. A static argument of jit.

    dtype: of the operands of the layers' matmuls. remat: what the backward pass recomputes instead of keeping it: see
    KEPT. unroll: compile every layer separately instead of scanning over one. capturing: return every stage.
    """

    ops: Ops
    dtype: str
    rates: Rates
    remat: str = "none"
    unroll: bool = False
    capturing: bool = False

    def __post_init__(self) -> None:
        if self.remat not in ("none", *KEPT):
            raise ValueError(f"remat is {quoted(self.remat)}: it must be one of none, {', '.join(KEPT)}")


class Dropped(NamedTuple):
    """What one encoder drops: drawn from a key, given, or nothing."""

    key: Key[Array, "..."] | None = None
    drops: EncoderDrops | None = None


@partial(jax.jit, static_argnames=("layer", "attend", "options", "sequence_axes", "only_first"))
def encode(
    tokens: Float32[Array, "... n c"],
    params: Encoder,
    positions: Float32[Array, "... m c"] | None,
    mask: Bool[Array, "..."] | None,
    dropped: Dropped,
    *,
    layer: LayerConfig,
    attend: Op | None,
    options: RunOptions,
    sequence_axes: int = 1,
    only_first: bool = False,
) -> tuple[Float32[Array, "... out c"], dict[str, Array]]:
    """z⁰ = [z_class, x₁, …, x_n] + p;  zˡ⁺¹ = block(zˡ);  LN(zᴸ).

    Source: Arnab et al. 2021, eq. 1 to 3. tokens: float32[... n c]. positions: float32[... n c], the class token's
    first. attend: the attention of `options.ops` used in every layer; None for model 3, whose layers have two.
    sequence_axes: number of leading axes that enumerate sequences. only_first: the caller pools the first token, so the
    last layer norm is computed for it alone, unless stages are captured.
    Returns (tokens float32[... n c], one longer if there is a class token, or [... 1 c]; the stages of the reference by
    name, if they are captured).
    """
    stages = OrderedDict()  # jit and scan sort the keys of a plain dict
    ops, capturing = options.ops, options.capturing
    if params.class_token is not None:
        *batch, _, c = tokens.shape
        class_token = aligned(params.class_token, tokens)
        tokens = jnp.concatenate([jnp.broadcast_to(class_token, (*batch, 1, c)), tokens], axis=-2)
    if positions is not None:
        tokens = tokens + aligned(positions, tokens)
    count, _, hidden = params.blocks.mlp.hidden.kernel.shape
    sizes = DropoutSizes(
        shape=tokens.shape, heads=layer.heads, hidden=hidden, sequence_axes=sequence_axes, factorised=attend is None
    )
    drops, layer_keys = dropped.drops or EncoderDrops(), None
    if dropped.key is not None:
        token_key, layer_keys = dropout.encoder_keys(dropped.key, count)
        drops = EncoderDrops(dropout.element_multiplier(token_key, options.rates, tokens.shape))
    tokens = drop(tokens, drops.tokens)
    if capturing:
        stages["tokens"] = tokens
    *outer, length, c = tokens.shape
    if missing := -length % ops.multiple:
        tokens = jnp.concatenate([tokens, jnp.zeros((*outer, missing, c))], axis=-2)

    def block(tokens, one, mask, **tape):
        """y = MSA(LN(z)) + z, for each attention of the layer;  z' = MLP(LN(y)) + y."""
        layer_params, layer_key, depth_rate, layer_drops = one
        if layer_key is not None:
            layer_drops = dropout.layer_drops(layer_key, depth_rate, options.rates, sizes)
        layer_drops = layer_drops or (FactorisedBlockDrops() if attend is None else BlockDrops())
        captured = OrderedDict() if capturing else None
        *before, last = attentions(layer_params, layer_drops, attend, ops, layer)
        for attention in before:
            tokens = attention_residual(tokens, *attention, captured, ops, layer, mask, **tape)
        if scan is not None and ops.residual_dense_mlp is not None:
            norm, attention, attention_drops, core, _ = last
            mixed, tokens = attended(tokens, norm, attention, attention_drops, core, None, ops, layer, mask, **tape)
            weights = attention.out, attention_drops, layer_params.mlp_norm, layer_params.mlp, layer_drops.mlp
            # in place where the operand is the loop's own tokens; those of another attention lie elsewhere
            return ops.residual_dense_mlp(tokens, mixed, *weights, layer, in_place=not before, **tape), None
        tokens = attention_residual(tokens, *last, captured, ops, layer, mask, **tape)
        return mlp_residual(tokens, layer_params, layer_drops.mlp, captured, ops, layer, **tape), captured

    layers = (params.blocks, layer_keys, dropout.depth_rates(options.rates, count), drops.blocks)
    scan = None if options.unroll or capturing or drops.blocks else ops.scan
    if scan is not None:
        tokens, captured = scan(block, tokens, layers, mask, remat=options.remat), None
    else:
        one_layer = partial(block, mask=mask)
        if options.remat != "none":
            policy = jax.checkpoint_policies.save_only_these_names(*KEPT[options.remat])
            one_layer = jax.checkpoint(one_layer, policy=policy, prevent_cse=options.unroll)
        tokens, captured = jax.lax.scan(one_layer, tokens, layers, unroll=options.unroll)
    if capturing:
        stages.update((f"{i}/{stage}", values[i]) for i in range(count) for stage, values in (captured or {}).items())
    tokens = ops.layer_norm(tokens[..., : 1 if only_first and not capturing else length, :], params.norm, layer.epsilon)
    if capturing:
        stages["norm"] = tokens
    return tokens, stages


def attentions(
    params: Any, drops: Any, attend: Op | None, ops: Ops, layer: LayerConfig
) -> list[tuple[LayerNorm, Attention, AttentionDrops, Op, str]]:
    """Returns the attentions of one layer, in order: layer norm, parameters, dropout, core and name.

    Models 1, 2 and 4 have one, `attend`, with params Block and drops BlockDrops. A layer of model 3 (FactorisedBlock,
    FactorisedBlockDrops) attends over time and then over space, or in the other order.
    Source: Arnab et al. 2021, eq. 2 and 4 to 6.
    """
    if attend is not None:
        return [(params.attention_norm, params.attention, drops.attention, attend, "attention")]
    over_time = (params.time_norm, params.time_attention, drops.time, ops.temporal, "time_attention")
    over_space = (params.space_norm, params.space_attention, drops.space, ops.spatial, "space_attention")
    return [over_time, over_space] if layer.order == "time_space" else [over_space, over_time]


def attention_residual(
    tokens: Float32[Array, "... n c"],
    norm: LayerNorm,
    params: Attention,
    drops: AttentionDrops,
    attend: Op,
    name: str,
    capture: dict | None,
    ops: Ops,
    layer: LayerConfig,
    mask: Bool[Array, "..."] | None,
    **tape: Any,
) -> Float32[Array, "... n c"]:
    """MSA(LN(z)) + z, with MSA(x) = attend(x W_qkv) W_O. tokens: float32[... n c]. Returns float32[... n c].

    tape: for the ops, if their scan gives one.
    """
    named = {} if capture is None else {"capture": capture, "name": name}
    mixed, tokens = attended(tokens, norm, params, drops, attend, capture, ops, layer, mask, **tape)
    return ops.residual_dense(tokens, mixed, params.out, drops, layer, **named, **tape)


def attended(
    tokens: Float32[Array, "... n c"],
    norm: LayerNorm,
    params: Attention,
    drops: AttentionDrops,
    attend: Op,
    capture: dict | None,
    ops: Ops,
    layer: LayerConfig,
    mask: Bool[Array, "..."] | None,
    **tape: Any,
) -> tuple[Float[Array, "... n c"], Float32[Array, "... n c"]]:
    """(attend(LN(z) W_qkv), the z that the residual adds)."""
    captured = {} if capture is None else {"capture": capture}
    qkv, tokens = ops.norm_dense(tokens, norm, params.qkv, layer, **tape)
    return attend(qkv, layer.heads, mask=mask, dropout=drops.weights, **captured, **tape), tokens


def mlp_residual(
    tokens: Float32[Array, "... n c"],
    params: Block | FactorisedBlock,
    drops: MlpDrops,
    capture: dict | None,
    ops: Ops,
    layer: LayerConfig,
    **tape: Any,
) -> Float32[Array, "... n c"]:
    """MLP(LN(y)) + y. tokens: float32[... n c]. Returns float32[... n c]."""
    captured = {} if capture is None else {"capture": capture}
    tokens = ops.residual_mlp(tokens, params.mlp_norm, params.mlp, drops, layer, **captured, **tape)
    record(capture, "out", tokens)
    return tokens
