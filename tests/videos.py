"""Small files for the tests of decoding: videos with a known image in every frame, and files without video."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from bench.harness import own_priority
from vivit.video.h264 import _BitReader, _SequenceParameters


def write_video(path: Path, frames: int, *, height: int = 48, width: int = 64) -> None:
    """Writes a lossless video whose frame i is grey: 8·i in the left half, 255 − 8·i in the right."""
    pictures = np.empty((frames, height, width), np.uint8)
    pictures[:, :, : width // 2] = 8 * np.arange(frames)[:, None, None]
    pictures[:, :, width // 2 :] = 255 - pictures[:, :, :1]
    encode(path, pictures, Coding("ffv1", "gray"))


def write_audio(path: Path) -> None:
    """Writes a tenth of a second of silence without video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@dataclass(frozen=True)
class Coding:
    """Options of writing a stream. stamps: of the frames, in 1/100 s; None: 25 per second. rotation: degrees, mirrored.

    container: options of the file; only those of the first stream are used.
    """

    codec: str = "libx264"
    pixels: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    stamps: Sequence[int] | None = None
    rotation: tuple[float, bool] | None = None
    aspect: Fraction | None = None
    container: dict[str, str] = field(default_factory=dict)


def scene(frames: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """uint8[frames height width 3]: a bright box on smooth noise; every frame is different."""
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
    """Encodes images, uint8[frames height width 3] or grey without colors. second: an additional, better stream."""
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


def copy(source: Path, target: Path, keep: Callable[[int], bool]) -> None:
    """Copies a video; keep: selects packets by their numbers."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0], opaque=True)
        for number, packet in enumerate(reader.demux(video=0)):
            if packet.size and keep(number):
                packet.stream = stream
                writer.mux(packet)


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


def without_reordering(path: Path, parts: Sequence[np.ndarray], codings: Sequence[Coding]) -> None:
    """Writes h264 streams one after another into a transport stream, without their declared reordering delay."""
    with av.open(str(path), "w") as container:
        target, count, shown = container.add_stream("libx264", rate=25, options={"x264-params": "annexb=1"}), 0, 0
        target.height, target.width = parts[0].shape[1:3]
        target.pix_fmt = "yuv420p"
        for pictures, coding in zip(parts, codings, strict=True):
            encoder = av.CodecContext.create(coding.codec, "w")
            encoder.height, encoder.width = pictures.shape[1:3]
            encoder.pix_fmt, encoder.time_base, encoder.options = coding.pixels, Fraction(1, 25), coding.options
            frames = [av.VideoFrame.from_ndarray(picture) for picture in pictures]
            for number, frame in enumerate(frames):
                frame.pts, frame.time_base = number, Fraction(1, 25)
            for packet in [packet for frame in [*frames, None] for packet in encoder.encode(frame)]:
                copy = av.Packet(_without_usability(bytes(packet)))
                copy.pts, copy.dts, copy.time_base = packet.pts + shown + 3, count, Fraction(1, 25)
                copy.is_keyframe, copy.stream = packet.is_keyframe, target
                container.mux(copy)
                count += 1
            shown += len(pictures)


def _without_usability(data: bytes) -> bytes:
    """Removes the optional end of a packet's sequence parameter set (VUI, "usability information")."""
    begin = data.find(b"\0\0\1\x67") + 3
    if begin < 3:
        return data
    end = data.find(b"\0\0\1", begin)
    payload = data[begin + 1 : end].replace(b"\0\0\3", b"\0\0")
    bits = _BitReader(memoryview(payload))
    _SequenceParameters(bits)
    bits.skip_codes(2)  # the size
    bits.read(1 if bits.read(1) else 2)  # pictures, not fields; how motion is derived
    bits.skip_codes(4 if bits.read(1) else 0)  # what is cut off
    used = 8 * len(payload) - bits._left
    ended = f"{int.from_bytes(payload, 'big'):0{8 * len(payload)}b}"[:used] + "01"
    ended += "0" * (-len(ended) % 8)
    unit = int(ended, 2).to_bytes(len(ended) // 8, "big")
    for place in reversed(
        [place for place in range(2, len(unit)) if unit[place - 2 : place] == b"\0\0" and unit[place] < 4]
    ):
        unit = unit[:place] + b"\3" + unit[place:]
    return data[: begin + 1] + unit + data[end - 1 if data[end - 1] == 0 else end :]
