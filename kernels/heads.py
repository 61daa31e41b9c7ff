"""How heads lie in the 128 lanes of a TPU register.

A window is what a kernel takes at once: 128 lanes with as many heads as fit, or one head of a multiple of 128 channels.
Two heads of 64 fill a window; one is selected by zeroing the other's lanes, so nothing is ever shuffled.
Heads of other sizes (80, 96, 30) are padded with zero channels to the next size that fits, and heads are added until
they fill whole windows: copies around the kernel, but the same kernel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int32

from vivit.kernels import stacks

LANES = 128
_SIZES = (32, 64, 128)  # channels of a head that fill a window evenly


@dataclass(frozen=True)
class HeadLayout:
    """The windows of one of query, key and value, or of one half of their heads (model 4)."""

    count: int  # windows
    per: int  # heads in one window
    d: int  # lanes of one head
    width: int  # lanes of a window
    channels: int  # of all windows
    scale: float  # 1 / √channels, of the head before it was padded
    part: int = 0  # which part of the heads
    parts: int = 1  # 2 in model 4: the first half attends over time, the second over space

    def block(self, operand: int, windows: int, group: Any) -> Any:
        """Which block of `windows` windows holds a group of this part's. operand: 0, 1, 2 for query, key, value."""
        return (operand * self.parts + self.part) * (self.count // windows) + group


def head_layout(c: int, heads: int, parts: int = 1) -> HeadLayout:
    """The layout of `heads` heads in c channels, when they are cut into `parts` equal parts first."""
    real = c // heads
    d = next((size for size in _SIZES if real <= size), -(-real // LANES) * LANES)
    per = max(1, LANES // d)
    count = -(-(heads // parts) // per)
    return HeadLayout(count, per, d, per * d, count * per * d, real**-0.5, parts=parts)


def in_windows(
    core: Callable[..., jax.Array],
    qkv: Float[Array, "*rows qkv"],
    seeds: Int32[Array, "b h 2"] | None,
    heads: int,
    parts: int = 1,
) -> Float[Array, "*rows c"]:
    """core(qkv, seeds, layout), around which heads that do not fill whole windows are padded with zeros."""
    *batch, fused = qkv.shape
    c = fused // 3
    layout = head_layout(c, heads, parts)
    if layout.channels * parts == c and layout.d * heads == c:
        return core(qkv, seeds, layout)
    own, d = heads // parts, c // heads
    missing = [(0, layout.count * layout.per - own), (0, layout.d - d)]
    split = stacks.array(qkv).reshape(*batch, 3, parts, own, d)
    padded = jnp.pad(split, [*[(0, 0)] * (len(batch) + 2), *missing])
    if seeds is not None:
        b = seeds.shape[0]
        seeds = jnp.pad(seeds.reshape(b, parts, own, 2), [(0, 0), (0, 0), missing[0], (0, 0)]).reshape(b, -1, 2)
    out = core(padded.reshape(*batch, 3 * parts * layout.channels), seeds, layout)
    out = stacks.array(out).reshape(*batch, parts, layout.count * layout.per, layout.d)
    return out[..., :own, :d].reshape(*batch, c)


def each_window(count: int, side_by_side: int, body: Callable[[Any], None]) -> None:
    """body(window) for all windows, up to `side_by_side` of them compiled so that they overlap."""
    together = max(n for n in range(1, side_by_side + 1) if count % n == 0)
    if together == count:
        for window in range(count):
            body(window)
    else:

        @pl.loop(0, count // together)
        def _(step):
            for i in range(together):
                body(step * together + i)


def first_window(windows: int, layout: HeadLayout) -> Any:
    """The first window of a step, on the third axis of the grid; known when compiling if a step takes all.

    Not to be called in a loop, where Pallas's interpreter knows no place in the grid.
    """
    return 0 if windows == layout.count else pl.program_id(2) * windows


def window_lanes(window: Any, width: int) -> Any:
    """The columns of a window in a block."""
    first = window * width
    return pl.ds(first if isinstance(first, int) else pl.multiple_of(first, LANES), width)


def window_of(refs: tuple[Any, ...], operand: int, window: Any, layout: HeadLayout) -> tuple[Any, Any]:
    """(ref, columns) of a window of query, key or value. refs: one block with all three, or one block each."""
    if len(refs) == 1:
        return refs[0], window_lanes(operand * layout.count + window, layout.width)
    return refs[operand], window_lanes(window, layout.width)
