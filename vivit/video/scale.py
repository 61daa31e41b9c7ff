"""Resizes planes of bytes like Pillow and torchvision (with antialias), at FFmpeg's speed.

A pixel of the result is the mean of the source pixels, weighted by a triangle. Beyond the edge, FFmpeg repeats the
outermost pixel, whereas Pillow and torchvision, which checkpoints were trained with, renormalise the weights. This
differs in the outermost pixels of a frame that shrinks, so those are computed by Pillow.
"""

from functools import lru_cache
from math import ceil

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter
from PIL import Image

SMALLEST = 8  # pixels along a side: below, FFmpeg's result differs


def pixels(plane: VideoPlane) -> np.ndarray:
    """Returns a plane of one byte per pixel as uint8[height width], without a copy."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def scaled(
    planes: list[np.ndarray], height: int, width: int, reformatter: VideoReformatter, *, rows: bool, columns: bool
) -> list[np.ndarray]:
    """Returns every plane as uint8[height width]: Image.resize(…, BILINEAR) of Pillow within one level, two in noise.

    planes: uint8[h w], all of one size. reformatter: caches FFmpeg's scaling tables. rows, columns: whether the first
    and the last row or column must agree with Pillow too; otherwise FFmpeg's are kept.
    """
    if min(*planes[0].shape, height, width) < SMALLEST:
        small = [Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR) for plane in planes]
        return [np.asarray(plane) for plane in small]
    frame = av.VideoFrame.from_dlpack(planes, "yuv444p")  # three planes, scaled independently
    frame = reformatter.reformat(frame, width, height, "yuv444p", interpolation="BILINEAR", threads=1)
    results = [pixels(plane) for plane in frame.planes]
    if rows:
        _replace_ends(results, planes)
    if columns:
        _replace_ends([result.T for result in results], [plane.T for plane in planes])
    return results


def _replace_ends(results: list[np.ndarray], planes: list[np.ndarray]) -> None:
    """Recomputes the first and the last row of every result with Pillow's weights, if the number of rows shrinks."""
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
    """Returns the weights of the first source rows in the first row of the result, float32[n]."""
    reach = before / after
    centres = np.arange(min(before, ceil(1.5 * reach))) + 0.5
    weights = np.maximum(0, 1 - abs(centres - reach / 2) / reach)
    return (weights / weights.sum()).astype(np.float32)
