"""Reads one clip of a video file: frames at a stride, in the size of a model. decode.py decodes them."""

from functools import partial
from pathlib import Path

import numpy as np

from vivit.files.paths import as_path
from vivit.memory import check_memory
from vivit.reference.values import MAX_COUNT, is_count, quoted
from vivit.video.container import Limits, check_unchanged
from vivit.video.crops import cover
from vivit.video.decode import ShortVideoError, read_frames


def read_clip(
    path: str | Path,
    *,
    frames: int = 32,
    height: int = 224,
    width: int = 224,
    stride: int = 2,
    start: int = 0,
    resize: int | tuple[int, int] | None = None,
    limits: Limits | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Returns the frames start, start + stride, … of a video file, uint8[frames height width 3].

    Frame i is the frame displayed at the i-th presentation timestamp if packets have timestamps (h264, hevc, vp9, av1
    and intra-only codecs, except in AVI), otherwise the i-th frame that decoding from the start gives. Declared lengths
    are ignored. A damaged frame is replaced by the frame before it, with a warning. Frames are rotated upright, scaled
    to cover height x width, and cropped to their centre. As few frames as possible are decoded.
    resize: length of the shorter side, or (height, width), before the crop; sizes that do not cover the crop are
    increased. Pixel aspect ratios are ignored, as in other loaders. limits: on the resources that the file may use;
    None: Limits(). threads: of the decoder, 0: one per core; the pixels do not depend on it.

    Raises a one-line ValueError that names the file if it cannot be read as a video, is a playlist, has no video
    stream, has frames beyond the limits, is truncated or has too few frames, or if a size is not positive.
    """
    for name, value, least in (
        ("frames", frames, 1),
        ("height", height, 1),
        ("width", width, 1),
        ("stride", stride, 1),
        ("start", start, 0),
        ("threads", threads, 0),
    ):
        if not is_count(value, least):
            raise ValueError(f"{name} is {quoted(value)}: it must be at least {least}, and at most {MAX_COUNT}")
    path, limits = as_path(path), limits or Limits()
    check_memory(f"{frames} frames of {height}x{width}", 3 * frames * height * width, limits.memory)
    needed = start + (frames - 1) * stride + 1
    try:
        with check_unchanged(path):
            return read_frames(
                path,
                range(start, needed, stride),
                fit=partial(cover, tall=height, wide=width, resize=resize),
                limits=limits,
                threads=threads,
            )
    except ShortVideoError as error:
        raise ValueError(
            f"{path} has {error.frames} frames: {frames} frames at stride {stride} from frame {start} on need {needed}"
        ) from None


def demo_video() -> Path:
    """Returns a clip of Big Buck Bunny in the package, 132 frames of 640x360 at 25 per second; see README.md."""
    return Path(__file__).with_name("bigbuckbunny.mp4")
