"""`python -m bench bulk`: videos a second of `vivit bulk`, beside the plain loop and a transformers pipeline.

Every row takes the logits of the same videos, each of one clip, with the same random weights, in a process of its own.
The rows of bulk must equal those of the plain loop, which calls `vivit.features` for one video after the other; the
pipeline's probabilities must be near. "videos a second" is measured after the start: loading, compiling and, for bulk,
starting Ray and the first shard of every worker; "seconds" is all of it. Without torch and transformers the pipeline's
row says so.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

import vivit
from bench.harness import in_turns, machine, parser, peak_megabytes, report
from vivit.audit.variants import random_params
from vivit.cli.arguments import add_json
from vivit.cli.table import Table
from vivit.inference.classification import probabilities
from vivit.reference.config import named
from vivit.video.clip import demo_video

STRIDE = 2
LIMIT = 0.1  # of a probability: the processor's filter is another
PLAIN, PEER = "plain loop", "transformers pipeline"


def main(arguments: Sequence[str]) -> int:
    asked = parser("bulk", __doc__, "--rounds 3")
    asked.add_argument("--model", default="vivit-b/32x4", help="a named variant (default: vivit-b/32x4)")
    asked.add_argument("--videos", type=int, default=40, help="of one clip each (default: 40)")
    asked.add_argument("--shard-size", type=int, default=4, help="videos of a shard (default: 4)")
    asked.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="of bulk, a row each (default: 1 2)")
    asked.add_argument("--rounds", type=int, default=1, help="processes for each row, in turns (default: 1)")
    add_json(asked)
    asked.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)  # ROW FOLDER
    options = asked.parse_args(arguments)
    if options.worker:
        row, folder = options.worker
        print(json.dumps(_measured(row, Path(folder), options.shard_size)))
        return 0
    if options.videos <= max(options.workers) * options.shard_size:
        raise ValueError(f"--videos is {options.videos}: it must be more than a shard for each worker")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder, options.model, options.videos)
        program = ("-m", "bench", "bulk", "--shard-size", str(options.shard_size), "--worker")
        rows = (PLAIN, *(f"bulk {count}" for count in options.workers), PEER)
        found: dict[Any, Any] = in_turns({row: (*program, row, name) for row in rows}, options.rounds)
    columns = ("row", "videos a second", "÷ plain loop's", "seconds", "peak MB", "largest difference")
    plain = found[PLAIN]
    table = []
    for row, one in found.items():
        title = f"{row.replace(' ', ', ')} worker{'s' * (row[-1] != '1')}" if row.startswith("bulk") else row
        if isinstance(one, str) or isinstance(plain, str):
            table.append((title, str(one)))
            continue
        ratio = one["videos_a_second"] / plain["videos_a_second"]
        figures = f"{one['videos_a_second']:.3f}", f"{ratio:.2f}", f"{one['seconds']:.1f}"
        table.append((title, *figures, f"{one['peak_megabytes']:,.0f}", f"{one['error']:.1e}"))
    title = f"{options.videos} videos of one clip, {options.model}, float32"
    note = "Peak MB of bulk is the main process's alone: every worker has a copy of the model."
    report([Table(columns, table, title=title)], [note, machine()], options, found)
    return 1 if any(isinstance(one, str) for row, one in found.items() if row != PEER) else 0


def _prepare(folder: Path, name: str, count: int) -> None:
    """Writes the checkpoint, and videos that begin at different frames of the demo film."""
    config = named(name)
    labels = (tuple(f"class {number}" for number in range(config.classes[0])),)
    model = vivit.Model(config=config, params=random_params(config), labels=labels)
    vivit.save(model, folder / "model", to="huggingface")
    with av.open(str(demo_video())) as container:
        pictures = [frame.reformat(format="yuv420p") for frame in container.decode(video=0)]
    length = STRIDE * (config.frames - 1) + 1
    (folder / "videos").mkdir()
    for number in range(count):
        with av.open(str(folder / "videos" / f"{number:05}.mp4"), "w") as container:
            stream = cast(av.VideoStream, container.add_stream("libx264", rate=25))
            stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
            for index in range(length):
                picture = pictures[(number + index) % len(pictures)]
                picture.pts, picture.time_base, picture.pict_type = index, Fraction(1, 25), 0
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))


def _measured(row: str, folder: Path, shard_size: int) -> dict[str, float]:
    """Returns the figures of one row; the plain loop leaves its logits for the others to be compared with."""
    start = time.perf_counter()
    videos = sorted(map(str, (folder / "videos").iterdir()))
    if row == PLAIN:
        rate, results = _one_by_one(_plain(folder), videos)
        np.save(folder / "plain.npy", results)
        error = 0.0
    elif row == PEER:
        rate, results = _one_by_one(_pipeline(folder), videos)
        (expected,) = probabilities(_model(folder), np.load(folder / "plain.npy"))
        error = _checked(results - expected, LIMIT)
    else:
        rate, results = _bulk(folder, int(row.split()[1]), shard_size)
        error = _checked(results - np.load(folder / "plain.npy"), 0)
    seconds = time.perf_counter() - start
    return {"videos_a_second": rate, "seconds": seconds, "peak_megabytes": peak_megabytes(), "error": error}


def _checked(difference: np.ndarray, limit: float) -> float:
    error = float(np.abs(difference).max())
    if not error <= limit:
        raise ValueError(f"results differ from the plain loop's by {error:.3g}: at most {limit}")
    return error


def _one_by_one(compute: Callable[[str], np.ndarray], videos: Sequence[str]) -> tuple[float, np.ndarray]:
    """Returns videos a second, after a first call that compiles, and the results."""
    compute(videos[0])
    start = time.perf_counter()
    results = np.stack([compute(video) for video in videos])
    return len(videos) / (time.perf_counter() - start), results


def _model(folder: Path) -> vivit.Model:
    return vivit.load(folder / "model")


def _plain(folder: Path) -> Callable[[str], np.ndarray]:
    model = _model(folder)
    return lambda video: model.features(video, stages=["logits"], stride=STRIDE, batch=1)["logits"][0]


def _bulk(folder: Path, workers: int, shard_size: int) -> tuple[float, np.ndarray]:
    import pyarrow.parquet as pq

    import vivit.bulk

    reports: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as output:
        options: dict[str, Any] = dict(stages=["logits"], stride=STRIDE, batch=1, workers=workers)
        written = vivit.bulk.write(
            folder / "videos",
            _model(folder),
            Path(output),
            shard_size=shard_size,
            progress=lambda done, total: reports.append((done, time.perf_counter())),
            **options,
        )
        tables = [pq.read_table(path)["logits"].to_pylist() for path in sorted(Path(output).glob("*.parquet"))]
    begun, start = next((done, moment) for done, moment in reports if done >= workers * shard_size)
    under_way = (workers - 1) * shard_size / 2  # videos of the other workers' shards, in the mean
    rate = (written.videos - begun - under_way) / (reports[-1][1] - start)
    return rate, np.array([row for table in tables for row in table], np.float32)


def _pipeline(folder: Path) -> Callable[[str], np.ndarray]:
    """Returns transformers' pipeline: from a video to the probability of every class."""
    import transformers  # pyright: ignore[reportMissingImports]

    transformers.utils.logging.disable_progress_bar()
    model = _model(folder)
    classes, frames = model.config.classes[0], model.config.frames
    pipeline = transformers.pipeline("video-classification", model=str(folder / "model"))
    rate = (STRIDE * (frames - 1) + 1) / frames  # so that the last frame sampled is the last of the video
    classify = partial(pipeline, top_k=classes, frame_sampling_rate=rate)

    def call(video: str) -> np.ndarray:
        scores = {score["label"]: score["score"] for score in classify(video)}
        return np.array([scores[f"class {number}"] for number in range(classes)])

    return call
