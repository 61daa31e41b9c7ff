"""How the dense kernels (dense.py) cut tokens and weights into blocks that fit in VMEM.

Tokens are seen as [N, s, c] and cut into blocks of several sequences, or of rows of one sequence, always in eights. So
arrays are read as XLA stores them, s padded to a multiple of 8, and nothing is copied. A block may hang over the end of
its sequence: such rows are garbage, never written, and left out of sums (`inside`). Weights are cut into tiles of
columns only where they do not fit. Grids are (tiles, *blocks.grid), or (blocks, tiles) where tiles are summed.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vivit.kernels import chip
from vivit.kernels.heads import LANES

SUBLANES = 8
GROUP = 128  # rows of one product at least: with fewer, loading the weights takes longer than using them
FEW_ROWS = 16  # whose row-wise work stays in registers
ENOUGH = 200  # rows of a step: a frame of ViViT, with 196 or 197 tokens, as it is stored
SPILL_SHARE = 0.06  # of VMEM, for what the compiler puts there


class DenseBlockSizes(NamedTuple):
    """How the dense kernels cut their work: fewer where VMEM has no room for them.

    rows: tokens in a step, a multiple of 8; twice as many gain 1 %, and take twice as long to compile. columns: of the
    weights at a time, a multiple of 128 that divides them; None: as many as fit.
    """

    rows: int = 512
    columns: int | None = None


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

    def pieces(self, count: int) -> "Blocks":
        """The rows of every block in at most `count` pieces, in eights."""
        return self._replace(rows=_up(pl.cdiv(self.rows, count), SUBLANES))

    def piece_of(self, blocks: "Blocks", step: Any, tile: Any) -> Any:
        """The place in its sequence of piece `tile` of the block at `step`, or of the block's last piece."""
        of_a_block = pl.cdiv(blocks.rows, self.rows)
        piece = step * np.int32(of_a_block) + jax.lax.min(tile, np.int32(of_a_block - 1))
        return jax.lax.min(piece, np.int32(self.grid[1] - 1))


def blocks_of(
    shape: tuple[int, ...], row_bytes: int, fixed_bytes: int, sizes: DenseBlockSizes, pieces: int = 1
) -> Blocks:
    """As many rows as fit beside the rest. Where s is a multiple of 8 all tokens are one sequence: same layout.

    pieces: the rows of a block that is not a whole sequence can be cut into so many equal ones, in eights.
    """
    *batch, length, _ = shape
    sequences = math.prod(batch)
    if length == 1 or length % SUBLANES == 0:
        sequences, length = 1, sequences * length
    most = min(max((_free_bytes() - fixed_bytes) // row_bytes // SUBLANES * SUBLANES, SUBLANES), sizes.rows)
    rows = _up(pl.cdiv(length, pl.cdiv(length, most)), SUBLANES)
    if rows < length and rows % (pieces * SUBLANES):
        most = max(most // (pieces * SUBLANES), 1) * pieces * SUBLANES
        rows = _up(pl.cdiv(length, pl.cdiv(length, most)), pieces * SUBLANES)
    frames = max(n for n in range(1, max(1, most // rows) + 1) if sequences % n == 0) if rows >= length else 1
    return Blocks(sequences, length, frames, rows)


def after_tiles(k, i, j):
    return i, j, 0


def tile(shape: tuple[int, ...], f: int, bytes_of: Callable[[int], tuple[int, int]], sizes: DenseBlockSizes) -> int:
    """How many of f columns a step takes: all, or the largest divisor, in lanes, that leaves room for ENOUGH rows.

    bytes_of(columns): (of a row, of everything else) in VMEM. The smallest divisor where none leaves room.
    """
    divisors = [f, *(columns for columns in range(f // LANES * LANES, 0, -LANES) if f % columns == 0)]
    narrow = [columns for columns in divisors if columns <= (sizes.columns or f)]
    return next((columns for columns in narrow if fits(shape, *bytes_of(columns), sizes)), divisors[-1])


def fits(shape: tuple[int, ...], row_bytes: int, fixed_bytes: int, sizes: DenseBlockSizes) -> bool:
    """Whether ENOUGH rows fit beside the rest, or all where there are fewer."""
    rows = math.prod(shape[:-2]) * _up(shape[-2], SUBLANES)
    return min(ENOUGH, sizes.rows, rows) * row_bytes + fixed_bytes <= _free_bytes()


def columns(rows: int, width: int):
    """A tile of weights, outermost in the grid: it changes too seldom to hold the next one too."""
    return pl.BlockSpec((rows, width), lambda k, i, j: (0, k), pipeline_mode=pl.Buffered(1))


def whole(*shape: int):
    return pl.BlockSpec(shape, lambda *_: (0, 0))


def parts(frames: int, rows: int, least: int = GROUP) -> Iterator[tuple[slice, slice]]:
    """A block in pieces of at least so many rows: by default those of one product each, so that one's row-wise work
    hides behind another's product.
    """
    together = 1 if rows >= least else min(frames, pl.cdiv(least, rows))
    length = _up(pl.cdiv(rows, max(1, rows // least)), SUBLANES)
    for frame in range(0, frames, together):
        for row in range(0, rows, length):
            yield slice(frame, min(frame + together, frames)), slice(row, min(row + length, rows))


def beside(width: int, frames: int, rows: int) -> Iterator[tuple[slice, list[tuple[slice, slice]]]]:
    """The columns of a product in windows of lanes, each with the parts of a block whose row-wise work goes with it.

    The compiler lets the two overlap, but moves no work far along a long product: written after it, it would run after.
    """
    windows = [slice(first, min(first + LANES, width)) for first in range(0, width, LANES)]
    few = list(parts(frames, rows, least=FEW_ROWS))
    share = pl.cdiv(len(few), len(windows))
    for i, window in enumerate(windows):
        yield window, few[i * share : (i + 1) * share]


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


def _free_bytes() -> int:
    return int((1 - SPILL_SHARE) * chip.vmem_bytes())


def _up(size: int, multiple: int) -> int:
    return pl.cdiv(size, multiple) * multiple
