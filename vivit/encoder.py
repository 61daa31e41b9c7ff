"""The encoder, as in reference/encoder.py, with its layers scanned: one layer is compiled, however many there are.

Numerics of the published mixed precision: the residual stream, layer norms and softmax in float32, the operands of the
blocks' matmuls in the kind's dtype.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vivit import attention, dropout, fused
from vivit.dropout import Rates, Site
from vivit.layers import aligned, dense, drop, layer_norm, mlp
from vivit.reference.attention import record
from vivit.reference.config import Config
from vivit.reference.dropout import AttentionDrops, BlockDrops, FactorisedBlockDrops, MlpDrops
from vivit.reference.params import Attention, Block, Encoder, FactorisedBlock, LayerNorm, Mlp


class Kind(NamedTuple):
    """What one layer knows of its config, and the dtype of its matmuls' operands.

    Models whose layers are of one kind, shape and number share one compiled encoder, whatever their pooling and head.
    """

    heads: int
    gelu: str
    epsilon: float
    order: str
    dtype: str
    attention: str
    exchange: Callable[..., jax.Array] | None = None  # what the cores are called through: see attention_residual


def kind_of(config: Config, dtype: str, attention: str) -> Kind:
    """The kind of a config's layers, with "float32" or "bfloat16" operands; attention: see fused.choose."""
    return Kind(config.heads, config.gelu, config.epsilon, config.order, dtype, attention)


@dataclass(frozen=True, kw_only=True)
class Options:
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
    kind: Kind,
    positions: jax.Array | None,
    block: Callable[..., jax.Array],
    *,
    mask: jax.Array | None = None,
    sequences: int = 1,
    options: Options,
    key: jax.Array | None = None,
    capture: dict | None = None,
    name: str = "encoder",
    only_first: bool = False,
) -> jax.Array:
    """z⁰ = [z_class, x₁, …, x_n] + p;  zˡ⁺¹ = block(zˡ);  LN(zᴸ).

    Source: Arnab et al. 2021, eq. 1 to 3. tokens: float32[... n c]. positions: float32[... n c], the class
    token's first. block: one layer, such as `joint_block`. sequences: how many leading axes tell sequences apart.
    key: None drops nothing. Captures as the reference does. only_first: the caller pools the first token, so that the
    last layer norm need not see the others, unless they are captured. Returns float32[... n c], with the class token if
    any, or float32[... 1 c].
    """
    capturing = capture is not None
    only_first = only_first and not capturing
    tokens, stages = _encode(
        tokens, params, positions, mask, key, kind, block, sequences, options, capturing, only_first
    )
    for stage, value in stages.items():
        record(capture, f"{name}/{stage}", value)
    return tokens


@partial(jax.jit, static_argnames=("kind", "block", "sequences", "options", "capturing", "only_first"))
def _encode(
    tokens, params: Encoder, positions, mask, key, kind: Kind, block, sequences, options: Options, capturing, only_first
):
    stages = OrderedDict()  # a plain dict would leave jit and scan sorted by name
    if params.class_token is not None:
        *batch, _, c = tokens.shape
        class_token = aligned(params.class_token, tokens)
        tokens = jnp.concatenate([jnp.broadcast_to(class_token, (*batch, 1, c)), tokens], axis=-2)
    if positions is not None:
        tokens = tokens + aligned(positions, tokens)
    count, _, hidden = params.blocks.mlp.hidden.kernel.shape
    factorised = isinstance(params.blocks, FactorisedBlock)
    site = Site(shape=tokens.shape, heads=kind.heads, hidden=hidden, sequences=sequences, factorised=factorised)
    layer_keys = None
    if key is not None:
        token_key, layer_keys = dropout.encoder_keys(key, count)
        tokens = drop(tokens, dropout.elements(token_key, options.rates, tokens.shape))
    if capturing:
        stages["tokens"] = tokens

    def step(tokens, layer):
        layer_params, layer_key, depth_rate = layer
        drops = None if layer_key is None else dropout.layer_drops(layer_key, depth_rate, options.rates, site)
        captured = OrderedDict() if capturing else None
        return block(tokens, layer_params, drops, captured, kind=kind, mask=mask), captured

    layers = (params.blocks, layer_keys, dropout.depth_rates(options.rates, count))
    tokens, captured = jax.lax.scan(
        jax.checkpoint(step) if options.remat else step, tokens, layers, unroll=options.unroll
    )
    if capturing:
        stages.update((f"{i}/{stage}", values[i]) for i in range(count) for stage, values in (captured or {}).items())
    tokens = layer_norm(tokens[..., :1, :] if only_first else tokens, params.norm, kind.epsilon)
    if capturing:
        stages["norm"] = tokens
    return tokens, stages


def block(
    tokens: jax.Array,
    params: Block,
    drops: BlockDrops | None,
    capture: dict | None,
    *,
    core: str,
    kind: Kind,
    mask: jax.Array | None,
) -> jax.Array:
    """y = MSA(LN(z)) + z;  z' = MLP(LN(y)) + y, with the attention of `core` (models 1, 2 and 4).

    Source: Arnab et al. 2021, eq. 2 and 3. tokens: float32[... n c]. mask: as the core's. Returns float32[... n c].
    """
    drops = drops or BlockDrops()
    tokens = attention_residual(
        tokens, params.attention_norm, params.attention, core, drops.attention, capture, kind, mask
    )
    return mlp_residual(tokens, params.mlp_norm, params.mlp, drops.mlp, capture, kind)


joint_block = partial(block, core="joint")
spatial_block = partial(block, core="spatial")
factorised_dot_product_block = partial(block, core="factorised_dot_product")


def factorised_block(
    tokens: jax.Array,
    params: FactorisedBlock,
    drops: FactorisedBlockDrops | None,
    capture: dict | None,
    *,
    kind: Kind,
    mask: jax.Array | None,
) -> jax.Array:
    """y_t = MSA_t(LN(z)) + z;  y_s = MSA_s(LN(y_t)) + y_t, or space before time;  z' = MLP(LN(y_s)) + y_s (model 3).

    Source: Arnab et al. 2021, eq. 4 to 6. tokens: float32[b t s c]. mask: bool[b t s]. Returns float32[b t s c].
    """
    drops = drops or FactorisedBlockDrops()
    over_time = (params.time_norm, params.time_attention, "temporal", drops.time, "time_attention")
    over_space = (params.space_norm, params.space_attention, "spatial", drops.space, "space_attention")
    for norm, projections, core, dropped, name in (
        (over_time, over_space) if kind.order == "time_space" else (over_space, over_time)
    ):
        tokens = attention_residual(tokens, norm, projections, core, dropped, capture, kind, mask, name)
    return mlp_residual(tokens, params.mlp_norm, params.mlp, drops.mlp, capture, kind)


def attention_residual(
    tokens: jax.Array,
    norm: LayerNorm,
    params: Attention,
    core: str,
    drops: AttentionDrops,
    capture: dict | None,
    kind: Kind,
    mask: jax.Array | None,
    name: str = "attention",
) -> jax.Array:
    """MSA(LN(z)) + z, with MSA(x) = core(x W_qkv) W_O. core: its name in attention.py and kernels/attention.py.

    kind.exchange: called as exchange(cores, qkv, heads, …) in place of cores.<core>(qkv, heads, …), where tokens are
    split over devices. tokens: float32[... n c]. Captures the branch as <name>, and weights, which only XLA's form has.
    Returns float32[... n c].
    """

    def xla(tokens, norm, params, mask, drops):
        qkv = dense(layer_norm(tokens, norm, kind.epsilon), params.qkv, kind.dtype).astype(kind.dtype)
        mixed = fused.core_of(attention, core, kind.exchange)(
            qkv, kind.heads, mask=mask, dropout=drops.weights, capture=capture
        )
        out = drop(dense(mixed, params.out, kind.dtype), drops.out)
        record(capture, name, out)
        return tokens + drop(out, drops.depth)

    how = "xla" if capture is not None else kind.attention
    kernel = partial(
        fused.attention_residual,
        core=core,
        exchange=kind.exchange,
        heads=kind.heads,
        epsilon=kind.epsilon,
        dtype=kind.dtype,
    )
    return fused.choose(how, kernel, xla, tokens, norm, params, mask, drops)


def mlp_residual(
    tokens: jax.Array,
    norm: LayerNorm,
    params: Mlp,
    drops: MlpDrops,
    capture: dict | None,
    kind: Kind,
) -> jax.Array:
    """MLP(LN(y)) + y. tokens: float32[... n c]. Captures "mlp" and "out". Returns float32[... n c]."""

    def xla(tokens, norm, params, drops):
        normal = layer_norm(tokens, norm, kind.epsilon)
        branch = drop(mlp(normal, params, kind.gelu, kind.dtype, dropout=drops.hidden), drops.out)
        record(capture, "mlp", branch)
        return tokens + drop(branch, drops.depth)

    how = "xla" if capture is not None or drops.hidden is not None else kind.attention
    kernel = partial(fused.mlp_residual, gelu=kind.gelu, epsilon=kind.epsilon, dtype=kind.dtype)
    tokens = fused.choose(how, kernel, xla, tokens, norm, params, drops)
    record(capture, "out", tokens)
    return tokens
