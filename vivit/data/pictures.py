"""From one decoded frame to upright RGB pixels of the size needed: converted, scaled, turned, cut.

Where pictures are cut for training and evaluation is decided in views.py; a `Placement` says it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vivit.data.opening import Limits
from vivit.data.scaling import pixels, scaled
from vivit.memory import check_memory


class Placement(NamedTuple):
    """A picture is scaled to height x width; the window of tall x wide at (top, left) is kept."""

    height: int
    width: int
    top: int
    left: int
    tall: int
    wide: int


def check_pictures(name: str, placement: Placement, count: int, limits: Limits) -> None:
    """Raises ValueError, naming the video, if so many pictures, each scaled as a whole, would take too much memory."""
    height, width = placement.height, placement.width
    needed = 3 * (height * width + count * placement.tall * placement.wide)
    check_memory(f"{name}: {count:,} pictures, scaled to {width}x{height} and cut,", needed, limits.memory)


Fit = Callable[[int, int], Placement]  # from the upright height and width of a picture


@dataclass(frozen=True)
class Tables:
    """What FFmpeg keeps from picture to picture of a video; for one thread only."""

    colors: VideoReformatter = field(default_factory=VideoReformatter)
    sizes: VideoReformatter = field(default_factory=VideoReformatter)


class Turn(NamedTuple):
    """How stored pixels become upright: rows and columns change places first, then each may be reversed."""

    transposed: bool
    flip_rows: bool
    flip_columns: bool


def turn_of(frame: av.VideoFrame) -> Turn:
    """What the display matrix asks for, to the nearest quarter turn, mirrored or not."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Turn(False, False, False)
    # (x, y) is shown at (a·x + c·y, b·x + d·y)
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(data), np.int32)[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(False, flip_rows=d < 0, flip_columns=a < 0)
    return Turn(True, flip_rows=b < 0, flip_columns=c < 0)


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """(height, width) as the frame is to be shown."""
    return (frame.width, frame.height) if turn_of(frame).transposed else (frame.height, frame.width)


def fill(picture: np.ndarray, frame: av.VideoFrame, placement: Placement, tables: Tables) -> None:
    """Fills uint8[tall wide 3] with the converted frame, upright. Aspect ratios of pixels are ignored.

    The whole frame becomes RGB in its own size, so that colors outside of it are clipped before they are mixed, as in
    other software. FFmpeg repeats the colors of 4:2:0 and 4:2:2 at 8 bits for the pixels that share them (interpolating
    them takes nine times as long); those of deeper pictures it interpolates.
    """
    turn = turn_of(frame)
    height, width, top, left, tall, wide = placement
    rows, columns = top == 0 or top + tall == height, left == 0 or left + wide == width  # whether ends are kept
    if turn.transposed:
        height, width, rows, columns = width, height, columns, rows
    planes = [pixels(plane) for plane in tables.colors.reformat(frame, format="gbrp", threads=1).planes]
    if (height, width) != planes[0].shape:
        planes = scaled(planes, height, width, tables.sizes, rows=rows, columns=columns)
    for plane, color in zip(planes, (1, 2, 0), strict=True):
        picture[..., color] = _window(plane, turn, placement)


def _window(plane: np.ndarray, turn: Turn, placement: Placement) -> np.ndarray:
    """uint8[tall wide]: what is kept of a plane, a view."""
    upright = plane.T if turn.transposed else plane
    upright = upright[:: -1 if turn.flip_rows else 1, :: -1 if turn.flip_columns else 1]
    top, left = placement.top, placement.left
    return upright[top : top + placement.tall, left : left + placement.wide]
