"""What one attention looked at: its weights, computed again head by head from its input, and summed up at once.

Nothing of a size [q k] outlives its head, which for 3137 tokens are 39 MB, and for all of ViViT-B 5.7 GB. What is left
of the weights are sums that can be shown, and what became of rows of reference/relevance.py's matrices on their way
from what is pooled to the tokens: each is a product of a row and a matrix, [n] by [n n], never one of two matrices.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vivit.attention import attend, split
from vivit.explain.explanation import AttentionMaps
from vivit.layers import LayerConfig, dense, layer_norm
from vivit.reference.params import Attention, LayerNorm


class Carried(NamedTuple):
    """What goes down through a model: of one stream of tokens [1 ... n c], or of what is pooled from it [1 ... c].

    m: of the logits, each with a gradient and a relevance of its own.
    """

    cotangent: jax.Array  # [m ... n c], the logits' gradients
    rollout: jax.Array  # [1 ... n]: a row of the matrix that is multiplied from the top so far
    relevance: jax.Array  # [m ... n], likewise


class Sums(NamedTuple):
    """The weights of one attention, head by head, in each of the r sequences whose n tokens attend to one another."""

    seen: jax.Array  # float32[h r n]: from the class token's query, or the mean of all, to each token but that one
    times: jax.Array  # float32[h r t t]: from the queries of a time index (mean) to the keys of one (sum)


def look(
    tokens: jax.Array,
    norm: LayerNorm,
    params: Attention,
    core: str,
    layer: LayerConfig,
    grid: tuple[int, int],
    carried: Carried,
) -> tuple[jax.Array, jax.Array, dict[str, Sums]]:
    """One attention of one layer: (rollout and relevance of its input, sums of its weights by stage).

    tokens: float32[1 n c] or [1 t s c], what enters the layer norm before it. core: the name of the attention. grid:
    tokens along (time, space) but for a class token. carried: of the residual's output.
    """
    qkv = dense(layer_norm(tokens, norm, layer.epsilon), params.qkv, layer.dtype)
    parts = split(qkv, layer.heads)
    out_cotangent = jnp.einsum("...f,cf->...c", carried.cotangent, params.out.kernel)
    out_cotangent = out_cotangent.reshape(len(carried.cotangent), *parts[0].shape[1:])
    rollout, relevance, sums = [], [], {}
    for stage, heads in stages_of(core, layer.heads).items():
        over_time = stage == "time_weights"
        one_head = partial(
            _one_head,
            rollout=sequences(carried.rollout, over_time),
            relevance=sequences(carried.relevance, over_time),
            grid={"weights": grid, "space_weights": (1, grid[1]), "time_weights": (grid[0], 1)}[stage],
        )
        query, key, value, cotangent = (
            by_head(x[..., heads.start : heads.stop, :], over_time) for x in (*parts, out_cotangent)
        )
        sums[stage], *rows = jax.lax.map(one_head, (query[:, 0], key[:, 0], value[:, 0], cotangent))
        for found, row, before in zip((rollout, relevance), rows, carried[1:], strict=True):
            found.append(sequences(row.sum(axis=0), over_time).reshape(before.shape) / layer.heads)
    return (carried.rollout + sum(rollout)) / 2, carried.relevance + sum(relevance), sums


def stages_of(core: str, heads: int) -> dict[str, range]:
    """The captured weights that one attention has, and the numbers of their heads, in the order of computation."""
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
    """[m n] as [m 1 n], [m t s] as it is or, over time, as [m s t]: the tokens of one sequence along the last axis."""
    m, *outer, n = row.shape
    row = row.reshape(m, math.prod(outer), n)
    return row.swapaxes(1, 2) if over_time else row


def by_head(x: jax.Array, over_time: bool) -> jax.Array:
    """[m n h d] or [m t s h d] as [h m r n d]: r sequences of n tokens, which attend to one another."""
    m, *outer, n, h, d = x.shape
    x = x.reshape(m, math.prod(outer), n, h, d)
    return (x.swapaxes(1, 2) if over_time else x).transpose(3, 0, 1, 2, 4)


def _one_head(head: tuple[jax.Array, ...], *, rollout: jax.Array, relevance: jax.Array, grid: tuple[int, int]):
    """(sums, rollout [1 r n] · A, relevance [m r n] · max(∇A∘A, 0)).

    head: query, key and value, [r n d], and the cotangents of out, [m r n d]. grid: of one sequence, but for a class
    token.
    """
    query, key, value, out_cotangents = head
    captured: dict[str, jax.Array] = {}
    attend(query, key, value, None, None, captured, "weights")
    weights = captured["weights"]  # [r q k]

    def raised(one: tuple[jax.Array, jax.Array]) -> jax.Array:
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
        jax.lax.map(raised, (relevance, out_cotangents)),  # one logit after the other: [m r q k] would be large
    )


def maps(name: str, stage: str, heads: range, sums: Sums, grid: tuple[int, int], class_token: bool) -> AttentionMaps:
    """The sums of one attention as the pictures of explanation.py.

    name: "encoder/3", or "temporal_encoder/3", whose tokens are whole frames. grid: as look's.
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
