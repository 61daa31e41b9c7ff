"""softmax(Q Kᵀ / √d) V and its vector-Jacobian product for the heads of one window, on values in VMEM.

Oracle: reference/attention.py, attend; reference/gradients.py, attend_vjp. These are the bodies of every kernel.

* Heads share the 128 lanes (heads.py). Zeroing the other heads' lanes of the query makes the product over all lanes the
  product of one head; the matrix unit contracts 128 deep anyway.
* The sum of a row of weights comes free: the other heads' lanes of the value are set to one, so that the second product
  yields it beside the output; one rotation brings it to its head's lanes.
* The backward pass has keys in rows and queries in lanes: the softmax's sums are then additions of registers instead
  of reductions across lanes, and only one of the five products needs a transposed operand.
"""

from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas import tpu as pltpu

from vivit.kernels.heads import Windows

LOG2E = 1.4426950408889634
MASKED = np.float32(-0.7 * np.finfo(np.float32).max)


class Arithmetic(NamedTuple):
    """In which dtype operands reach the matrix unit, and how exactly it multiplies float32."""

    operands: np.dtype
    precision: jax.lax.Precision | None

    @property
    def passes(self) -> int:
        """About how often more memory the compiler takes for its operands: exact products are made of several."""
        return 1 if self.precision is None else 3

    def product(self, left: jax.Array, right: jax.Array, contract: tuple[int, int]) -> jax.Array:
        """The product over axis contract[0] of left and contract[1] of right, accumulated in float32."""
        dimensions = (((contract[0],), (contract[1],)), ((), ()))
        left, right = left.astype(self.operands), right.astype(self.operands)
        return jax.lax.dot_general(
            left, right, dimensions, precision=self.precision, preferred_element_type=jnp.float32
        )


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    layout: Windows,
    arithmetic: Arithmetic,
    allowed: jax.Array | None,
    multipliers: list[jax.Array] | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """query: [q w], key, value: [k w]. allowed: bool[q k] or bool[1 k]. multipliers: float32[q k] a head.

    Returns the output before its division, the sums to divide it by, and the largest scores: float32[q w] each, or
    [q 1] of the last two where a window is one head.
    """
    lanes = _head_lanes(layout)
    exponentials, largest = [], []
    for mine in lanes:
        scores = arithmetic.product(_only(query, mine, 0), key, (1, 1))
        if allowed is not None:
            scores = jnp.where(allowed, scores, MASKED)
        largest.append(scores.max(axis=1, keepdims=True))
        weights = jnp.exp2((scores - largest[-1]) * np.float32(layout.scale * LOG2E))
        exponentials.append(weights if allowed is None else jnp.where(allowed, weights, 0.0))
    beside = multipliers is None and layout.per > 1  # whether the sums come beside the output
    kept = exponentials if multipliers is None else [e * m for e, m in zip(exponentials, multipliers, strict=True)]
    outs = [
        arithmetic.product(k, _only(value, mine, 1) if beside else value, (1, 0))
        for k, mine in zip(kept, lanes, strict=True)
    ]
    if beside:
        sums = pltpu.roll(_merge(outs[1:] + outs[:1], lanes), layout.d, 1)
    else:
        sums = _merge([e.sum(axis=1, keepdims=True) for e in exponentials], lanes)
    return _merge(outs, lanes), sums, _merge(largest, lanes)


def divided(out: jax.Array, sums: jax.Array) -> jax.Array:
    """out / sums, and 0 where a query may attend to nothing."""
    return out / jnp.where(sums == 0.0, 1.0, sums)


def attend_vjp(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    cotangent: jax.Array,
    layout: Windows,
    arithmetic: Arithmetic,
    allowed: jax.Array | None,
    multipliers: list[jax.Array] | None,
    statistics: list[tuple[jax.Array, jax.Array]] | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As attend, all with keys in rows: allowed: bool[k q] or bool[k 1], multipliers: float32[k q] a head.

    statistics: for each head (log₂ of the sum of exponentials, Σ dW∘W), both float32[1 q], where the keys are only some
    of those attended to; None: computed here. Returns the cotangents of query [q w], key and value [k w], float32.
    """
    product = arithmetic.product
    query_parts, key_parts, value_parts = [], [], []
    for head, mine in enumerate(_head_lanes(layout)):
        one_query, one_cotangent = _only(query, mine, 0), _only(cotangent, mine, 0)
        scores = product(key, one_query, (1, 1))
        through = product(value, one_cotangent, (1, 1))
        if allowed is not None:
            scores = jnp.where(allowed, scores, MASKED)
        if statistics is None:
            weights = jnp.exp2((scores - scores.max(axis=0, keepdims=True)) * np.float32(layout.scale * LOG2E))
        else:
            weights = jnp.exp2(scores * np.float32(layout.scale * LOG2E) - statistics[head][0])
        if allowed is not None:
            weights = jnp.where(allowed, weights, 0.0)
        if statistics is None:
            sums = weights.sum(axis=0, keepdims=True)
            weights = weights * (1.0 / (sums if allowed is None else jnp.where(sums == 0.0, 1.0, sums)))
        kept = weights
        if multipliers is not None:
            kept, through = weights * multipliers[head], through * multipliers[head]
        mean = (weights * through).sum(axis=0, keepdims=True) if statistics is None else statistics[head][1]
        scores_cotangent = (weights * (through - mean)).astype(arithmetic.operands)
        value_parts.append(product(kept, one_cotangent, (1, 0)))
        key_parts.append(product(scores_cotangent, one_query, (1, 0)))
        query_parts.append(product(scores_cotangent, _only(key, mine, 0), (0, 0)))
    scale = np.float32(layout.scale)  # a head's cotangents are zero in the others' lanes: they add up to the window's
    return _sum(query_parts) * scale, _sum(key_parts) * scale, _sum(value_parts)


def _head_lanes(layout: Windows) -> list[jax.Array | None]:
    """For each head of a window which lanes are its own, bool[1 w]; None: all."""
    if layout.per == 1:
        return [None]
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, layout.width), 1)
    return [(lane >= i * layout.d) & (lane < (i + 1) * layout.d) for i in range(layout.per)]


def _sum(parts: list[jax.Array]) -> jax.Array:
    return reduce(jnp.add, parts)


def _merge(parts: list[jax.Array], lanes: list[jax.Array | None]) -> jax.Array:
    """From each head's array its own lanes."""
    merged = parts[0]
    for part, mine in zip(parts[1:], lanes[1:], strict=True):
        merged = part if mine is None else jnp.where(mine, part, merged)
    return merged


def _only(x: jax.Array, mine: jax.Array | None, other: float) -> jax.Array:
    """x in a head's own lanes, `other` in the rest."""
    return x if mine is None else jnp.where(mine, x, jnp.full((), other, x.dtype))


def like(array: jax.Array, shape: tuple[int, ...], dtype: np.dtype | None = None) -> jax.ShapeDtypeStruct:
    """A kernel's output of this shape, varying over the same mesh axes as `array` (inside jax.shard_map)."""
    return jax.ShapeDtypeStruct(shape, dtype or array.dtype, manual_axis_type=jax.typeof(array).manual_axis_type)
