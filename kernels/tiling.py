"""How the dense kernels (dense.py) cut tokens and weights into blocks that fit in VMEM.

Tokens are seen as [N, s, c] and cut into blocks of several sequences, or of rows of one sequence, always in eights. So
arrays are read as XLA stores them, s padded to a multiple of 8, and nothing is copied. A block may hang over the end of
its sequence: such rows are garbage, never written, and left out of sums (`inside`). Weights are cut into tiles of
columns only where they do not fit. Grids are (tiles, *blocks.grid), or (*blocks.grid, tiles) where tiles are summed.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vivit.kernels import chip
from vivit.kernels.heads import LANES

SUBLANES = 8
ROWS = 512  # in a block at most: twice as many gain 1 %, and take twice as long to compile
GROUP = 128  # rows of one product at least: with fewer, loading the weights takes longer than using them
WEIGHTS_SHARE = 0.46  # of VMEM
SPILL_SHARE = 0.06  # of VMEM, for what the compiler puts there


class Blocks(NamedTuple):
    """How [N s c] is cut: blocks of `frames` sequences and `rows` tokens, rows a multiple of 8."""

    sequences: int  # N
    length: int  # s
    frames: int
    rows: int

    @property
    def grid(self) -> tuple[int, int]:
        return self.sequences // self.frames, pl.cdiv(self.length, self.rows)

    def view(self, x):
        return x.reshape(self.sequences, self.length, x.shape[-1])

    def array(self, width: int, dtype):
        return jax.ShapeDtypeStruct((self.sequences, self.length, width), dtype)

    def spec(self, width: int, index):
        return pl.BlockSpec((self.frames, self.rows, width), index)


def blocks_of(shape: tuple[int, ...], row_bytes: int, weights_bytes: int) -> Blocks:
    """As many rows as fit beside the weights. Where s is a multiple of 8 all tokens are one sequence: same layout."""
    *batch, length, _ = shape
    sequences = math.prod(batch)
    if length == 1 or length % SUBLANES == 0:
        sequences, length = 1, sequences * length
    free = (1 - SPILL_SHARE) * chip.vmem_bytes() - weights_bytes
    most = min(max(int(free) // row_bytes // SUBLANES * SUBLANES, SUBLANES), ROWS)
    rows = _up(pl.cdiv(length, pl.cdiv(length, most)), SUBLANES)
    frames = max(n for n in range(1, max(1, most // rows) + 1) if sequences % n == 0) if rows >= length else 1
    return Blocks(sequences, length, frames, rows)


def after_tiles(k, i, j):
    return i, j, 0


def before_tiles(i, j, k):
    return i, j, 0


def tile(f: int, column_bytes: int, copies: int) -> tuple[int, int]:
    """(columns of the weights at a time, the VMEM that they take): all, or a divisor of f, in lanes, in copies."""
    most = int(WEIGHTS_SHARE * chip.vmem_bytes()) // column_bytes
    widths = [width for width in range(LANES, f, LANES) if f % width == 0 and copies * width <= most]
    if f <= most or not widths:
        return f, f * column_bytes
    return widths[-1], copies * widths[-1] * column_bytes


def columns(rows: int, width: int):
    """A tile of weights, outermost in the grid: it changes too seldom to hold the next one too."""
    return pl.BlockSpec((rows, width), lambda k, i, j: (0, k), pipeline_mode=pl.Buffered(1))


def whole(*shape: int):
    return pl.BlockSpec(shape, lambda *_: (0, 0))


def parts(frames: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """A block in the pieces of one product each, so that one's row-wise work hides behind another's product."""
    together = 1 if rows >= GROUP else min(frames, pl.cdiv(GROUP, rows))
    length = _up(pl.cdiv(rows, max(1, rows // GROUP)), SUBLANES)
    for frame in range(0, frames, together):
        for row in range(0, rows, length):
            yield slice(frame, min(frame + together, frames)), slice(row, min(row + length, rows))


def inside(part, step, blocks):
    """Which rows of a part are tokens, bool[rows 1]; True if all are."""
    if blocks.length % blocks.rows == 0:
        return True
    frames, rows = part
    shape = (frames.stop - frames.start, rows.stop - rows.start, 1)
    place = step * blocks.rows + rows.start + jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    return (place < blocks.length).reshape(shape[0] * shape[1], 1)


def load(ref, part):
    """A part of a block as [rows c]. Several frames are merged in float32, whose tiles are of eight rows."""
    block = ref[part]
    frames, rows, c = block.shape
    return block.reshape(rows, c) if frames == 1 else block.astype(jnp.float32).reshape(frames * rows, c)


def store(ref, part, values):
    frames, rows = (axis.stop - axis.start for axis in part)
    ref[part] = values.reshape(frames, rows, values.shape[-1]).astype(ref.dtype)


def compiler(*semantics: Any):
    return pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=chip.vmem_bytes())


def _up(size: int, multiple: int) -> int:
    return pl.cdiv(size, multiple) * multiple
