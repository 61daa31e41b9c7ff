"""Computes how frames are scaled and cropped: to cover a size, and to spatial crops along the longer side."""

import numpy as np

from vivit.video.frame import Placement

VIEWS = (4, 3)  # temporal clips and spatial crops of each, as in the paper


def as_stored(height: int, width: int) -> Placement:
    """Returns the placement of an uncropped frame in its stored size."""
    return Placement(height, width, 0, 0, height, width)


def cover(
    height: int,
    width: int,
    *,
    tall: int,
    wide: int,
    resize: int | tuple[int, int] | None = None,
    crops: int | None = 1,
) -> Placement:
    """Returns the placement of a frame of height x width that is scaled to cover tall x wide, then cropped.

    resize: length of the shorter side, or (height, width), increased if needed to cover tall x wide; None: the smallest
    size that covers it. crops: the number of crops that `crop_corners` will take; the placement crops to the region
    that they need. None: no cropping.
    """
    scale = max(tall / height, wide / width)
    if resize is not None and not isinstance(resize, tuple):
        scale = max(scale, resize / min(height, width))
    height, width = resize if isinstance(resize, tuple) else (round(height * scale), round(width * scale))
    height, width = max(tall, height), max(wide, width)
    if crops is None:
        return as_stored(height, width)
    if crops > 1:
        tall, wide = (height, wide) if height - tall > width - wide else (tall, width)
    return Placement(height, width, (height - tall) // 2, (width - wide) // 2, tall, wide)


def crop_corners(tall: int, wide: int, count: int, *, height: int, width: int) -> list[tuple[int, int]]:
    """Returns (top, left) of `count` crops of height x width in a frame of tall x wide.

    Source: Arnab et al. 2021, section 4.1, three spatial crops of each temporal view. Crops are spaced evenly along the
    longer side, from end to end; a single crop is the centre. Raises ValueError if the frame is smaller than the crops.
    """
    if tall < height or wide < width:
        raise ValueError(f"pictures are {wide}x{tall}: they must be at least {width}x{height} to be cut")
    fractions = [0.5] if count == 1 else np.linspace(0, 1, count).tolist()
    rows, columns = tall - height, wide - width
    if rows > columns:
        return [(int(rows * fraction), int(columns * 0.5)) for fraction in fractions]
    return [(int(rows * 0.5), int(columns * fraction)) for fraction in fractions]


def crop_clips(frames: np.ndarray, rows: np.ndarray, count: int, *, height: int, width: int) -> np.ndarray:
    """Returns `count` crops of every clip, [clips·count n height width 3]. Copies every pixel once.

    frames: [f tall wide 3]. rows: int[clips n], indices of the frames of every clip. Raises ValueError as crop_corners.
    """
    _, tall, wide, colors = frames.shape
    corners = crop_corners(tall, wide, count, height=height, width=width)
    clips, length = rows.shape
    video = np.empty((clips, count, length, height, width, colors), frames.dtype)
    for clip, row in zip(video, rows.tolist(), strict=True):
        for crop, (top, left) in zip(clip, corners, strict=True):
            for frame, index in zip(crop, row, strict=True):
                frame[:] = frames[index, top : top + height, left : left + width]
    return video.reshape(clips * count, length, height, width, colors)
