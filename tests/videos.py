"""Small files for the tests of decoding: videos with a known picture in every frame, awkward ones, and no videos."""

import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition


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
    """How a stream is written. stamps: of the frames, in 1/100 s; None: 25 a second. rotation: degrees, mirrored."""

    codec: str = "libx264"
    pixels: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    stamps: Sequence[int] | None = None
    rotation: tuple[float, bool] | None = None


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
    with av.open(str(path), "w") as container:
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


def patch(path: Path, offset: int, data: bytes) -> None:
    """Overwrites bytes of a file."""
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(data)] = data
    path.write_bytes(whole)


def _uneven(frames: int) -> list[int]:
    """Stamps with gaps of 1 to 30 hundredths."""
    return np.cumsum(np.random.default_rng(5).integers(1, 31, frames)).tolist()


def _x264(**options: str) -> Coding:
    return Coding(options={"g": "8", "bf": "3", "x264-params": "scenecut=0", **options})


def _declares_444(path: Path) -> None:
    """An AVI whose headers claim 444 frames; it has 20."""
    encode(path, scene(20), Coding("mpeg4", options={"bf": "0", "g": "8"}))
    whole = path.read_bytes()
    patch(path, whole.index(b"avih") + 8 + 16, struct.pack("<I", 444))
    patch(path, whole.index(b"strh") + 8 + 32, struct.pack("<I", 444))


def _lies_about_its_length(path: Path) -> None:
    """An MP4 whose headers claim a hundredth of its length."""
    encode(path, scene(20), _x264())
    whole = path.read_bytes()
    for box in re.finditer(b"mvhd|mdhd", whole):
        place = box.start() + 4 + 16
        patch(path, place, struct.pack(">I", struct.unpack_from(">I", whole, place)[0] // 100))


def _starts_between_keyframes(path: Path) -> None:
    """A transport stream from which the first keyframe was cut off."""
    whole = path.with_suffix(".whole.ts")
    encode(whole, scene(30), _x264())
    with av.open(str(whole)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for count, packet in enumerate(source.demux(video=0)):
            if count >= 3 and packet.size:
                packet.stream = stream
                container.mux(packet)
    whole.unlink()


AWKWARD: dict[str, tuple[str, Callable[[Path], None]]] = {  # the name says what is awkward; suffix; writer
    "variable_frame_rate": (
        "mp4",
        lambda path: encode(path, scene(40), Coding(options={"g": "8", "bf": "2"}, stamps=_uneven(40))),
    ),
    "b_frames_in_avi": ("avi", lambda path: encode(path, scene(30), Coding("mpeg4", options={"bf": "2", "g": "9"}))),
    "h264_b_frames_in_avi": ("avi", lambda path: encode(path, scene(30), _x264())),
    "one_keyframe": ("mp4", lambda path: encode(path, scene(60), _x264(g="1000"))),
    "declares_444_frames": ("avi", _declares_444),
    "declares_a_hundredth": ("mp4", _lies_about_its_length),
    "two_video_streams": ("mkv", lambda path: encode(path, scene(10, 32, 32), _x264(), (scene(25, seed=1), _x264()))),
    "turned_90": ("mp4", lambda path: encode(path, scene(20), Coding(rotation=(90, False)))),
    "turned_180": ("mp4", lambda path: encode(path, scene(20), Coding(rotation=(180, False)))),
    "turned_270": ("mp4", lambda path: encode(path, scene(20), Coding(rotation=(-90, False)))),
    "mirrored": ("mp4", lambda path: encode(path, scene(20), Coding(rotation=(0, True)))),
    "one_frame": ("mp4", lambda path: encode(path, scene(1), _x264())),
    "odd_sizes": ("mkv", lambda path: encode(path, scene(12, 47, 63), Coding(pixels="yuv444p", options={"g": "4"}))),
    "grey": ("mkv", lambda path: encode(path, scene(12)[..., 0], Coding("ffv1", "gray"))),
    "ten_bit": ("mkv", lambda path: encode(path, scene(12), Coding("ffv1", "yuv420p10le"))),
    "ten_bit_hevc": (
        "mp4",
        lambda path: encode(
            path,
            scene(30),
            Coding("libx265", "yuv420p10le", {"x265-params": "keyint=8:bframes=3:open-gop=1:log-level=none"}),
        ),
    ),
    "open_groups_of_pictures": (
        "mkv",
        lambda path: encode(path, scene(40), _x264(**{"x264-params": "open-gop=1:scenecut=0"})),
    ),
    "no_keyframes_but_refresh": (
        "mkv",
        lambda path: encode(path, scene(60), _x264(**{"x264-params": "intra-refresh=1:scenecut=0"})),
    ),
    "refresh_in_a_transport_stream": (
        "ts",
        lambda path: encode(path, scene(60), _x264(**{"x264-params": "intra-refresh=1:scenecut=0"})),
    ),
    "transport_stream": ("ts", lambda path: encode(path, scene(40), _x264())),
    "starts_between_keyframes": ("ts", _starts_between_keyframes),
    "starts_before_zero": (
        "mp4",
        lambda path: encode(path, scene(40), Coding(options={"g": "8", "bf": "2"}, stamps=range(-44, 116, 4))),
    ),
    "hidden_frames_vp8": (
        "webm",
        lambda path: encode(
            path, scene(40), Coding("libvpx", options={"g": "16", "auto-alt-ref": "1", "lag-in-frames": "12"})
        ),
    ),
    "hidden_frames_vp9": (
        "webm",
        lambda path: encode(
            path,
            scene(40),
            Coding("libvpx-vp9", options={"g": "16", "auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "8"}),
        ),
    ),
    "av1": (
        "mp4",
        lambda path: encode(path, scene(40, 64, 64), Coding("libsvtav1", options={"g": "16", "preset": "12"})),
    ),
    "keyframes_only": ("avi", lambda path: encode(path, scene(12), Coding("mjpeg", "yuvj420p"))),
    "no_stamps_at_all": ("h264", lambda path: encode(path, scene(20), _x264())),
    "old_codec": ("avi", lambda path: encode(path, scene(20), Coding("msmpeg4"))),
    "palette": ("gif", lambda path: encode(path, scene(10), Coding("gif", "rgb8"))),
}
