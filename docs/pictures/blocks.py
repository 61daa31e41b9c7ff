"""Reads from a traced kernel which blocks lie in VMEM at every step of its grid, and which lanes belong to which head.

The kernel is traced, not run, and nothing about it is written down here: grid, blocks and their indices come from the
pallas_call itself, the lanes from the layout of heads that the kernel is given (kernels/heads.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from bench import pallas_calls
from vivit.kernels import chip
from vivit.kernels.heads import LANES, HeadLayout, head_layout

OPERANDS = ("query", "key", "value")


class Kernel(NamedTuple):
    """What to trace. tokens: (t, s), or (n,) where all attend to each other. parts: 2 if the heads are halved."""

    title: str
    attend: Callable[..., jax.Array]
    tokens: tuple[int, ...]
    channels: int
    heads: int
    parts: int = 1


def traced(kernels: list[Kernel]) -> dict[str, Any]:
    """Traces forward and backward pass of kernels on one clip, float32, and returns the data of kernel.js."""
    return dict(lanes=LANES, vmem=chip.vmem_bytes(), calls=[call for one in kernels for call in _calls(one)])


def _calls(kernel: Kernel) -> Iterator[dict[str, Any]]:
    qkv = jax.ShapeDtypeStruct((1, *kernel.tokens, 3 * kernel.channels), np.float32)
    cotangent = jax.ShapeDtypeStruct((1, *kernel.tokens, kernel.channels), np.float32)

    def both(qkv: jax.Array, cotangent: jax.Array) -> Any:
        out, backward = jax.vjp(lambda qkv: kernel.attend(qkv, kernel.heads), qkv)
        return out, backward(cotangent)

    for equation in pallas_calls.equations(jax.make_jaxpr(both)(qkv, cotangent).jaxpr):
        yield _call(kernel, equation)


def _call(kernel: Kernel, equation: Any) -> dict[str, Any]:
    mapping = equation.params["grid_mapping"]
    grid = tuple(map(int, mapping.grid))
    names = equation.params["jaxpr"].debug_info.arg_names
    blocks = mapping.block_mappings
    operands = [
        _operand(kernel, names[number], block, grid, written=number >= mapping.num_inputs)
        for number, block in enumerate(blocks)
    ]
    scratch = [
        dict(name=name, shape=one.shape, bytes=pallas_calls.tiled_bytes(one.shape, one.dtype))
        for name, one in zip(names[len(blocks) :], mapping.scratch_avals, strict=True)
        if "vmem" in str(one)
    ]
    return dict(title=f"{kernel.title}: {equation.params['name']}", grid=grid, operands=operands, scratch=scratch)


def _operand(kernel: Kernel, name: str, block: Any, grid: tuple[int, ...], *, written: bool) -> dict[str, Any]:
    array, hbm = block.array_aval, pallas_calls.stays_in_hbm(block)
    shape = pallas_calls.block_shape(block)
    return dict(
        name=name,
        written=written,
        hbm=hbm,
        array=array.shape,
        block=shape,
        bytes=0 if hbm else pallas_calls.tiled_bytes(shape, array.dtype),
        copies=getattr(block.pipeline_mode, "buffer_count", 2),  # of a block: one is used, the next one fetched
        indices=[] if hbm else pallas_calls.indices(block.index_map_jaxpr, grid).tolist(),
        heads=list(heads_of(array.shape[-1], kernel.channels, kernel.heads, kernel.parts)),
    )


def heads_of(width: int, channels: int, heads: int, parts: int) -> Iterator[dict[str, Any]]:
    """Yields the columns of every head in an array as wide as query, key and value, or as one of them, in order.

    width: 3c or c, or 3c/2 for those of the first half of the heads alone.
    """
    layout = head_layout(channels, heads, parts)
    if width == 3 * layout.channels and parts > 1:
        layout = replace(layout, parts=1)
    for operand in range(width // (layout.channels * layout.parts)):
        for part in range(layout.parts):
            yield from _of_part(replace(layout, part=part), operand, width)


def _of_part(layout: HeadLayout, operand: int, width: int) -> Iterator[dict[str, Any]]:
    several = width > layout.channels * layout.parts
    for head in range(layout.count * layout.per):
        window, inside = divmod(head, layout.per)
        yield dict(
            operand=OPERANDS[operand] if several else "",
            head=layout.part * layout.count * layout.per + head,
            first=layout.block(operand, 1, window) * layout.width + inside * layout.d,
            lanes=layout.d,
        )
