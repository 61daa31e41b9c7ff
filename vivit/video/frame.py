"""Converts decoded frames to upright RGB pixels of a given size: color conversion, scaling, rotation, cropping.

crops.py computes the `Placement`. Other threads convert frames while the next ones are decoded; FFmpeg does both
without holding Python's lock.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vivit.memory import check_memory
from vivit.video.container import Limits
from vivit.video.scale import pixels, scaled


class Placement(NamedTuple):
    """A frame is scaled to height x width, then cropped to tall x wide pixels at (top, left)."""

    height: int
    width: int
    top: int
    left: int
    tall: int
    wide: int


def check_pictures(name: str, placement: Placement, count: int, limits: Limits) -> None:
    """Raises ValueError, naming the video, if `count` cropped frames and one uncropped exceed the memory limit."""
    height, width = placement.height, placement.width
    needed = 3 * (height * width + count * placement.tall * placement.wide)
    check_memory(f"{name}: {count:,} frames, scaled to {width}x{height} and cropped,", needed, limits.memory)


Fit = Callable[[int, int], Placement]  # from the upright (height, width) of a frame


@dataclass(frozen=True)
class Reformatters:
    """FFmpeg's converters, which cache their tables between frames of one size; for one thread only."""

    colors: VideoReformatter = field(default_factory=VideoReformatter)
    sizes: VideoReformatter = field(default_factory=VideoReformatter)


class Orientation(NamedTuple):
    """How stored pixels become upright: transposed first, then flipped."""

    transposed: bool
    flip_rows: bool
    flip_columns: bool


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Returns the orientation from the frame's display matrix, rounded to quarter turns, with or without mirroring."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation(False, False, False)
    # (x, y) is displayed at (a·x + c·y, b·x + d·y)
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(data), np.int32)[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, flip_rows=d < 0, flip_columns=a < 0)
    return Orientation(True, flip_rows=b < 0, flip_columns=c < 0)


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Returns the (height, width) of the frame as displayed."""
    return (frame.width, frame.height) if orientation_of(frame).transposed else (frame.height, frame.width)


def fill(picture: np.ndarray, frame: av.VideoFrame, placement: Placement, reformatters: Reformatters) -> None:
    """Writes the converted, upright frame to picture, uint8[tall wide 3]. Ignores pixel aspect ratios.

    The frame is converted to RGB before scaling, so that colors out of range are clipped before they are mixed, as in
    other software. FFmpeg repeats the chroma samples of 8-bit 4:2:0 and 4:2:2 frames (interpolating takes nine times as
    long) and interpolates those of higher bit depths.
    """
    orientation = orientation_of(frame)
    height, width, top, left, tall, wide = placement
    rows, columns = top == 0 or top + tall == height, left == 0 or left + wide == width  # whether edges are kept
    if orientation.transposed:
        height, width, rows, columns = width, height, columns, rows
    planes = [pixels(plane) for plane in reformatters.colors.reformat(frame, format="gbrp", threads=1).planes]
    if (height, width) != planes[0].shape:
        planes = scaled(planes, height, width, reformatters.sizes, rows=rows, columns=columns)
    for plane, color in zip(planes, (1, 2, 0), strict=True):
        picture[..., color] = _window(plane, orientation, placement)


def _window(plane: np.ndarray, orientation: Orientation, placement: Placement) -> np.ndarray:
    """Returns the upright crop of a plane, uint8[tall wide], as a view."""
    upright = plane.T if orientation.transposed else plane
    upright = upright[:: -1 if orientation.flip_rows else 1, :: -1 if orientation.flip_columns else 1]
    top, left = placement.top, placement.left
    return upright[top : top + placement.tall, left : left + placement.wide]


MAX_THREADS = 8  # scaling a frame takes about as long as decoding it
SMALL = 200_000  # pixels before plus after scaling: below, scaling is faster than passing the frame to a thread
MAX_WAITING = 2  # frames per thread that may wait in memory


def convert(
    coming: Iterable[tuple[int, av.VideoFrame]], pictures: np.ndarray, placement: Placement, *, threads: int
) -> None:
    """Converts the frames in coming, (row, frame) in any order, into pictures, uint8[f tall wide 3]. A row may repeat.

    threads: in addition to the caller's, which decodes; 0: one per core. Raises the exceptions of `coming` and FFmpeg.
    """
    threads = min(MAX_THREADS, threads or os.cpu_count() or 1)
    local = threading.local()

    def one(row: int, frame: av.VideoFrame) -> None:
        if not hasattr(local, "reformatters"):
            local.reformatters = Reformatters()
        fill(pictures[row], frame, placement, local.reformatters)

    waiting: deque[Future[None]] = deque()
    last = -1
    with ThreadPoolExecutor(threads, thread_name_prefix="vivit-convert") as pool:
        for row, frame in coming:
            small = frame.height * frame.width + placement.height * placement.width < SMALL
            # a repeated row must overwrite the earlier frame: wait until that is written
            room = 0 if small or row <= last else MAX_WAITING * threads - 1
            while len(waiting) > room:
                waiting.popleft().result()
            if small:
                one(row, frame)
            else:
                waiting.append(pool.submit(one, row, frame))
            last = row
        for future in waiting:
            future.result()
