"""The Pallas calls of a traced program: steps of the grid, and bytes that its pipeline moves.

A block is fetched (or written) whenever its index differs from that of the step before, in row-major order of the grid;
whole tiles of 8 x 128 are moved. Where the index depends on prefetched values, or the kernel copies by itself, an
operand counts once: a lower bound. One that is only there to be written into counts nothing.
"""

import itertools
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun


class Call(NamedTuple):
    """One pallas_call of a traced program."""

    name: str  # "" where the program gives none
    operands: tuple[tuple[int, ...], ...]  # their shapes
    results: tuple[tuple[int, ...], ...]
    steps: int
    bytes: int
    exact: bool  # whether every index was computed


def calls(jaxpr: Any) -> Iterator[Call]:
    """Every pallas_call in a jaxpr and whatever it contains, in order."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            yield _call(equation)
            continue
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from calls(inner)


def _call(equation: Any) -> Call:
    mapping = equation.params["grid_mapping"]
    grid = tuple(int(size) for size in mapping.grid)
    prefetched = mapping.num_index_operands
    aliased = {operand - prefetched for operand, _ in equation.params["input_output_aliases"]}
    moved = [_moved(block, grid, index in aliased) for index, block in enumerate(mapping.block_mappings)]
    name = equation.params.get("name") or ""
    return Call(
        re.sub(r"[^\w.\-]", "_", name),
        tuple(tuple(variable.aval.shape) for variable in equation.invars),
        tuple(tuple(variable.aval.shape) for variable in equation.outvars),
        math.prod(grid),
        sum(count for count, _ in moved),
        all(exact for _, exact in moved),
    )


def _moved(block: Any, grid: tuple[int, ...], aliased: bool) -> tuple[int, bool]:
    """Bytes that one operand or result moves, and whether that is exact."""
    whole = block.array_aval
    if any(space in str(block.block_aval).lower() for space in ("<any>", "<hbm>")):  # no pipeline: the kernel copies
        return (0, True) if aliased else (_tiled_bytes(whole.shape, whole.dtype), False)
    sizes = [getattr(size, "block_size", size) for size in block.block_shape]
    shape = [size if isinstance(size, int) else 1 for size in sizes]
    index_map = block.index_map_jaxpr
    if len(index_map.jaxpr.invars) != len(grid):
        return _tiled_bytes(whole.shape, whole.dtype), False
    return _fetches(index_map, grid) * _tiled_bytes(shape, whole.dtype), True


def _fetches(index_map: Any, grid: tuple[int, ...]) -> int:
    """How often the block's index changes along the grid, the first step included."""
    if not grid:
        return 1
    steps = np.array(list(itertools.product(*map(range, grid))), np.int32)
    indices = jax.vmap(jaxpr_as_fun(index_map))(*(jax.numpy.asarray(column) for column in steps.T))
    values = np.stack([np.asarray(index) for index in indices], axis=-1)
    return 1 + int((values[1:] != values[:-1]).any(axis=-1).sum())


def _tiled_bytes(shape: Any, dtype: Any) -> int:
    """Bytes of an array whose last two axes are padded to whole tiles of 8 x 128."""
    *outer, rows, columns = (1, 1, *shape)
    return math.prod(outer) * math.ceil(rows / 8) * 8 * math.ceil(columns / 128) * 128 * np.dtype(dtype).itemsize
