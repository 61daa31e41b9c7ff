"""`python -m bench decode`: times decoding the frames of a clip, next to PyAV alone.

PyAV's time is for decoding from the start to the last frame needed, at full size, with all cores, converting the clip's
frames to RGB. Our time includes scaling and cropping, and indexing the file for the views of an evaluation. The pixels
are compared with sequential decoding first. Rounds alternate; medians are printed. CPU seconds are summed over threads
and are more reliable than wall time on a busy machine.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from bench.film import by_pyav, films, write_film
from bench.harness import machine, parser, report
from vivit.cli.table import Table
from vivit.video import spec
from vivit.video.crops import cover, crop_corners
from vivit.video.decode import read_frames
from vivit.video.index import probe
from vivit.video.sampling import Sampling, even_clips
from vivit.video.views import load_views

FRAMES, STRIDE, SIZE = 32, 2, 224
VIEWS, CROPS, SHORTER_SIDE = 4, 3, 256
COLUMNS = (
    *("PyAV RGB", "PyAV decoding", "vivit 1 thread", "vivit all"),
    *("1 ÷ RGB", "all ÷ RGB", "all ÷ decoding", "CPU, 1 ÷ RGB", "CPU, 1 ÷ decoding"),
)


class Work(NamedTuple):
    """The frames to decode, and our decoder as a function of its number of threads."""

    indices: np.ndarray
    ours: Callable[[int], object]


def main(arguments: Sequence[str]) -> int:
    asked = parser("decode", __doc__, "video.mp4 --rounds 3")
    asked.add_argument("videos", nargs="*", type=Path, help="video files; default: those of bench/film.py")
    asked.add_argument("--rounds", type=int, default=7)
    options = asked.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for path in options.videos or _films(Path(folder)):
            for clip, work in _works(path):
                rows.append((path.name, clip, *_row(path, work, options.rounds)))
    title = f"{FRAMES} frames at stride {STRIDE}, to {SIZE}x{SIZE}: milliseconds, how many times PyAV's"
    report([Table(("video", "clip", *COLUMNS), rows, texts=2, title=title)], [machine()], options)
    return 0


def _films(folder: Path) -> list[Path]:
    target = folder / "ten-seconds-720p.mp4"
    write_film(target)
    return [*films().values(), target]


def _works(path: Path) -> list[tuple[str, Work]]:
    video, fit, span = probe(path), partial(cover, tall=SIZE, wide=SIZE), (FRAMES - 1) * STRIDE + 1
    length, works = len(video.stamps), []
    for where, start in (("first", 0), ("last", length - span)):
        indices = np.arange(start, start + span, STRIDE)
        if start >= 0:
            if not np.array_equal(read_frames(video, indices), np.stack(list(by_pyav(path, indices).values()))):
                raise ValueError(f"{path} gives other frames than sequential decoding")
            works.append((where, Work(indices, partial(_clip, video, indices, fit))))
    views = [clip.indices for clip in even_clips(Sampling(frames=FRAMES, stride=STRIDE), 0, length, VIEWS)]
    if abs(_views(path, 1) - _views_by_definition(path, views).astype(np.int16)).max() > 1:
        raise ValueError(f"{path} gives other views than sequential decoding and Pillow")
    works.append((f"{VIEWS}x{CROPS} views", Work(np.unique(views), partial(_views, path))))
    return works


def _clip(video, indices: np.ndarray, fit, threads: int) -> np.ndarray:
    return read_frames(video, indices, fit=fit, threads=threads)


def _views(path: Path, threads: int) -> np.ndarray:
    spec._probed.cache_clear()  # every file is looked through once
    sampling = Sampling(frames=FRAMES, stride=STRIDE)
    return load_views(
        spec.ClipSpec(sampling=sampling, resize=SHORTER_SIDE, threads=threads), path, (VIEWS, CROPS)
    ).pixels


def _views_by_definition(path: Path, views: list[np.ndarray]) -> np.ndarray:
    """Decodes all frames in order with one thread, scales each with Pillow, and crops."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        needed, scaled = set(np.unique(views).tolist()), {}
        for index, frame in enumerate(container.decode(stream)):
            if index in needed:
                height, width = cover(frame.height, frame.width, tall=SIZE, wide=SIZE, resize=SHORTER_SIDE)[:2]
                scaled[index] = np.asarray(frame.to_image().resize((width, height), Image.Resampling.BILINEAR))
    tall, wide, _ = next(iter(scaled.values())).shape
    places = crop_corners(tall, wide, CROPS, height=SIZE, width=SIZE)
    return np.stack(
        [
            [scaled[index][top : top + SIZE, left : left + SIZE] for index in view.tolist()]
            for view in views
            for top, left in places
        ]
    )


def _row(path: Path, work: Work, rounds: int) -> list[str]:
    calls: list[Callable[[], object]] = [
        partial(by_pyav, path, work.indices),
        partial(by_pyav, path, work.indices, rgb=False),
        partial(work.ours, 1),
        partial(work.ours, 0),
    ]
    times: list[list[tuple[float, float]]] = [[] for _ in calls]
    for _ in range(rounds):  # in turns: a machine that slows down slows all
        for call, taken in zip(calls, times, strict=True):
            begin, cpu = time.perf_counter(), time.process_time()
            call()
            taken.append((time.perf_counter() - begin, time.process_time() - cpu))
    rgb, decoding, one, every = (1000 * median(wall for wall, _ in taken) for taken in times)
    cpu_rgb, cpu_decoding, cpu_one, _ = (median(cpu for _, cpu in taken) for taken in times)
    ratios = one / rgb, every / rgb, every / decoding, cpu_one / cpu_rgb, cpu_one / cpu_decoding
    return [*(f"{value:.1f}" for value in (rgb, decoding, one, every)), *(f"{ratio:.2f}" for ratio in ratios)]
