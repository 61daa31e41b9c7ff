"""Where pictures are scaled and cut: covering a size, and the crops along the side that has more to spare."""

import numpy as np

from vivit.data.pictures import Placement

VIEWS = (4, 3)  # of the paper: four clips in time, of each three crops


def as_stored(height: int, width: int) -> Placement:
    """A picture in its own size, whole."""
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
    """A picture of height x width scaled until it covers tall x wide, and what of it is kept.

    resize: scale the shorter side to this length, or the picture to (height, width), at least so far that it covers.
    crops: how many windows of tall x wide `corners` will cut, what they do not need is cut off; None: nothing is.
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


def corners(tall: int, wide: int, count: int, *, height: int, width: int) -> list[tuple[int, int]]:
    """(top, left) of `count` windows of height x width in a picture of tall x wide.

    They are spread evenly along the longer side, from end to end; one is the centre.
    Raises ValueError if the picture is smaller than the windows.
    Source: Arnab et al. 2021, section 4.1, three spatial crops of each temporal view.
    """
    if tall < height or wide < width:
        raise ValueError(f"pictures are {wide}x{tall}: they must be at least {width}x{height} to be cut")
    spread = [0.5] if count == 1 else np.linspace(0, 1, count).tolist()
    down, along = tall - height, wide - width
    if down > along:
        return [(int(down * part), int(along * 0.5)) for part in spread]
    return [(int(down * 0.5), int(along * part)) for part in spread]


def windows(frames: np.ndarray, rows: np.ndarray, count: int, *, height: int, width: int) -> np.ndarray:
    """Clips cut `count` times each, at `corners`: [views·count n height width 3]. Each pixel is copied once.

    frames: [f tall wide 3]. rows: int[views n], which of the frames each clip is made of. Raises ValueError as corners.
    """
    _, tall, wide, colors = frames.shape
    places = corners(tall, wide, count, height=height, width=width)
    views, length = rows.shape
    video = np.empty((views, count, length, height, width, colors), frames.dtype)
    for view, row in zip(video, rows.tolist(), strict=True):
        for window, (top, left) in zip(view, places, strict=True):
            for picture, index in zip(window, row, strict=True):
                picture[:] = frames[index, top : top + height, left : left + width]
    return video.reshape(views * count, length, height, width, colors)
