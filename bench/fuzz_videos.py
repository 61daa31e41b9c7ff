"""Damaged copies of real videos for fuzz.py, decoded: the films of bench/film.py in several containers and codecs."""

import os
from functools import partial
from itertools import islice
from pathlib import Path
from typing import cast

import av
import numpy as np

from bench.film import films
from bench.harness import own_priority
from vivit.video.container import Limits
from vivit.video.crops import cover
from vivit.video.decode import read_frames
from vivit.video.index import probe

LIMITS = Limits(pixels=4096 * 2160)
COPIED: dict[str, tuple[str, dict[str, str]]] = {  # suffix, and options of the container
    "copied": ("mp4", {}),
    "fragments": ("mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "matroska": ("mkv", {}),
    "transport": ("ts", {}),
    "flash": ("flv", {}),
    "units": ("h264", {}),
}
ENCODED: dict[str, tuple[str, str, str, dict[str, str], dict[str, str]]] = {  # …, codec, pixels, its options, …
    "mpeg4": ("avi", "mpeg4", "yuv420p", {"bf": "2"}, {}),
    "vp9": ("webm", "libvpx-vp9", "yuv420p", {"cpu-used": "8"}, {}),
    "live": ("webm", "libvpx", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}, {"live": "1"}),
    "hevc": ("mov", "libx265", "yuv420p", {"x265-params": "log-level=none"}, {}),
    "mpeg2": ("mpg", "mpeg2video", "yuv420p", {"bf": "2"}, {}),
    "av1": ("mp4", "libsvtav1", "yuv420p", {"preset": "12"}, {}),
    "palette": ("gif", "gif", "rgb8", {}, {}),
    "png": ("apng", "apng", "rgb24", {}, {}),
    "jpegs": ("mjpeg", "mjpeg", "yuvj420p", {}, {}),
    "raw": ("y4m", "rawvideo", "yuv420p", {}, {}),
}
EXTREMES = (b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\xff\xff", b"\x80\x00\x00\x00")
FRAMES = 60  # of a file


def prepare(folder: Path) -> None:
    """Writes shortened real files: all in several containers, and one small file in other codecs."""
    os.environ.setdefault("SVT_LOG", "1")  # its encoder tells of nothing but errors
    for source in films().values():
        for name in COPIED:
            _copy(source, folder, name)
    for name in ENCODED:
        _encode(films()["bikes.mp4"], folder, name)


def _copy(source: Path, folder: Path, name: str) -> None:
    suffix, options = COPIED[name]
    target = folder / f"seed-{source.stem}-{name}.{suffix}"
    with av.open(str(source)) as reader, av.open(str(target), "w", options=options) as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in islice(reader.demux(reader.streams.video[0]), FRAMES):
            if packet.size:
                packet.stream = stream
                writer.mux(packet)


def _encode(source: Path, folder: Path, name: str) -> None:
    suffix, codec, pixels, options, container = ENCODED[name]
    target = folder / f"seed-{source.stem}-{name}.{suffix}"
    with own_priority(), av.open(str(source)) as reader, av.open(str(target), "w", options=container) as writer:
        stream = cast(av.VideoStream, writer.add_stream(codec, rate=25, options=options))
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        for frame in islice(reader.decode(reader.streams.video[0]), FRAMES):
            small = frame.to_ndarray(format="rgb24", width=96, height=64)
            writer.mux(stream.encode(av.VideoFrame.from_ndarray(small)))
        writer.mux(stream.encode(None))


def case(folder: Path, generator: np.random.Generator) -> str:
    """Returns "used", "refused" or "fault:" with a description."""
    seeds = sorted(folder.glob("seed-*"))
    which = seeds[int(generator.integers(len(seeds)))]
    path = folder / f"case{which.suffix}"
    path.write_bytes(damaged(which.read_bytes(), generator))
    fit, threads = partial(cover, tall=32, wide=32), int(generator.integers(1, 3))
    try:
        video = probe(path, limits=LIMITS, threads=threads)
        indices = np.sort(generator.integers(0, len(video.stamps), 6))
        frames = read_frames(video, indices, fit=fit, limits=LIMITS, threads=threads)
        again = read_frames(path, indices[::-1], fit=fit, limits=LIMITS, threads=threads)
        twice = read_frames(video, indices, fit=fit, limits=LIMITS, threads=threads)
    except ValueError as error:
        text = str(error)
        return "refused" if str(path) in text and "\n" not in text else f"fault:says {text!r}"
    except BaseException as error:
        return f"fault:{type(error).__name__}: {' '.join(str(error).split())}"
    if threads == 1 and not np.array_equal(frames, twice):
        return "fault:gives other pixels the second time"
    return "used" if frames.shape == again.shape == (6, 32, 32, 3) else f"fault:gives {frames.shape}"


def damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """Applies one to three kinds of damage; half of them at the ends of the file, where headers are."""
    data = bytearray(content)
    for _ in range(int(generator.integers(1, 4))):
        size = max(1, len(data))
        reach = size if generator.random() < 0.5 else min(size, 3000)
        places = generator.integers(0, reach, int(generator.integers(1, 30)))
        if generator.random() < 0.3:
            places = size - 1 - places
        kind = int(generator.integers(6))
        if kind == 0:
            for place in places[places < len(data)].tolist():
                data[place] ^= 1 << int(generator.integers(8))
        elif kind == 1:
            for place in places.tolist():
                data[place : place + 4] = EXTREMES[int(generator.integers(len(EXTREMES)))]
        elif kind == 2:
            del data[max(200, int(places[0])) :]
        elif kind == 3:
            data[int(places[0]) : int(places[0]) + 500] = generator.bytes(500)
        elif kind == 4:
            del data[int(places[0]) : int(places[0]) + int(generator.integers(1, 200))]
        else:
            start = int(places[0])
            data[start:start] = data[start : start + 1000]
    return bytes(data)
