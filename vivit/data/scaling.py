"""Planes of bytes brought to another size as Pillow and torchvision (with antialias) do it, at FFmpeg's speed.

A pixel of the result is the mean of the old ones under a triangle. Where the triangle leaves the picture, FFmpeg
repeats the outermost pixel, but Pillow and torchvision, with which checkpoints were trained, weigh what is there. That
differs in the outermost pixels of a picture that shrinks: Pillow makes those.
"""

from functools import lru_cache
from math import ceil

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter
from PIL import Image

SMALLEST = 8  # pixels along a side: of fewer FFmpeg makes other pictures


def pixels(plane: VideoPlane) -> np.ndarray:
    """uint8[height width]: a plane of one byte a pixel, not copied."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def scaled(
    planes: list[np.ndarray], height: int, width: int, reformatter: VideoReformatter, *, rows: bool, columns: bool
) -> list[np.ndarray]:
    """uint8[height width] of every plane: Pillow's Image.resize(…, BILINEAR) to a level, to two where all is noise.

    planes: uint8[h w], all of one size. reformatter: keeps the tables of the scaling. rows, columns: whether the first
    and the last of them are needed; where they are not, they may be as FFmpeg makes them.
    """
    if min(*planes[0].shape, height, width) < SMALLEST:
        small = [Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR) for plane in planes]
        return [np.asarray(plane) for plane in small]
    frame = av.VideoFrame.from_dlpack(planes, "yuv444p")  # scaled as they are, each for itself
    frame = reformatter.reformat(frame, width, height, "yuv444p", interpolation="BILINEAR", threads=1)
    results = [pixels(plane) for plane in frame.planes]
    if rows:
        _replace_ends(results, planes)
    if columns:
        _replace_ends([result.T for result in results], [plane.T for plane in planes])
    return results


def _replace_ends(results: list[np.ndarray], planes: list[np.ndarray]) -> None:
    """The first and the last row of every result are made anew, if there are fewer rows than before."""
    (before, _), (after, along) = planes[0].shape, results[0].shape
    if before <= after:
        return
    weights = _end_weights(before, after)
    count = len(weights)
    strips = np.empty((2 * len(planes), count, planes[0].shape[1]), np.float32)
    for index, plane in enumerate(planes):
        strips[2 * index], strips[2 * index + 1] = plane[:count], plane[: -count - 1 : -1]
    ends = Image.fromarray(weights @ strips).resize((along, len(strips)), Image.Resampling.BILINEAR)
    for index, row in enumerate(np.rint(np.asarray(ends)).astype(np.uint8)):
        results[index // 2][-(index % 2)] = row


@lru_cache
def _end_weights(before: int, after: int) -> np.ndarray:
    """float32[n]: how much each of the first rows counts in the first row of the result."""
    reach = before / after
    places = np.arange(min(before, ceil(1.5 * reach))) + 0.5
    weights = np.maximum(0, 1 - abs(places - reach / 2) / reach)
    return (weights / weights.sum()).astype(np.float32)
