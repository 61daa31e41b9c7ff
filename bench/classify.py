"""`python -m bench classify`: times decoding, preprocessing and classifying 4x3 views of 10 seconds of 720p.

The same run also times PyAV with Hugging Face's processor and model (model 1), if torch and transformers are installed.
Weights are random; times do not depend on them. Three results are checked before timing: the logits of a view against
the float64 reference, Hugging Face's logits against ours, and the processor's pixels against ours.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np

import vivit
from bench.film import by_pyav, write_film
from bench.harness import forget_peak, in_turns, machine, parser, peak_megabytes, report
from vivit.audit import baseline
from vivit.audit.bound import compare, depth_of
from vivit.audit.variants import random_params
from vivit.cli.table import Table
from vivit.inference.view_logits import clip_logits
from vivit.model_data import clip_spec
from vivit.reference import models as reference
from vivit.reference.config import named
from vivit.video import spec
from vivit.video.crops import VIEWS, crop_clips
from vivit.video.decode import wanted_frames
from vivit.video.index import probe
from vivit.video.sampling import Clip, Sampling, even_clips, frames_of
from vivit.video.views import load_views

ROWS = (
    ("vivit", "vivit-b/16x2-fe"),
    ("vivit", "vivit-b/16x2"),
    ("hugging face", "vivit-b/16x2"),
)
PIXEL_LIMIT = 4.0  # mean difference of pixels, of 255: the processor's bilinear filter is another


def main(arguments: Sequence[str]) -> int:
    asked = parser("classify", __doc__, "--runs 1")
    asked.add_argument("--runs", type=int, default=3, help="times of each part in a process (default: 3)")
    asked.add_argument("--rounds", type=int, default=1, help="processes for each row, in turns (default: 1)")
    asked.add_argument("--batch", type=int, default=4, help="views at once (default: 4)")
    asked.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    asked.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)  # IMPLEMENTATION MODEL FILM
    options = asked.parse_args(arguments)
    if options.worker:
        implementation, model, film = options.worker
        work = _vivit if implementation == "vivit" else _hugging_face
        print(json.dumps(work(model, Path(film), options.runs, options.batch, options.dtype)))
        return 0
    peers = all(importlib.util.find_spec(package) for package in ("torch", "transformers"))
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        write_film(film)
        program = ("-m", "bench", "classify", "--runs", str(options.runs), "--batch", str(options.batch))
        program = (*program, "--dtype", options.dtype, "--worker")
        wanted = [row for row in ROWS if peers or row[0] == "vivit"]
        results: dict[Any, Any] = in_turns({row: (*program, *row, str(film)) for row in wanted}, options.rounds)
    rows: list[tuple[str, ...]] = []
    columns = (
        "implementation",
        "model",
        "decode",
        "preprocess",
        "compute",
        "all",
        "(decode + preprocess) ÷ PyAV",
        "peak MB",
    )
    for (implementation, model), row in results.items():
        if isinstance(row, str):
            rows.append((implementation, model, row))
            continue
        both = row["decoded_and_preprocessed"]
        figures = [row["decode"], both - row["decode"], row["compute"], row["seconds"]]
        ratio = both / row["decode_rgb"]
        seconds = (f"{one:.3g}" for one in figures)
        rows.append((implementation, model, *seconds, f"{ratio:.2f}", f"{row['peak_megabytes']:,.0f}"))
    title = f"10 s of 1280x720, {VIEWS[0]}x{VIEWS[1]} views, {options.dtype}: seconds"
    report([Table(columns, rows, texts=2, title=title)], [machine()], options)
    return 1 if any(isinstance(row, str) for row in results.values()) else 0


def _vivit(name: str, film: Path, runs: int, batch: int, dtype: str) -> dict[str, float]:
    """Measures the steps separately, then the whole call."""
    config = named(name)
    labels = (tuple(map(str, range(config.classes[0]))),)
    model = vivit.Model(config=config, params=jax.device_put(random_params(config)), labels=labels)
    pixels = _views(model, film)
    needed, _ = frames_of(_clips(film))
    first = pixels[:1]
    comparison = compare(
        clip_logits(model, first, "clip", dtype=dtype),
        baseline.forward(model.params, first, config, dtype=dtype),
        reference.forward(model.params, first, config),
        dtype,
        depth=depth_of(config),
    )
    if not comparison.passed:
        raise ValueError(f"logits: {comparison}")
    model.classify(film, batch=batch, dtype=dtype)  # compiles
    forget_peak()
    return {
        "decode": _seconds(lambda: [None for _ in wanted_frames(str(film), needed, probe(film).table, None, 0)], runs),
        "decode_rgb": _seconds(lambda: by_pyav(film, needed), runs),
        "decoded_and_preprocessed": _seconds(lambda: _views(model, film), runs),
        "compute": _seconds(lambda: clip_logits(model, pixels, "clip", batch=batch, dtype=dtype), runs),
        "seconds": _seconds(lambda: _classified(model, film, batch, dtype), runs),
        "peak_megabytes": peak_megabytes(),
    }


def _views(model: vivit.Model, film: Path) -> np.ndarray:
    spec._probed.cache_clear()  # every time the file is looked through
    return load_views(clip_spec(model, film, threads=0), film, VIEWS).pixels


def _classified(model: vivit.Model, film: Path, batch: int, dtype: str) -> None:
    spec._probed.cache_clear()
    model.classify(film, batch=batch, dtype=dtype)


def _hugging_face(name: str, film: Path, runs: int, batch: int, dtype: str) -> dict[str, float]:
    """Decodes with PyAV, preprocesses with the processor, slices three crops, and runs `batch` views at a time."""
    from bench import peers

    config = named(name)
    params = random_params(config)
    compute = peers.hugging_face_model(params, config, dtype)
    processor = peers.hugging_face_processor(256)
    clips = _clips(film)
    needed, _ = frames_of(clips)

    def preprocess(frames: dict[int, np.ndarray]) -> np.ndarray:
        scaled = [processor([frames[index] for index in clip.indices]) for clip in clips]
        every = np.arange(len(clips[0].indices))[np.newaxis]
        return np.concatenate([crop_clips(clip, every, VIEWS[1], height=224, width=224) for clip in scaled])

    def logits(pixels: np.ndarray) -> np.ndarray:
        return np.concatenate([compute(pixels[row : row + batch]) for row in range(0, len(pixels), batch)])

    pixels = preprocess(by_pyav(film, needed))
    ours = vivit.Model(config=config, params=params)
    difference = np.abs(ours.preprocessing.normalise(_views(ours, film)) - pixels).mean() * 127.5
    if difference > PIXEL_LIMIT:
        raise ValueError(f"the processor's pixels differ by {difference:.2f} in the mean: at most {PIXEL_LIMIT}")
    found, expected = logits(pixels[:1]), np.asarray(vivit.forward(params, pixels[:1], config, dtype=dtype))
    error, limit = np.abs(found - expected).max(), peers.limit(expected, dtype)
    if not error <= limit:
        raise ValueError(f"logits differ from ours by {error:.3g}: at most {limit:.3g}")
    del ours
    jax.clear_caches()
    forget_peak()
    decode = _seconds(lambda: by_pyav(film, needed), runs)
    return {
        "decode": decode,
        "decode_rgb": decode,
        "decoded_and_preprocessed": _seconds(lambda: preprocess(by_pyav(film, needed)), runs),
        "compute": _seconds(lambda: logits(pixels), runs),
        "seconds": _seconds(lambda: logits(preprocess(by_pyav(film, needed))), runs),
        "peak_megabytes": peak_megabytes(),
    }


def _clips(film: Path) -> list[Clip]:
    """Returns the four temporal clips."""
    return even_clips(Sampling(), 0, len(probe(film).stamps), VIEWS[0])


def _seconds(call: Callable[[], object], runs: int) -> float:
    taken_seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        taken_seconds.append(time.perf_counter() - start)
    return median(taken_seconds)
