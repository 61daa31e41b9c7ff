"""From one decoded frame to upright RGB pixels of the size needed: scaled while converted, turned, cut.

Where pictures are cut for training and evaluation is decided in views.py; a `Placement` says it.
"""

from collections.abc import Callable
from typing import NamedTuple

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter


class Placement(NamedTuple):
    """A picture is scaled to height x width; the window of tall x wide at (top, left) is kept."""

    height: int
    width: int
    top: int
    left: int
    tall: int
    wide: int


Fit = Callable[[int, int], Placement]  # from the upright height and width of a picture


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


def fill(picture: np.ndarray, frame: av.VideoFrame, placement: Placement, reformatter: VideoReformatter) -> None:
    """Fills uint8[tall wide 3] with the converted frame, upright. Aspect ratios of pixels are ignored.

    Scaling weighs with a triangle that is as wide as a pixel of the result. reformatter: one for all frames of a video
    (but for one thread only); it keeps the tables of the scaling.
    """
    height, width = placement.height, placement.width
    turn = turn_of(frame)
    across, down = (height, width) if turn.transposed else (width, height)
    # scaled to packed pixels, colors would be at half the resolution where the width is even, and take longer
    kind = "rgb24" if (across, down) == (frame.width, frame.height) else "gbrp"
    scaled = reformatter.reformat(frame, across, down, kind, interpolation="BILINEAR", threads=1)
    if kind == "rgb24":
        picture[:] = _window(scaled.planes[0], across, down, 3, turn, placement)
        return
    for plane, color in zip(scaled.planes, (1, 2, 0), strict=True):
        picture[..., color] = _window(plane, across, down, 1, turn, placement)[..., 0]


def _window(plane: VideoPlane, across: int, down: int, colors: int, turn: Turn, placement: Placement) -> np.ndarray:
    """uint8[tall wide colors]: what is kept of a plane, a view."""
    stored = np.frombuffer(memoryview(plane), np.uint8).reshape(down, plane.line_size)
    pixels = stored[:, : across * colors].reshape(down, across, colors)
    if turn.transposed:
        pixels = pixels.transpose(1, 0, 2)
    pixels = pixels[:: -1 if turn.flip_rows else 1, :: -1 if turn.flip_columns else 1]
    top, left = placement.top, placement.left
    return pixels[top : top + placement.tall, left : left + placement.wide]
