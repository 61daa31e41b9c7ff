"""The encoder: class token and positions, then layers of attention and MLP with residuals, then a layer norm.

The attention cores are in attention.py. How the four models use encoders is in models.py.
"""

from collections.abc import Callable

import numpy as np

from vivit.reference import attention
from vivit.reference.attention import record
from vivit.reference.config import Config
from vivit.reference.dropout import AttentionDrops, BlockDrops, EncoderDrops, FactorisedBlockDrops, MlpDrops
from vivit.reference.layers import dense, drop, layer_norm, mlp
from vivit.reference.params import Attention, Block, Encoder, FactorisedBlock, LayerNorm, Mlp, layer


def encode(
    tokens: np.ndarray,
    params: Encoder,
    config: Config,
    positions: np.ndarray | None,
    block: Callable[..., np.ndarray],
    *,
    drops: EncoderDrops | None = None,
    capture: dict | None = None,
    name: str = "encoder",
) -> np.ndarray:
    """z⁰ = [z_class, x₁, …, x_n] + p;  zˡ⁺¹ = block(zˡ);  LN(zᴸ).

    Source: Arnab et al. 2021, eq. 1 to 3. tokens: float[... n c]. positions: float[... n c], the class token's first.
    block: one layer, called with (tokens, params, drops, capture); returns tokens. Captures "<name>/tokens",
    "<name>/<layer>/<stage>" and "<name>/norm". Returns float[... n c], one token longer if there is a class token.
    """
    drops = drops or EncoderDrops()
    if params.class_token is not None:
        *batch, _, c = tokens.shape
        tokens = np.concatenate([np.broadcast_to(params.class_token, (*batch, 1, c)), tokens], axis=-2)
    if positions is not None:
        tokens = tokens + positions
    tokens = drop(tokens, drops.tokens)
    record(capture, f"{name}/tokens", tokens)
    for index in range(config.layers):
        stages = None if capture is None else {}
        tokens = block(tokens, layer(params.blocks, index), layer(drops.blocks, index), stages)
        for stage, value in (stages or {}).items():
            record(capture, f"{name}/{index}/{stage}", value)
    tokens = layer_norm(tokens, params.norm, config.epsilon)
    record(capture, f"{name}/norm", tokens)
    return tokens


def block(
    tokens: np.ndarray,
    params: Block,
    drops: BlockDrops | None,
    capture: dict | None,
    *,
    config: Config,
    core: Callable[..., np.ndarray],
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """y = MSA(LN(z)) + z;  z' = MLP(LN(y)) + y, where MSA uses the attention `core` (models 1, 2 and 4).

    Source: Arnab et al. 2021, eq. 2 and 3. tokens: float[... n c]. mask: passed to the core. Returns float[... n c].
    """
    drops = drops or BlockDrops()
    tokens = tokens + attention_branch(
        tokens, params.attention_norm, params.attention, config, core, mask=mask, drops=drops.attention, capture=capture
    )
    return mlp_residual(tokens, params.mlp_norm, params.mlp, config, drops=drops.mlp, capture=capture)


def factorised_self_attention(
    tokens: np.ndarray,
    params: FactorisedBlock,
    drops: FactorisedBlockDrops | None,
    capture: dict | None,
    *,
    config: Config,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """y_t = MSA_t(LN(z)) + z;  y_s = MSA_s(LN(y_t)) + y_t, or space before time (model 3, without its MLP).

    Source: Arnab et al. 2021, eq. 4 and 5. tokens: float[b t s c]. mask: bool[b t s]. Returns float[b t s c].
    """
    drops = drops or FactorisedBlockDrops()
    over_time = (params.time_norm, params.time_attention, attention.temporal, drops.time, "time_attention")
    over_space = (params.space_norm, params.space_attention, attention.spatial, drops.space, "space_attention")
    for norm, projections, core, dropped, name in (
        (over_time, over_space) if config.order == "time_space" else (over_space, over_time)
    ):
        tokens = tokens + attention_branch(
            tokens, norm, projections, config, core, mask=mask, drops=dropped, capture=capture, name=name
        )
    return tokens


def factorised_block(
    tokens: np.ndarray,
    params: FactorisedBlock,
    drops: FactorisedBlockDrops | None,
    capture: dict | None,
    *,
    config: Config,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Factorised self-attention, then z' = MLP(LN(y_s)) + y_s (model 3).

    Source: Arnab et al. 2021, eq. 4 to 6. Arguments and result as `factorised_self_attention`.
    """
    tokens = factorised_self_attention(tokens, params, drops, capture, config=config, mask=mask)
    dropped = None if drops is None else drops.mlp
    return mlp_residual(tokens, params.mlp_norm, params.mlp, config, drops=dropped, capture=capture)


def attention_branch(
    tokens: np.ndarray,
    norm: LayerNorm,
    params: Attention,
    config: Config,
    core: Callable[..., np.ndarray],
    *,
    mask: np.ndarray | None = None,
    drops: AttentionDrops | None = None,
    capture: dict | None = None,
    name: str = "attention",
) -> np.ndarray:
    """MSA(LN(z)) = core(LN(z) W_qkv) W_O. tokens: float[... n c]. Captures <name>. Returns float[... n c]."""
    drops = drops or AttentionDrops()
    qkv = dense(layer_norm(tokens, norm, config.epsilon), params.qkv)
    mixed = core(qkv, config.heads, mask=mask, dropout=drops.weights, capture=capture)
    out = drop(dense(mixed, params.out), drops.out)
    record(capture, name, out)
    return drop(out, drops.depth)


def mlp_residual(
    tokens: np.ndarray,
    norm: LayerNorm,
    params: Mlp,
    config: Config,
    *,
    drops: MlpDrops | None = None,
    capture: dict | None = None,
) -> np.ndarray:
    """MLP(LN(y)) + y. tokens: float[... n c]. Captures "mlp" and "out". Returns float[... n c]."""
    drops = drops or MlpDrops()
    branch = drop(mlp(layer_norm(tokens, norm, config.epsilon), params, config.gelu, dropout=drops.hidden), drops.out)
    record(capture, "mlp", branch)
    tokens = tokens + drop(branch, drops.depth)
    record(capture, "out", tokens)
    return tokens
