"""Where pictures are scaled and cut: covering a size, to a shorter side, and the crops along the longer side."""

import numpy as np

from vivit.data.pictures import Placement


def as_stored(height: int, width: int) -> Placement:
    """A picture in its own size, whole."""
    return Placement(height, width, 0, 0, height, width)


def cover(
    height: int, width: int, *, tall: int, wide: int, resize: int | tuple[int, int] | None = None, whole: bool = False
) -> Placement:
    """A picture of height x width scaled until it covers tall x wide, and its centre cut out, unless kept whole.

    resize: scale the shorter side to this length, or the picture to (height, width), at least so far that it covers.
    """
    scale = max(tall / height, wide / width)
    if resize is not None and not isinstance(resize, tuple):
        scale = max(scale, resize / min(height, width))
    height, width = resize if isinstance(resize, tuple) else (round(height * scale), round(width * scale))
    height, width = max(tall, height), max(wide, width)
    if whole:
        return as_stored(height, width)
    return Placement(height, width, (height - tall) // 2, (width - wide) // 2, tall, wide)


def shorter_side(height: int, width: int, *, length: int) -> Placement:
    """A picture of height x width scaled until its shorter side is `length`, whole."""
    scale = length / min(height, width)
    return as_stored(max(length, round(height * scale)), max(length, round(width * scale)))


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
