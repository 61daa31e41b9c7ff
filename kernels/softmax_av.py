"""softmax(Q Kᵀ / √d) V and its vector-Jacobian product on values in VMEM: the body that every attention kernel shares.

Oracle: reference/attention.py, attend; reference/gradients.py, attend_vjp. README.md walks through `attend`.

* Heads share the 128 lanes (heads.py). Zeroing the other heads' lanes makes the product over all lanes the product of
  one head; the matrix unit contracts 128 deep anyway.
* The sum of a row of weights comes free: the other heads' lanes of the value are set to one, so that the second product
  yields it beside the output; one rotation brings it to its head's lanes.
* The backward pass has keys in rows and queries in lanes: the softmax's sums are then additions of registers instead
  of reductions across lanes, and only one of the five products needs a transposed operand.

Values are float32: selecting lanes of packed bfloat16 pairs would cost more than the cast before each product.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Float32, Int32

from vivit.kernels.block_sizes import BlockSizes
from vivit.kernels.heads import HeadLayout
from vivit.kernels.stacks import Tape, is_slice

LOG2E = 1.4426950408889634
MASKED = np.float32(-0.7 * np.finfo(np.float32).max)
NEVER = np.float32(-np.inf)  # a score, where every query has others
ABSENT = (None, None)  # an operand that a call does not have, and its block


class KernelOptions(NamedTuple):
    """How to compute, as opposed to what."""

    operands: np.dtype  # in which operands reach the matrix unit
    precision: jax.lax.Precision | None  # how exactly it multiplies float32
    rate: float  # of dropout
    blocks: BlockSizes
    vmem: int  # bytes
    spare_vmem: int  # for blocks and scores; exact products are several, which take about three times as much
    interpret: Any
    tape: Tape | None = None  # which keeps the result, and what the backward pass needs

    def windows(self, count: int, fixed_bytes: int, window_bytes: int) -> int:
        """How many of `count` windows of heads a step takes: the largest divisor that fits in VMEM, at least 1."""
        most = self.blocks.windows or (self.spare_vmem - fixed_bytes) // window_bytes
        return max((n for n in range(1, count + 1) if count % n == 0 and n <= most), default=1)

    def whole(self, rows: int, layout: HeadLayout, itemsize: int) -> bool:
        """Whether a step takes all rows of a sequence: its cotangents must leave half of VMEM to the rest."""
        cotangents = 2 * rows * 3 * layout.channels * layout.parts * itemsize
        return rows <= self.blocks.longest and cotangents <= self.vmem // 2

    def compiler_params(self, *semantics: Any) -> pltpu.CompilerParams:
        return pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=self.vmem)

    def product(self, left: jax.Array, right: jax.Array, contract: tuple[int, int]) -> jax.Array:
        """The product over axis contract[0] of left and contract[1] of right, accumulated in float32."""
        left, right = left.astype(self.operands), right.astype(self.operands)
        dimensions = (((contract[0],), (contract[1],)), ((), ()))
        return jax.lax.dot_general(
            left, right, dimensions, precision=self.precision, preferred_element_type=jnp.float32
        )


def attend(
    query: Float[Array, "q w"],
    key: Float[Array, "k w"],
    value: Float[Array, "k w"],
    layout: HeadLayout,
    options: KernelOptions,
    *,
    mask: Bool[Array, "1 k"] | None = None,
    together: Bool[Array, "q k"] | None = None,
    finite: Bool[Array, "k w"] | None = None,
    keep: list[Float32[Array, "q k"]] | None = None,
    split_keys: bool = True,
) -> tuple[Float32[Array, "q w"], Float32[Array, "q _"], Float32[Array, "q _"]]:
    """The heads of one window. key, value: zeros in masked tokens.

    mask: the keys that may be seen. together: queries and keys of one sequence, where several lie in the block; a query
    has a key there. finite: the values that may enter a product with other sequences. keep: dropout's multipliers of
    each head. split_keys: a NaN in one head's key stays in that head.
    Returns the output before its division, the sums to divide it by, and the largest scores: [q w] each, or [q 1] of
    the last two where a window is one head.
    """
    lanes = head_lanes(layout)
    allowed = _both(mask, together)
    exponentials, largest = [], []
    for own in lanes:
        scores = options.product(only(query, own), only(key, own if split_keys else None), (1, 1))
        if allowed is not None:
            scores = jnp.where(allowed, scores, NEVER if mask is None else MASKED)
        largest.append(scores.max(axis=1, keepdims=True))
        weights = jnp.exp2((scores - largest[-1]) * np.float32(layout.scale * LOG2E))
        exponentials.append(weights if mask is None else only(weights, allowed))
    sums_beside = keep is None and layout.per > 1
    kept = exponentials if keep is None else [e * m for e, m in zip(exponentials, keep, strict=True)]
    outs = [
        options.product(k, only(value, _both(own, finite), 1.0) if sums_beside else only(value, finite), (1, 0))
        for k, own in zip(kept, lanes, strict=True)
    ]
    if sums_beside:
        sums = pltpu.roll(merge(outs[1:] + outs[:1], lanes), layout.d, 1)
    else:
        sums = merge([e.sum(axis=1, keepdims=True) for e in exponentials], lanes)
    return merge(outs, lanes), sums, merge(largest, lanes)


def divide(out: Float32[Array, "q w"], sums: Float32[Array, "q _"], mask: Array | None) -> Float32[Array, "q w"]:
    """out / sums, and 0 where a query may attend to nothing."""
    return out / sums if mask is None else out / jnp.where(sums == 0.0, 1.0, sums)


def attend_vjp(
    query: Float[Array, "q w"],
    key: Float[Array, "k w"],
    value: Float[Array, "k w"],
    out_cotangent: Float[Array, "q w"],
    layout: HeadLayout,
    options: KernelOptions,
    *,
    mask: Bool[Array, "k 1"] | None = None,
    together: Bool[Array, "k q"] | None = None,
    finite: tuple[Bool[Array, "q w"], Bool[Array, "k w"], Bool[Array, "q w"]] | None = None,
    keep: list[Float32[Array, "k q"]] | None = None,
) -> tuple[Float32[Array, "q w"], Float32[Array, "k w"], Float32[Array, "k w"]]:
    """The cotangents of query, key and value. Arguments as attend's, with keys in rows.

    finite: of query, key and out_cotangent.
    """
    product, scale = options.product, np.float32(layout.scale)
    log2_scale = np.float32(layout.scale * LOG2E)
    allowed = _both(mask, together)
    finite_query, finite_key, finite_cotangent = finite or (None, None, None)
    queries, keys, values = [], [], []
    for head, own in enumerate(head_lanes(layout)):
        scores = product(only(key, own), only(query, own), (1, 1))
        weights_cotangent = product(only(value, own), only(out_cotangent, own), (1, 1))
        if allowed is not None:
            scores = jnp.where(allowed, scores, MASKED)
        if together is not None:
            weights_cotangent = jnp.where(together, weights_cotangent, 0.0)
        weights = jnp.exp2((scores - scores.max(axis=0, keepdims=True)) * log2_scale)
        if mask is not None:
            weights = only(weights, allowed)
        sums = weights.sum(axis=0, keepdims=True)
        weights = weights * (1.0 / (sums if mask is None else jnp.where(sums == 0.0, 1.0, sums)))
        if together is not None:
            weights = jnp.where(together, weights, 0.0)
        kept = weights
        if keep is not None:
            kept, weights_cotangent = weights * keep[head], weights_cotangent * keep[head]
        mean = (weights * weights_cotangent).sum(axis=0, keepdims=True)
        scores_cotangent = weights * (weights_cotangent - mean)
        if together is not None:  # a NaN of one sequence is not multiplied by another's zero weights
            scores_cotangent = jnp.where(together, scores_cotangent, 0.0)
        scores_cotangent = scores_cotangent.astype(options.operands)
        values.append(product(kept, only(out_cotangent, _both(own, finite_cotangent)), (1, 0)))
        keys.append(product(scores_cotangent, only(query, _both(own, finite_query)), (1, 0)))
        queries.append(product(scores_cotangent, only(key, _both(own, finite_key)), (0, 0)))
    # a head's cotangents are zero in the others' lanes, where they are finite: they add up to the window's
    return sum_of(queries) * scale, sum_of(keys) * scale, sum_of(values)


def readable(query: Float[Array, "n w"], seen: Bool[Array, "n 1"] | None) -> tuple[Bool[Array, "n _"] | None, ...]:
    """What is read of query, key and value, bool[n w] or [n 1]: of a masked token only its query, where it is finite.

    seen: the tokens that are not masked; None: all.
    """
    if seen is None:
        return None, None, None
    return seen | (jnp.abs(query.astype(jnp.float32)) < np.float32(np.inf)), seen, seen


def zeroed(parts: Any, read: Sequence[jax.Array | None]) -> list[jax.Array]:
    """Query, key and value, or their cotangents, with zeros where nothing is read."""
    return [only(part, where) for part, where in zip(parts, read, strict=True)]


def seeds_operand(seeds: Int32[Array, "b h 2"] | None) -> tuple[Any, Any]:
    """The seeds int32[b h 2] of an entry as scalars, [b 1 2h], and their block; absent without dropout."""
    if seeds is None:
        return ABSENT
    flat = seeds.reshape(seeds.shape[0], 1, -1)
    return flat, pl.BlockSpec((1, 1, flat.shape[2]), lambda b, step, g: (b, 0, 0), memory_space=pltpu.SMEM)


def result(array: Any, shape: tuple[int, ...], dtype: Any = None) -> jax.ShapeDtypeStruct:
    """A kernel's result of this shape, varying over the same mesh axes as `array` (inside jax.shard_map)."""
    axes = jax.typeof(array.stack if is_slice(array) else array).manual_axis_type
    return jax.ShapeDtypeStruct(shape, dtype or array.dtype, manual_axis_type=axes)


def head_lanes(layout: HeadLayout) -> list[Bool[Array, "1 w"] | None]:
    """For each head of a window which lanes are its own; None: all."""
    if layout.per == 1:
        return [None]
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, layout.width), 1)
    return [(lane >= i * layout.d) & (lane < (i + 1) * layout.d) for i in range(layout.per)]


def only(x: jax.Array, where: jax.Array | None, other: float = 0.0) -> jax.Array:
    return x if where is None else jnp.where(where, x, jnp.full((), other, x.dtype))


def _both(one: jax.Array | None, other: jax.Array | None) -> jax.Array | None:
    return other if one is None else one if other is None else one & other


def merge(parts: list[jax.Array], lanes: list[jax.Array | None]) -> jax.Array:
    """From each head's array its own lanes."""
    merged = parts[0]
    for part, own in zip(parts[1:], lanes[1:], strict=True):
        merged = part if own is None else jnp.where(own, part, merged)
    return merged


def sum_of(parts: list[jax.Array]) -> jax.Array:
    return reduce(jnp.add, parts)
