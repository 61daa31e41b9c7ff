"""Summarises one attention: recomputes its weights from its input, one head at a time, and keeps sums of them.

The weights [q k] of one head are in memory at a time (39 MB for 3137 tokens; 5.7 GB for all heads of ViViT-B). Two
results remain: sums of the weights for display, and the rows of reference/relevance.py's matrices, propagated from the
pooled features to the tokens. Each step is a product of a row [n] and a matrix [n n], never of two matrices.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vivit.attention import attend, split
from vivit.explanation.data import AttentionMaps
from vivit.layers import LayerConfig, dense, layer_norm
from vivit.reference.params import Attention, LayerNorm


class Backward(NamedTuple):
    """State propagated backwards through the layers, for tokens [1 ... n c] or pooled features [1 ... c].

    m: the number of logits; each has its own gradient and relevance.
    """

    cotangent: jax.Array  # [m ... n c], gradients of the logits
    rollout: jax.Array  # [1 ... n], a row of the product of the layers' matrices so far
    relevance: jax.Array  # [m ... n], the same for relevance


class Sums(NamedTuple):
    """Sums of the weights of one attention. r: number of sequences of n tokens that attend to one another."""

    seen: jax.Array  # float32[h r n]: from the class token's query, or the mean of all queries, to the other tokens
    times: jax.Array  # float32[h r t t]: from queries (mean per time index) to keys (sum per time index)


def attention_vjp_and_maps(
    tokens: jax.Array,
    norm: LayerNorm,
    params: Attention,
    core: str,
    layer: LayerConfig,
    grid: tuple[int, int],
    backward: Backward,
) -> tuple[jax.Array, jax.Array, dict[str, Sums]]:
    """Propagates rollout and relevance through one attention: returns both for its input, and its Sums by stage.

    tokens: float32[1 n c] or [1 t s c], the input of the layer norm before the attention. core: name of the attention.
    grid: tokens along (time, space) without class token. backward: state at the output of the residual connection.
    """
    qkv = dense(layer_norm(tokens, norm, layer.epsilon), params.qkv, layer.dtype)
    parts = split(qkv, layer.heads)
    out_cotangent = jnp.einsum("...f,cf->...c", backward.cotangent, params.out.kernel)
    out_cotangent = out_cotangent.reshape(len(backward.cotangent), *parts[0].shape[1:])
    rollout, relevance, sums = [], [], {}
    for stage, heads in stages_of(core, layer.heads).items():
        over_time = stage == "time_weights"
        one_head = partial(
            _one_head,
            rollout=sequences(backward.rollout, over_time),
            relevance=sequences(backward.relevance, over_time),
            grid={"weights": grid, "space_weights": (1, grid[1]), "time_weights": (grid[0], 1)}[stage],
        )
        query, key, value, cotangent = (
            by_head(x[..., heads.start : heads.stop, :], over_time) for x in (*parts, out_cotangent)
        )
        sums[stage], *rows = jax.lax.map(one_head, (query[:, 0], key[:, 0], value[:, 0], cotangent))
        for heads_rows, row, before in zip((rollout, relevance), rows, backward[1:], strict=True):
            heads_rows.append(sequences(row.sum(axis=0), over_time).reshape(before.shape) / layer.heads)
    return (backward.rollout + sum(rollout)) / 2, backward.relevance + sum(relevance), sums


def stages_of(core: str, heads: int) -> dict[str, range]:
    """Returns the names of an attention's captured weights and the heads of each, in the order of computation."""
    return {
        "joint": {"weights": range(heads)},
        "spatial": {"space_weights": range(heads)},
        "temporal": {"time_weights": range(heads)},
        "factorised_dot_product": {
            "time_weights": range(heads // 2),
            "space_weights": range(heads // 2, heads),
        },
    }[core]


def sequences(row: jax.Array, over_time: bool) -> jax.Array:
    """Puts the tokens of a sequence last: [m n] to [m 1 n]; [m t s] to [m s t] over time, else unchanged."""
    m, *outer, n = row.shape
    row = row.reshape(m, math.prod(outer), n)
    return row.swapaxes(1, 2) if over_time else row


def by_head(x: jax.Array, over_time: bool) -> jax.Array:
    """Reshapes [m n h d] or [m t s h d] to [h m r n d]: r sequences of n tokens that attend to one another."""
    m, *outer, n, h, d = x.shape
    x = x.reshape(m, math.prod(outer), n, h, d)
    return (x.swapaxes(1, 2) if over_time else x).transpose(3, 0, 1, 2, 4)


def _one_head(head: tuple[jax.Array, ...], *, rollout: jax.Array, relevance: jax.Array, grid: tuple[int, int]):
    """Returns (sums, rollout [1 r n] · A, relevance [m r n] · max(∇A∘A, 0)) of one head.

    head: query, key and value [r n d], and the cotangents of the output [m r n d]. grid: of one sequence, without class
    token.
    """
    query, key, value, out_cotangents = head
    captured: dict[str, jax.Array] = {}
    attend(query, key, value, None, None, captured, "weights")
    weights = captured["weights"]  # [r q k]

    def relevance_row(one: tuple[jax.Array, jax.Array]) -> jax.Array:
        row, out_cotangent = one
        gradient = jnp.einsum("rqd,rkd->rqk", out_cotangent, value)  # O = A V, so dA = dO Vᵀ
        return jnp.einsum("rq,rqk->rk", row, jnp.maximum(gradient * weights, 0))

    r, n, _ = weights.shape
    time, space = grid
    first = n - time * space  # 1 with a class token
    seen = weights[:, 0, first:] if first else weights.mean(axis=1)
    times = weights[:, first:, first:].reshape(r, time, space, time, space).sum(axis=-1).mean(axis=2)
    return (
        Sums(seen, times),
        jnp.einsum("mrq,rqk->mrk", rollout, weights),
        jax.lax.map(relevance_row, (relevance, out_cotangents)),  # one logit at a time: [m r q k] would be large
    )


def maps(name: str, stage: str, heads: range, sums: Sums, grid: tuple[int, int], class_token: bool) -> AttentionMaps:
    """Returns the AttentionMaps of one attention.

    name: "encoder/3", or "temporal_encoder/3", whose tokens are whole frames. grid: as in attention_vjp_and_maps.
    """
    seen, times = (np.asarray(values) for values in sums)
    h, time, space = len(heads), *grid
    shown = AttentionMaps(f"{name}/{stage}", tuple(heads), None, None, None)
    if stage == "space_weights":
        return shown._replace(space=seen)
    if stage == "time_weights":
        return shown._replace(space=seen.transpose(0, 2, 1), time=times.mean(axis=1))
    seen = seen.reshape(h, time, space)
    return shown._replace(
        space=None if name.startswith("temporal") else seen,
        time=times.reshape(h, time, time),
        time_of_class=seen.sum(axis=-1) if class_token else None,
    )
