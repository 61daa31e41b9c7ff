"""How heads lie in the 128 lanes of a TPU register.

A window is what a kernel takes at once: 128 lanes with as many heads as fit, or one head of a multiple of 128 channels.
Two heads of 64 fill a window; one is selected by zeroing the other's lanes in one operand, so nothing is ever shuffled.
Heads of other sizes (80, 96, 30) are padded with zero channels to the next size that fits, and heads are added until
they fill whole windows: copies around the kernel, but the same kernel.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

LANES = 128
_SIZES = (32, 64, 128)  # channels of a head that fill a window evenly


@dataclass(frozen=True)
class Windows:
    """The windows of one of query, key and value, or of a half of their heads."""

    count: int
    per: int  # heads in one window
    d: int  # lanes of one head
    scale: float  # 1 / √channels, of the head before it was padded

    @property
    def width(self) -> int:
        return self.per * self.d

    @property
    def channels(self) -> int:
        return self.count * self.width


def windows(c: int, heads: int, parts: int = 1) -> Windows:
    """The windows of `heads` heads in c channels, when they are cut into `parts` equal parts first."""
    real = c // heads
    d = next((size for size in _SIZES if real <= size), -(-real // LANES) * LANES)
    per = max(1, LANES // d)
    return Windows(-(-(heads // parts) // per), per, d, real**-0.5)


def fits(c: int, heads: int, parts: int = 1) -> bool:
    """Whether heads need no padding."""
    found = windows(c, heads, parts)
    return found.channels * parts == c and found.d * heads == c


def pad_heads(x: jax.Array, heads: int, groups: int, parts: int = 1) -> jax.Array:
    """[... groups·c] with each head's channels, and each part's heads, padded with zeros to whole windows."""
    *batch, fused = x.shape
    found = windows(fused // groups, heads, parts)
    split = x.reshape(*batch, groups, parts, heads // parts, fused // groups // heads)
    missing = [(0, 0)] * (len(batch) + 2) + [
        (0, found.count * found.per - split.shape[-2]),
        (0, found.d - split.shape[-1]),
    ]
    return jnp.pad(split, missing).reshape(*batch, groups * parts * found.channels)


def unpad_heads(x: jax.Array, c: int, heads: int, parts: int = 1) -> jax.Array:
    """The inverse of pad_heads for one group: [... c]."""
    *batch, _ = x.shape
    found = windows(c, heads, parts)
    split = x.reshape(*batch, parts, found.count * found.per, found.d)
    return split[..., : heads // parts, : c // heads].reshape(*batch, c)
