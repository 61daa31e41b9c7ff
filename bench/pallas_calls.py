"""Reads the Pallas calls of a traced program: the steps of the grid and the bytes that its pipeline moves.

A block is fetched (or written) when its index differs from that of the previous step, in row-major order of the grid,
in whole tiles of 8 x 128. An operand counts once, as a lower bound, if its index depends on several prefetched values
(one of them is the same at every step) or if the kernel copies it itself. One that the kernel does not use counts
nothing.
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
    """Yields every pallas_call in a jaxpr and its inner jaxprs, in order."""
    return map(_call, equations(jaxpr))


def equations(jaxpr: Any) -> Iterator[Any]:
    """Yields the equation of every pallas_call in a jaxpr and its inner jaxprs, in order."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            yield equation
            continue
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def block_shape(block: Any) -> tuple[int, ...]:
    """Returns the sizes of a block mapping's blocks, 1 for an axis that the kernel does not see."""
    sizes = [getattr(size, "block_size", size) for size in block.block_shape]
    return tuple(size if isinstance(size, int) else 1 for size in sizes)


def stays_in_hbm(block: Any) -> bool:
    """Returns whether an operand has no pipeline: the kernel copies what it needs, or nothing."""
    return any(space in str(block.block_aval).lower() for space in ("<any>", "<hbm>"))


def indices(index_map: Any, grid: tuple[int, ...]) -> np.ndarray:
    """Returns the index of the block at every step of the grid, int[steps axes], in the order of the steps."""
    steps = np.array(list(itertools.product(*map(range, grid))), np.int32)
    values = [jax.numpy.zeros(ref.aval.shape, ref.aval.dtype) for ref in _prefetched(index_map, grid)]
    of_step = jax.vmap(lambda *step: jaxpr_as_fun(index_map)(*step, *map(jax.new_ref, values)))
    found = of_step(*(jax.numpy.asarray(column) for column in steps.T))
    return np.stack([np.asarray(index) for index in found], axis=-1)


def _prefetched(index_map: Any, grid: tuple[int, ...]) -> list[Any]:
    return index_map.jaxpr.invars[len(grid) :]


def _call(equation: Any) -> Call:
    mapping = equation.params["grid_mapping"]
    grid = tuple(int(size) for size in mapping.grid)
    kernel, blocks = equation.params["jaxpr"], mapping.block_mappings
    used = {id(variable) for inner in kernel.eqns for variable in inner.invars}
    refs = kernel.invars[mapping.num_index_operands :][: len(blocks)]
    moved = [_moved(block, grid, id(ref) in used) for ref, block in zip(refs, blocks, strict=True)]
    name = equation.params.get("name") or ""
    return Call(
        re.sub(r"[^\w.\-]", "_", name),
        tuple(tuple(variable.aval.shape) for variable in equation.invars),
        tuple(tuple(variable.aval.shape) for variable in equation.outvars),
        math.prod(grid),
        sum(count for count, _ in moved),
        all(exact for _, exact in moved),
    )


def _moved(block: Any, grid: tuple[int, ...], used: bool) -> tuple[int, bool]:
    """Returns the bytes that one operand or result moves, and whether the number is exact."""
    whole = block.array_aval
    if stays_in_hbm(block):
        return (tiled_bytes(whole.shape, whole.dtype), False) if used else (0, True)
    index_map = block.index_map_jaxpr
    if any(ref.aval.size > 1 for ref in _prefetched(index_map, grid)):
        return tiled_bytes(whole.shape, whole.dtype), False
    return _fetches(index_map, grid) * tiled_bytes(block_shape(block), whole.dtype), True


def _fetches(index_map: Any, grid: tuple[int, ...]) -> int:
    """Returns the number of changes of the block's index along the grid, including the first step."""
    if not grid:
        return 1
    values = indices(index_map, grid)
    return 1 + int((values[1:] != values[:-1]).any(axis=-1).sum())


def tiled_bytes(shape: Any, dtype: Any) -> int:
    """Bytes of an array whose last two axes are padded to whole tiles of 8 x 128."""
    *outer, rows, columns = (1, 1, *shape)
    return math.prod(outer) * math.ceil(rows / 8) * 8 * math.ceil(columns / 128) * 128 * np.dtype(dtype).itemsize
