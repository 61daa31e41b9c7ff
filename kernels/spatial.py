"""Attention over space: a token attends to the tokens of its own time. One grid step, one pass, no online softmax.

Oracle: reference/attention.py, spatial; reference/gradients.py, spatial_vjp.

Tiling. A step takes all tokens of one time index, [1 1 s c] each of query, key and value, read from the fused
projection by their columns as it lies in memory. The windows of heads (heads.py) are unrolled, so that one window's
softmax runs beside the next one's products.

Bytes of VMEM, twice for the pipeline: (3c + c) · s · itemsize forward, (3c + c + 3c) backward; 4.9 and 8.6 MB for 200
tokens of 768 channels in float32. Where that is too much the windows are cut over the grid; a frame of more than
`BlockSizes.longest` tokens, or whose cotangents alone fill half of VMEM, goes through flash.py.

Why it is faster: nothing is transposed, split or padded in HBM, and weights never leave VMEM.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Float32, Int32

from vivit.kernels import flash, stacks
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
from vivit.numerics.hash_dropout import counter, keep_of_heads

SIDE_BY_SIDE, SIDE_BY_SIDE_BACKWARD = 8, 3  # windows that are compiled together; backward, registers spill


def spatial(
    qkv: Float[Array, "b t s qkv"],
    heads: int,
    mask: Bool[Array, "b t s"] | None,
    seeds: Int32[Array, "b h 2"] | None,
    options: KernelOptions,
) -> Float[Array, "b t s c"]:
    """Attention over space, by this file or flash.py."""
    if not fits(qkv, head_layout(qkv.shape[-1] // 3, heads), options):
        b, t, s, fused = qkv.shape
        frames = qkv.reshape(b * t, s, fused), None if mask is None else mask.reshape(b * t, s)
        return flash.flash(*frames, seeds, heads, options).reshape(b, t, s, fused // 3)
    return in_windows(lambda qkv, seeds, layout: _spatial(qkv, mask, seeds, layout, options), qkv, seeds, heads)


def fits(qkv: jax.Array, layout: HeadLayout, options: KernelOptions) -> bool:
    """Whether a frame is taken whole."""
    return options.whole(qkv.shape[2], layout, qkv.dtype.itemsize)


def _spatial_fwd(qkv, mask, seeds, layout, options):
    return forward(qkv, mask, seeds, layout, options), (qkv, mask, seeds)


def _spatial_bwd(layout, options, saved, cotangent):
    qkv, mask, seeds = saved
    return backward(qkv, mask, seeds, cotangent, layout, options), None, None


_spatial = stacks.differentiable(_spatial_fwd, _spatial_bwd, (3, 4))


def forward(
    qkv: Float[Array, "b t s qkv"],
    mask: Bool[Array, "b t s"] | None,
    seeds: Int32[Array, "b h 2"] | None,
    layout: HeadLayout,
    options: KernelOptions,
    other_half: Float[Array, "b t s c"] | None = None,
) -> Float[Array, "b t s c"]:
    """The result. other_half: that of model 4's other heads, completed in place."""
    b, t, s, fused = qkv.shape
    square, tokens = s * s * 4, 2 * -(-s // 8) * 8 * qkv.dtype.itemsize  # bytes: of scores, of a channel's two blocks
    windows = options.windows(layout.count, 8 * layout.per * square, 4 * tokens * layout.width)
    inputs = [_qkv(qkv, windows, layout), *((ABSENT, ABSENT) if mask is None else _masks(mask))]
    inputs += [seeds_operand(seeds)]
    aliased = {}
    if other_half is not None and not stacks.is_slice(other_half):  # a tape does it itself
        aliased = {len(jax.tree.leaves([arrays for arrays, _ in inputs])): 0}
    inputs += [(other_half, pl.BlockSpec(memory_space=pl.ANY)) if aliased else ABSENT]
    arrays, specs = zip(*inputs, strict=True)
    return stacks.pallas_call(
        partial(_forward_kernel, windows=windows, layout=layout, options=options),
        grid=(b, t, layout.count // windows),
        in_specs=specs,
        out_specs=_columns(s, 0, windows, layout),
        out_shape=result(qkv, (b, t, s, fused // 3)),
        compiler_params=options.compiler_params("parallel", "parallel", "arbitrary"),
        interpret=options.interpret,
        name="spatial_forward",
        input_output_aliases=aliased,
        tape=options.tape,
        again=other_half is not None,
    )(*arrays)


def _forward_kernel(qkv_refs, mask_ref, seen_ref, seeds_ref, _, out_ref, *, windows: int, layout: HeadLayout, options):
    """The windows of one time index. mask_ref: [1 1 1 s]; seen_ref: the same, [1 1 s 1]."""
    mask = None if mask_ref is None else mask_ref[0, 0] != 0
    seen = None if seen_ref is None else seen_ref[0, 0] != 0
    step, before = pl.program_id(1), first_window(windows, layout)

    def one(window):
        query, key, value = (_load(*window_of(qkv_refs, operand, window, layout)) for operand in range(3))
        if seen is not None:
            query, key, value = zeroed((query, key, value), readable(query, seen))
        keep = None
        if seeds_ref is not None:
            keep = _keep(seeds_ref, before + window, step, query.shape[0], layout, options, transposed=False)
        out, sums, _ = attend(query, key, value, layout, options, mask=mask, keep=keep)
        out_ref[0, 0, :, window_lanes(window, layout.width)] = divide(out, sums, mask).astype(out_ref.dtype)

    each_window(windows, SIDE_BY_SIDE if options.precision is None else 1, one)


def backward(
    qkv: Float[Array, "b t s qkv"],
    mask: Bool[Array, "b t s"] | None,
    seeds: Int32[Array, "b h 2"] | None,
    cotangent: Float[Array, "b t s c"],
    layout: HeadLayout,
    options: KernelOptions,
    other_half: Float[Array, "b t s half"] | None = None,
) -> Float[Array, "b t s cotangents"]:
    """The cotangent of qkv from that of the result; in model 4 too, whose qkv has the other half's heads as well.

    other_half: the cotangent that those heads gave, which is put where it belongs.
    """
    b, t, s, _ = qkv.shape
    square, tokens = s * s * 4, 2 * -(-s // 8) * 8 * qkv.dtype.itemsize
    whole = 3 * layout.channels * (1 if other_half is None else 3)  # channels of blocks that are not cut: in and out
    windows = options.windows(layout.count, 8 * layout.per * square + whole * tokens, 4 * tokens * layout.width)

    def all_columns(channels: int) -> pl.BlockSpec:
        return pl.BlockSpec((1, 1, s, channels), lambda b, t, g: (b, t, 0, 0))

    channels = 3 * layout.channels * (1 if other_half is None else 2)
    inputs = [_qkv(qkv, windows, layout), (cotangent, _columns(s, 0, windows, layout))]
    inputs += [ABSENT if mask is None else _masks(mask)[1], seeds_operand(seeds)]
    inputs += [(other_half, None if other_half is None else all_columns(channels // 2))]
    arrays, specs = zip(*inputs, strict=True)
    return stacks.pallas_call(
        partial(_backward_kernel, windows=windows, layout=layout, options=options),
        grid=(b, t, layout.count // windows),
        in_specs=specs,
        out_specs=all_columns(channels),
        out_shape=result(qkv, (b, t, s, channels)),
        compiler_params=options.compiler_params("parallel", "parallel", "arbitrary"),
        interpret=options.interpret,
        name="spatial_backward",
    )(*arrays)


def _backward_kernel(
    qkv_refs, cotangent_ref, seen_ref, seeds_ref, other_ref, out_ref, *, windows: int, layout: HeadLayout, options
):
    seen = None if seen_ref is None else seen_ref[0, 0] != 0
    step, before = pl.program_id(1), first_window(windows, layout)

    def one(window):
        parts = [_load(*window_of(qkv_refs, operand, window, layout)) for operand in range(3)]
        cotangent = _load(cotangent_ref, window_lanes(window, layout.width))
        read = readable(parts[0], seen)
        keep = None
        if seeds_ref is not None:
            keep = _keep(seeds_ref, before + window, step, cotangent.shape[0], layout, options, transposed=True)
        query, key, value = zeroed(parts, read)
        found = attend_vjp(query, key, value, cotangent, layout, options, mask=seen, keep=keep)
        for operand, part in enumerate(zeroed(found, read)):
            block = operand if other_ref is None else 2 * operand + 1
            first = block * layout.count + before
            out_ref[0, 0, :, window_lanes(first + window, layout.width)] = part.astype(out_ref.dtype)

    each_window(windows, SIDE_BY_SIDE_BACKWARD if options.precision is None else 1, one)
    if other_ref is not None:
        c = layout.channels
        for operand in range(3):
            out_ref[..., 2 * operand * c : (2 * operand + 1) * c] = other_ref[..., operand * c : (operand + 1) * c]


def _load(ref, lanes) -> Float32[Array, "s w"]:
    return ref[0, 0, :, lanes].astype(jnp.float32)


def _qkv(
    qkv: Float[Array, "b t s qkv"], windows: int, layout: HeadLayout
) -> tuple[tuple[jax.Array, ...], tuple[pl.BlockSpec, ...]]:
    """qkv once where a step takes all of it, else query, key and value."""
    s, fused = qkv.shape[2:]
    if windows == layout.count * layout.parts:
        return (qkv,), (pl.BlockSpec((1, 1, s, fused), lambda b, t, g: (b, t, 0, 0)),)
    return (qkv,) * 3, tuple(_columns(s, operand, windows, layout) for operand in range(3))


def _columns(s: int, operand: int, windows: int, layout: HeadLayout) -> pl.BlockSpec:
    block = (1, 1, s, windows * layout.width)
    return pl.BlockSpec(block, lambda b, t, g: (b, t, 0, layout.block(operand, windows, g)))


def _masks(mask: Bool[Array, "b t s"]) -> list[tuple[Any, Any]]:
    """The mask with tokens in lanes, and with tokens in rows."""
    s, mask = mask.shape[2], mask.astype(jnp.int32)
    return [
        (mask[:, :, np.newaxis], pl.BlockSpec((1, 1, 1, s), lambda b, t, g: (b, t, 0, 0))),
        (mask[..., np.newaxis], pl.BlockSpec((1, 1, s, 1), lambda b, t, g: (b, t, 0, 0))),
    ]


def _keep(seeds_ref, window, step, s: int, layout: HeadLayout, options: KernelOptions, *, transposed: bool):
    """Dropout's multipliers of a window's heads, float32[q k], or [k q]."""
    query, key = (jax.lax.broadcasted_iota(jnp.int32, (s, s), axis) for axis in ((1, 0) if transposed else (0, 1)))
    counters = counter(step, query, key, s, s)
    first = layout.part * layout.count + window
    return keep_of_heads(seeds_ref, first * layout.per, layout.per, counters, options.rate)
