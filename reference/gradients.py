"""Vector-Jacobian products of the attention cores and of a layer's branches, derived by hand: the kernels' oracle.

Each function takes the arguments of its forward function and the cotangent of the result, and returns the cotangents of
the inputs. With W = softmax(S), S = Q Kᵀ/√d and O = (W∘D) V, where D is the dropout multiplier:
    dV = (W∘D)ᵀ dO      dW = D ∘ dO Vᵀ      dS = W ∘ (dW − Σ_k dW∘W)      dQ = dS K/√d      dK = dSᵀ Q/√d
Masked keys have W = 0. Values that are not read get a zero gradient.
"""

import math
from collections.abc import Callable

import numpy as np

from vivit.reference import attention
from vivit.reference.attention import halves, merge_heads, readable, split
from vivit.reference.config import Config
from vivit.reference.layers import dense, drop, erf, gelu, layer_norm
from vivit.reference.params import Attention, Dense, FactorisedBlock, LayerNorm, Mlp


def attend_vjp(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    out_cotangent: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    dropout: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the cotangents of query, key and value. Shapes as in attention.attend; out_cotangent: float[... q d]."""
    scale = 1 / math.sqrt(query.shape[-1])
    _, weights = attention.attend(query, key, value, mask=mask)
    value_cotangent = drop(weights, dropout).swapaxes(-1, -2) @ out_cotangent
    weights_cotangent = drop(out_cotangent @ value.swapaxes(-1, -2), dropout)
    mean = (weights_cotangent * weights).sum(axis=-1, keepdims=True)
    scores_cotangent = weights * (weights_cotangent - mean)
    query_cotangent = scores_cotangent @ key * scale
    key_cotangent = scores_cotangent.swapaxes(-1, -2) @ query * scale
    return query_cotangent, key_cotangent, value_cotangent


def joint_vjp(
    qkv: np.ndarray,
    out_cotangent: np.ndarray,
    heads: int,
    *,
    mask: np.ndarray | None = None,
    dropout: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the cotangent of qkv, float[b n 3c], given that of attention.joint's result, float[b n c]."""
    return _core_vjp(qkv, out_cotangent, heads, (0, 2, 1, 3), mask, dropout)


def spatial_vjp(
    qkv: np.ndarray,
    out_cotangent: np.ndarray,
    heads: int,
    *,
    mask: np.ndarray | None = None,
    dropout: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the cotangent of qkv, float[b t s 3c], given that of attention.spatial's result, float[b t s c]."""
    return _core_vjp(qkv, out_cotangent, heads, (0, 1, 3, 2, 4), mask, dropout)


def temporal_vjp(
    qkv: np.ndarray,
    out_cotangent: np.ndarray,
    heads: int,
    *,
    mask: np.ndarray | None = None,
    dropout: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the cotangent of qkv, float[b t s 3c], given that of attention.temporal's result, float[b t s c]."""
    return _core_vjp(qkv, out_cotangent, heads, (0, 2, 3, 1, 4), mask, dropout)


def factorised_dot_product_vjp(
    qkv: np.ndarray,
    out_cotangent: np.ndarray,
    heads: int,
    *,
    mask: np.ndarray | None = None,
    dropout: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Returns the cotangent of qkv, float[b t s 3c], given that of attention.factorised_dot_product's result."""
    time_dropout, space_dropout = (None, None) if dropout is None else dropout
    time_half, space_half = halves(qkv)
    time_out, space_out = np.split(out_cotangent, 2, axis=-1)
    over_time = temporal_vjp(time_half, time_out, heads // 2, mask=mask, dropout=time_dropout)
    over_space = spatial_vjp(space_half, space_out, heads // 2, mask=mask, dropout=space_dropout)
    query_t, key_t, value_t = np.split(over_time, 3, axis=-1)
    query_s, key_s, value_s = np.split(over_space, 3, axis=-1)
    return np.concatenate([query_t, query_s, key_t, key_s, value_t, value_s], axis=-1)


def _core_vjp(
    qkv: np.ndarray,
    out_cotangent: np.ndarray,
    heads: int,
    heads_first: tuple[int, ...],
    mask: np.ndarray | None,
    dropout: np.ndarray | None,
) -> np.ndarray:
    """Applies attend_vjp between the transposes of a core; heads_first permutes [... h d] to [... h n d]."""
    read = readable(qkv, mask)
    if mask is not None:
        mask = mask[..., np.newaxis, np.newaxis].transpose(heads_first).swapaxes(-1, -2)  # [... 1 1 n]
    qkv = np.where(read, qkv, 0.0)
    query, key, value = (part.transpose(heads_first) for part in split(qkv, heads))
    out = out_cotangent.reshape(*out_cotangent.shape[:-1], heads, -1).transpose(heads_first)
    cotangents = attend_vjp(query, key, value, out, mask=mask, dropout=dropout)
    back = np.argsort(heads_first)
    cotangent = np.concatenate([merge_heads(part.transpose(back)) for part in cotangents], axis=-1)
    return np.where(read, cotangent, 0.0)


def layer_norm_vjp(
    x: np.ndarray, params: LayerNorm, epsilon: float, out_cotangent: np.ndarray
) -> tuple[np.ndarray, LayerNorm]:
    """dx = (g − mean(g) − x̂ · mean(g∘x̂)) / √(variance + ε), g = dy∘scale. Returns the cotangents of x and params."""
    mean = x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(((x - mean) ** 2).mean(axis=-1, keepdims=True) + epsilon)
    normal = (x - mean) / deviation
    g = out_cotangent * params.scale
    g_mean = g.mean(axis=-1, keepdims=True)
    x_cotangent = (g - g_mean - normal * (g * normal).mean(axis=-1, keepdims=True)) / deviation
    rows = tuple(range(x.ndim - 1))
    return x_cotangent, LayerNorm((out_cotangent * normal).sum(axis=rows), out_cotangent.sum(axis=rows))


def dense_vjp(x: np.ndarray, params: Dense, out_cotangent: np.ndarray) -> tuple[np.ndarray, Dense]:
    """Returns the cotangents of x, dy Wᵀ, and of params: xᵀ dy for the kernel, Σ dy for the bias."""
    rows = tuple(range(x.ndim - 1))
    return out_cotangent @ params.kernel.T, Dense(
        np.tensordot(x, out_cotangent, axes=(rows, rows)), out_cotangent.sum(axis=rows)
    )


def gelu_vjp(x: np.ndarray, form: str, out_cotangent: np.ndarray) -> np.ndarray:
    """dx = dy · GELU'(x), in the forms of layers.gelu. Shapes are those of x."""
    if form == "erf":
        return out_cotangent * ((1 + erf(x / math.sqrt(2))) / 2 + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi))
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return out_cotangent * ((1 + t) / 2 + x / 2 * (1 - t**2) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2))


def mlp_branch_vjp(
    tokens: np.ndarray, norm: LayerNorm, params: Mlp, form: str, epsilon: float, out_cotangent: np.ndarray
) -> tuple[np.ndarray, LayerNorm, Mlp]:
    """Returns the cotangents of the tokens and parameters of MLP(LN(y)), the branch of encoder.mlp_residual."""
    normal = layer_norm(tokens, norm, epsilon)
    hidden = dense(normal, params.hidden)
    active_cotangent, out = dense_vjp(gelu(hidden, form), params.out, out_cotangent)
    normal_cotangent, first = dense_vjp(normal, params.hidden, gelu_vjp(hidden, form, active_cotangent))
    tokens_cotangent, norm_cotangent = layer_norm_vjp(tokens, norm, epsilon, normal_cotangent)
    return tokens_cotangent, norm_cotangent, Mlp(first, out)


def attention_branch_vjp(
    tokens: np.ndarray,
    norm: LayerNorm,
    params: Attention,
    config: Config,
    core: Callable[..., np.ndarray],
    core_vjp: Callable[..., np.ndarray],
    out_cotangent: np.ndarray,
    *,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, LayerNorm, Attention]:
    """Returns the cotangents of the tokens and parameters of encoder.attention_branch with this core."""
    normal = layer_norm(tokens, norm, config.epsilon)
    qkv = dense(normal, params.qkv)
    mixed_cotangent, out = dense_vjp(core(qkv, config.heads, mask=mask), params.out, out_cotangent)
    qkv_cotangent = core_vjp(qkv, mixed_cotangent, config.heads, mask=mask)
    normal_cotangent, fused = dense_vjp(normal, params.qkv, qkv_cotangent)
    tokens_cotangent, norm_cotangent = layer_norm_vjp(tokens, norm, config.epsilon, normal_cotangent)
    return tokens_cotangent, norm_cotangent, Attention(fused, out)


def factorised_self_attention_vjp(
    tokens: np.ndarray,
    params: FactorisedBlock,
    out_cotangent: np.ndarray,
    *,
    config: Config,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, dict[str, LayerNorm | Attention]]:
    """Returns the cotangents of encoder.factorised_self_attention's tokens, and of its norms and attentions by name.

    Goes back through the second axis, then the first, each with its residual: dz = dy + branch_vjp(dy).
    """
    axes = {
        "time": (params.time_norm, params.time_attention, attention.temporal, temporal_vjp),
        "space": (params.space_norm, params.space_attention, attention.spatial, spatial_vjp),
    }
    first, second = config.order.split("_")
    norm, projections, core, _ = axes[first]
    normal = layer_norm(tokens, norm, config.epsilon)
    between = tokens + dense(core(dense(normal, projections.qkv), config.heads, mask=mask), projections.out)
    cotangents = {}
    for axis, before in ((second, between), (first, tokens)):
        norm, projections, core, core_vjp = axes[axis]
        through, cotangents[f"{axis}_norm"], cotangents[f"{axis}_attention"] = attention_branch_vjp(
            before, norm, projections, config, core, core_vjp, out_cotangent, mask=mask
        )
        out_cotangent = out_cotangent + through
    return out_cotangent, cotangents
