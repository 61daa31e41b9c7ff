"""Attention over time: a token attends to the tokens of its own position. One grid step, one pass.

Oracle: reference/attention.py, temporal; reference/gradients.py, temporal_vjp.

Tiling. A step takes a few positions at all time indices, [1 t 8 c] each of query, key and value. The rows of 8
positions, the rows of a register, are one [8t, 8t] product in which a token sees only its own position: seven eighths
of it are wasted, and it costs less than any transpose would. More than `BlockSizes.longest` rows go through the kernels
over space, with the axes swapped.

What is not finite at one position must not reach the seven others through 0 · ∞. Sums over time tell which channels of
which positions hold such numbers; they enter the products as zeros, and the sums take their place in the result.

Bytes of VMEM as in spatial.py, for 8t tokens.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Float32, Int32

from vivit.kernels import stacks
from vivit.kernels.heads import HeadLayout, each_window, first_window, head_layout, in_windows, window_lanes, window_of
from vivit.kernels.softmax_av import (
    ABSENT,
    KernelOptions,
    attend,
    attend_vjp,
    divide,
    readable,
    result,
    seeds_operand,
    zeroed,
)
from vivit.kernels.spatial import spatial
from vivit.numerics.hash_dropout import counter, keep_of_heads

POSITIONS = 8  # rows of a register: positions that one product takes together
ROWS = 128  # that a step should have at least
SIDE_BY_SIDE, SIDE_BY_SIDE_BACKWARD = 8, 3  # windows that are compiled together; backward, registers spill


def temporal(
    qkv: Float[Array, "b t s qkv"],
    heads: int,
    mask: Bool[Array, "b t s"] | None,
    seeds: Int32[Array, "b h 2"] | None,
    options: KernelOptions,
) -> Float[Array, "b t s c"]:
    """Attention over time, by this file or spatial.py."""
    if not fits(qkv, head_layout(qkv.shape[-1] // 3, heads), options):
        mask = None if mask is None else mask.swapaxes(1, 2)
        over_space = spatial(stacks.array(qkv).swapaxes(1, 2), heads, mask, seeds, options)
        return stacks.array(over_space).swapaxes(1, 2)
    return in_windows(lambda qkv, seeds, layout: _temporal(qkv, mask, seeds, layout, options), qkv, seeds, heads)


def fits(qkv: jax.Array, layout: HeadLayout, options: KernelOptions) -> bool:
    """Whether all time indices of 8 positions are taken whole."""
    return options.whole(POSITIONS * qkv.shape[1], layout, qkv.dtype.itemsize)


def _temporal_fwd(qkv, mask, seeds, layout, options):
    return forward(qkv, mask, seeds, layout, options), (qkv, mask, seeds)


def _temporal_bwd(layout, options, saved, cotangent):
    qkv, mask, seeds = saved
    return backward(qkv, mask, seeds, cotangent, layout, options), None, None


_temporal = stacks.differentiable(_temporal_fwd, _temporal_bwd, (3, 4))


def forward(
    qkv: Float[Array, "b t s qkv"],
    mask: Bool[Array, "b t s"] | None,
    seeds: Int32[Array, "b h 2"] | None,
    layout: HeadLayout,
    options: KernelOptions,
) -> Float[Array, "b t s c"]:
    """The result; of model 4's first half of the heads the first c/2 channels are written."""
    b, t, s, fused = qkv.shape
    positions, square = _positions(t, s, options), (POSITIONS * t) ** 2 * 4
    window_bytes = 2 * t * positions * 4 * layout.width * qkv.dtype.itemsize
    windows = options.windows(layout.count, 8 * layout.per * square, window_bytes)
    inputs = [_qkv(qkv, positions, windows, layout), *((ABSENT, ABSENT) if mask is None else _masks(mask, positions))]
    inputs += [seeds_operand(seeds)]
    arrays, specs = zip(*inputs, strict=True)
    return stacks.pallas_call(
        partial(_forward_kernel, s=s, windows=windows, layout=layout, options=options),
        grid=(b, pl.cdiv(s, positions), layout.count // windows),
        in_specs=specs,
        out_specs=_columns(t, positions, 0, windows, layout),
        out_shape=result(qkv, (b, t, s, fused // 3)),
        compiler_params=options.compiler_params("parallel", "parallel", "arbitrary"),
        interpret=options.interpret,
        name="temporal_forward",
        tape=options.tape,
    )(*arrays)


def _forward_kernel(
    qkv_refs, mask_ref, seen_ref, seeds_ref, out_ref, *, s: int, windows: int, layout: HeadLayout, options
):
    """mask_ref: [1 n 1 8t] for the n eights of positions of a step; seen_ref: the same, [1 n 8t 1]."""
    _, t, positions, _ = qkv_refs[0].shape
    together = _together(t)
    step, before = pl.program_id(1), first_window(windows, layout)

    def one(window):
        for eight in range(positions // POSITIONS):
            mask, seen = (None if ref is None else ref[0, eight] != 0 for ref in (mask_ref, seen_ref))
            query, key, value = (_load(*window_of(qkv_refs, i, window, layout), eight, s, step) for i in range(3))
            if seen is not None:
                query, key, value = zeroed((query, key, value), readable(query, seen))
            keep = None
            if seeds_ref is not None:
                keep = _keep(seeds_ref, before + window, step, eight, t, positions, layout, options, transposed=False)
            finite, sums_over_time = _finite(value)
            out, sums, _ = attend(
                query, key, value, layout, options, mask=mask, together=together, finite=finite, keep=keep
            )
            out = jnp.where(finite, divide(out, sums, mask), sums_over_time)
            _store(out_ref, window_lanes(window, layout.width), eight, out)

    each_window(windows, SIDE_BY_SIDE if options.precision is None else 1, one)


def backward(
    qkv: Float[Array, "b t s qkv"],
    mask: Bool[Array, "b t s"] | None,
    seeds: Int32[Array, "b h 2"] | None,
    cotangent: Float[Array, "b t s c"],
    layout: HeadLayout,
    options: KernelOptions,
) -> Float[Array, "b t s cotangents"]:
    """The cotangent of qkv, or of model 4's first half of the heads: [b t s 3c/2]."""
    b, t, s, _ = qkv.shape
    positions, square = _positions(t, s, options), (POSITIONS * t) ** 2 * 4
    tokens = 2 * t * positions * qkv.dtype.itemsize
    fixed_bytes = 8 * layout.per * square + 3 * layout.channels * tokens
    windows = options.windows(layout.count, fixed_bytes, 4 * tokens * layout.width)
    inputs = [_qkv(qkv, positions, windows, layout), (cotangent, _columns(t, positions, 0, windows, layout))]
    inputs += [ABSENT if mask is None else _masks(mask, positions)[1], seeds_operand(seeds)]
    arrays, specs = zip(*inputs, strict=True)
    return stacks.pallas_call(
        partial(_backward_kernel, s=s, windows=windows, layout=layout, options=options),
        grid=(b, pl.cdiv(s, positions), layout.count // windows),
        in_specs=specs,
        out_specs=pl.BlockSpec((1, t, positions, 3 * layout.channels), lambda b, step, g: (b, 0, step, 0)),
        out_shape=result(qkv, (b, t, s, 3 * layout.channels)),
        compiler_params=options.compiler_params("parallel", "parallel", "arbitrary"),
        interpret=options.interpret,
        name="temporal_backward",
    )(*arrays)


def _backward_kernel(
    qkv_refs, cotangent_ref, seen_ref, seeds_ref, out_ref, *, s: int, windows: int, layout: HeadLayout, options
):
    _, t, positions, _ = qkv_refs[0].shape
    together = _together(t)
    step, before = pl.program_id(1), first_window(windows, layout)

    def one(window):
        for eight in range(positions // POSITIONS):
            seen = None if seen_ref is None else seen_ref[0, eight] != 0
            parts = [_load(*window_of(qkv_refs, operand, window, layout), eight, s, step) for operand in range(3)]
            cotangent = _load(cotangent_ref, window_lanes(window, layout.width), eight, s, step)
            read = readable(parts[0], seen)
            query, key, value = zeroed(parts, read)
            keep = None
            if seeds_ref is not None:
                keep = _keep(seeds_ref, before + window, step, eight, t, positions, layout, options, transposed=True)
            finite, sums_over_time = zip(*(_finite(x) for x in (query, key, cotangent)), strict=True)
            found = attend_vjp(
                query, key, value, cotangent, layout, options,
                mask=seen, together=together, finite=finite, keep=keep,
            )  # fmt: skip
            # dQ is a sum over keys, dK over queries, dV over the cotangents
            found = [jnp.where(finite[i], part, sums_over_time[i]) for i, part in zip((1, 0, 2), found, strict=True)]
            for operand, part in enumerate(zeroed(found, read)):
                first = operand * layout.count + before
                _store(out_ref, window_lanes(first + window, layout.width), eight, part)

    each_window(windows, SIDE_BY_SIDE_BACKWARD if options.precision is None else 1, one)


def _qkv(
    qkv: Float[Array, "b t s qkv"], positions: int, windows: int, layout: HeadLayout
) -> tuple[tuple[jax.Array, ...], tuple[pl.BlockSpec, ...]]:
    """qkv once where a step takes all of it, else query, key and value."""
    _, t, _, fused = qkv.shape
    if windows == layout.count * layout.parts:
        return (qkv,), (pl.BlockSpec((1, t, positions, fused), lambda b, step, g: (b, 0, step, 0)),)
    return (qkv,) * 3, tuple(_columns(t, positions, operand, windows, layout) for operand in range(3))


def _columns(t: int, positions: int, operand: int, windows: int, layout: HeadLayout) -> pl.BlockSpec:
    block = (1, t, positions, windows * layout.width)
    return pl.BlockSpec(block, lambda b, step, g: (b, 0, step, layout.block(operand, windows, g)))


def _positions(t: int, s: int, options: KernelOptions) -> int:
    """In a step, a multiple of 8."""
    most = options.blocks.positions or max(1, ROWS // (POSITIONS * t)) * POSITIONS
    return min(pl.cdiv(s, POSITIONS) * POSITIONS, most)


def _together(t: int) -> Bool[Array, "rows rows"]:
    """Which rows of a product are of the same position."""
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (POSITIONS * t, POSITIONS * t), axis) for axis in (0, 1))
    return ((row ^ column) & (POSITIONS - 1)) == 0


def _load(ref, lanes, eight: int, s: int, step: Any) -> Float32[Array, "rows w"]:
    """The 8t rows of one product, time outermost; zeros beyond the last position."""
    _, t, positions, _ = ref.shape
    first = eight * POSITIONS
    rows = ref[0, :, first : first + POSITIONS, lanes].astype(jnp.float32).reshape(t * POSITIONS, lanes.size)
    if s % POSITIONS == 0:
        return rows
    row = jax.lax.broadcasted_iota(jnp.int32, (t * POSITIONS, 1), 0)
    real = (row & (POSITIONS - 1)) < s - step * positions - first
    return jnp.where(real, rows, 0.0)  # whatever lies there


def _store(ref, lanes, eight: int, rows: Float32[Array, "rows w"]) -> None:
    first = eight * POSITIONS
    ref[0, :, first : first + POSITIONS, lanes] = rows.reshape(-1, POSITIONS, lanes.size).astype(ref.dtype)


def _finite(x: Float32[Array, "rows w"]) -> tuple[Bool[Array, "rows w"], Float32[Array, "rows w"]]:
    """Which channels of which positions are finite at all times; sums over time."""
    n, width = x.shape
    by_time = n // POSITIONS, POSITIONS, width
    total = x.reshape(by_time).sum(axis=0)
    finite = jnp.abs(total) < np.float32(np.inf)
    finite, total = (jnp.broadcast_to(part[np.newaxis], by_time).reshape(n, width) for part in (finite, total))
    return finite, total


def _masks(mask: Bool[Array, "b t s"], positions: int) -> list[tuple[Any, Any]]:
    """The mask as the products see it, [b s/8 8t], masked beyond the last position: tokens in lanes, tokens in rows."""
    b, t, s = mask.shape
    eights, n = pl.cdiv(s, POSITIONS), positions // POSITIONS
    mask = jnp.pad(mask.astype(jnp.int32), ((0, 0), (0, 0), (0, eights * POSITIONS - s)))
    mask = mask.reshape(b, t, eights, POSITIONS).transpose(0, 2, 1, 3).reshape(b, eights, t * POSITIONS)
    return [
        (mask[:, :, np.newaxis], pl.BlockSpec((1, n, 1, t * POSITIONS), lambda b, step, g: (b, step, 0, 0))),
        (mask[..., np.newaxis], pl.BlockSpec((1, n, t * POSITIONS, 1), lambda b, step, g: (b, step, 0, 0))),
    ]


def _keep(
    seeds_ref, window, step, eight: int, t: int, positions: int, layout: HeadLayout, options, *, transposed: bool
):  # fmt: skip
    """Dropout's multipliers of a window's heads, float32[8q 8k], or [8k 8q]."""
    shape = (POSITIONS * t, POSITIONS * t)
    query, key = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in ((1, 0) if transposed else (0, 1)))
    position = step * positions + eight * POSITIONS + (query & (POSITIONS - 1))
    counters = counter(position, query // POSITIONS, key // POSITIONS, t, t)
    first = layout.part * layout.count + window
    return keep_of_heads(seeds_ref, first * layout.per, layout.per, counters, options.rate)
