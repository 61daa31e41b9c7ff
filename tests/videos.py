"""Small files for the tests of decoding: videos with a known picture in every frame, and files without any."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from bench.harness import own_priority


def write_video(path: Path, frames: int, *, height: int = 48, width: int = 64) -> None:
    """A lossless video whose frame i is grey, 8·i at the left half and 255 − 8·i at the right."""
    pictures = np.empty((frames, height, width), np.uint8)
    pictures[:, :, : width // 2] = 8 * np.arange(frames)[:, None, None]
    pictures[:, :, width // 2 :] = 255 - pictures[:, :, :1]
    encode(path, pictures, Coding("ffv1", "gray"))


def write_audio(path: Path) -> None:
    """A tenth of a second of silence, and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@dataclass(frozen=True)
class Coding:
    """How a stream is written. stamps: of the frames, in 1/100 s; None: 25 a second. rotation: degrees, mirrored.

    container: options of the file; those of the first stream count.
    """

    codec: str = "libx264"
    pixels: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    stamps: Sequence[int] | None = None
    rotation: tuple[float, bool] | None = None
    aspect: Fraction | None = None
    container: dict[str, str] = field(default_factory=dict)


def scene(frames: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """uint8[frames height width 3]: a bright box on smooth noise, every frame unlike every other."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 160, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    background = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
    clip = np.stack([np.roll(background, index, 1)[:height, :width] for index in range(frames)])
    for index in range(frames):
        top, left = 3 * index % (height - 8), 5 * index % (width - 8)
        clip[index, top : top + 8, left : left + 8] = (255, 40 + 7 * index % 200, 20)
    return clip


def encode(
    path: Path,
    pictures: np.ndarray,
    coding: Coding,
    second: tuple[np.ndarray, Coding] | None = None,
    title: str = "",
) -> None:
    """Writes pictures, uint8[frames height width 3] or grey without colors. second: another and better stream."""
    with own_priority(), av.open(str(path), "w", options=coding.container) as container:
        parts = [(pictures, coding), *filter(None, [second])]
        streams = [_stream(container, each, how) for each, how in parts]
        for stream in streams:
            stream.disposition = Disposition.default if stream is streams[-1] else Disposition(0)
        container.metadata["title"] = title
        container.start_encoding()
        for (each, how), stream in zip(parts, streams, strict=True):
            for packet in _packets(each, how, stream):
                container.mux(packet)


def _stream(container, pictures: np.ndarray, coding: Coding):
    stream = container.add_stream(coding.codec, rate=25, options=coding.options)
    stream.height, stream.width = pictures.shape[1:3]
    stream.pix_fmt = coding.pixels
    if coding.stamps is not None:
        stream.codec_context.time_base = Fraction(1, 100)
    if coding.aspect is not None:
        stream.codec_context.sample_aspect_ratio = coding.aspect
    if coding.rotation is not None:
        stream.set_display_rotation(coding.rotation[0], hflip=coding.rotation[1])
    return stream


def _packets(pictures: np.ndarray, coding: Coding, stream) -> Iterable[av.Packet]:
    for index, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24" if picture.ndim == 3 else "gray")
        if coding.stamps is not None:
            frame.pts, frame.time_base = coding.stamps[index], Fraction(1, 100)
        yield from stream.encode(frame)
    yield from stream.encode(None)
