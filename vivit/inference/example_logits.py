"""Averages the logits of the views of every example of a dataset, computed as in classification.

A run that is killed resumes from its last saved position and gives the same bits: clips always have the same order and
the same batches, and the logits of an example are summed in that order in float64.
"""

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import jax
import numpy as np

from vivit import jitted
from vivit.data.clips import Broken, BrokenVideoError
from vivit.data.sources import Dataset, Example
from vivit.files.paths import is_file
from vivit.hashes import hash_of_params
from vivit.inference.batches import padded
from vivit.inference.resume import Position, Sums, hash_of_dataset, load_unfinished, save_unfinished
from vivit.inference.view_logits import finite_logits, view_logits
from vivit.memory import check_model, check_views
from vivit.model_data import ModelData, clip_spec
from vivit.notebook import progress_bar
from vivit.reference.values import check_count, is_count, quoted
from vivit.video.cache import Cache
from vivit.video.container import Limits
from vivit.video.crops import VIEWS
from vivit.video.prefetch import check_threads
from vivit.video.sampling import Short
from vivit.video.views import VideoViews, checked_views, load_views

EVERY = 50  # batches from one save to the next

Forward = Callable[[np.ndarray | jax.Array, np.ndarray | None], jax.Array]

_log = logging.getLogger("vivit.data")


@dataclass(frozen=True, kw_only=True, eq=False)
class ExampleLogits:
    """The results of the m examples whose videos could be read.

    logits: float64[m v], averaged over the views; the prelogits [m c] or [m r] if the model has no head. index:
    int64[m], the examples' indices in the dataset. broken: the errors of the videos left out, by path. views: of each
    video, as asked for. stride: of the clips.
    """

    logits: np.ndarray
    index: np.ndarray
    broken: dict[str, str]
    views: tuple[int, int]
    stride: int


def average_logits(
    model: ModelData,
    dataset: Dataset,
    *,
    stride: int | None = None,
    views: tuple[int, int] = VIEWS,
    batch: int = 8,
    short: Short = "loop",
    broken: Broken = "fail",
    threads: int = 2,
    shorter_side: int | None = None,
    dtype: str | None = None,
    cache: Cache | None = None,
    limits: Limits | None = None,
    folder: str | Path | None = None,
    every: int = EVERY,
    progress: Callable[[int, int], None] | None = None,
    forward: Forward | None = None,
) -> ExampleLogits:
    """Returns the logits of every example. Labels are not used. Arguments and errors as in evaluation.evaluate."""
    config = model.config
    for name, value in (("every", every), ("batch", batch)):
        check_count(name, value)
    views, limits = checked_views(views), limits or Limits()
    check_threads(threads)
    if broken not in get_args(Broken):
        raise ValueError(f"broken is {quoted(broken)}: it must be one of {', '.join(get_args(Broken))}")
    if shorter_side is not None and not (is_count(shorter_side) and shorter_side >= min(config.height, config.width)):
        least = min(config.height, config.width)
        raise ValueError(f"shorter_side is {quoted(shorter_side)}: it must be at least {least}")
    if not dataset.examples:
        raise ValueError("the dataset has no example: it must have at least one")
    check_model(config, limits.memory, clips=batch)
    check_views(config.frames, config.height, config.width, views, limits.memory)
    spec = clip_spec(model, stride=stride, short=short, resize=shorter_side, cache=cache, limits=limits)
    sums = Sums(np.zeros((len(dataset.examples), model.outputs)), np.zeros(len(dataset.examples), np.int64))
    about, position = {}, Position()
    if folder is not None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "weights": hash_of_params(model.params),
            "config": asdict(config),
            "preprocessing": asdict(model.preprocessing),
            "data": hash_of_dataset(dataset),
            **dict(stride=spec.sampling.stride, views=views, batch=batch, short=short, broken=broken),
            "shorter_side": spec.resize,
            "dtype": dtype,
            "device": jax.devices()[0].device_kind,
        }
        position = load_unfinished(folder, sums, about) or position
    forward = forward or partial(jitted.logits, model.params, config=config, dtype=dtype)
    per_video, report = math.prod(views), progress or progress_bar("clips")

    def load(example: Example) -> VideoViews:
        if not is_file(example.path):  # a stream cannot be read twice
            raise ValueError(f"{example.path} is not a file: it must be a video")
        return load_views(spec, example.path, views, start=example.start, end=example.end)

    def run(pixels: np.ndarray, frames_valid: np.ndarray) -> jax.Array:  # padded: one program for all
        video = model.preprocessed(padded(pixels, batch))
        return forward(video, padded(frames_valid, batch) if short == "pad" else None)

    def report_position(save: bool) -> None:
        if folder is not None and save:
            save_unfinished(folder, sums, position, about)
        report(position.example * per_video + position.view, len(dataset.examples) * per_video)

    report_position(save=False)
    begin, clips = (position.example, position.view), 0
    left_out = dict(position.broken)
    stream = view_logits(
        run, load, dataset.examples, views_per_video=per_video, batch=batch, threads=threads, start=begin
    )
    with closing(stream):
        for one in stream:
            path = dataset.examples[one.video].path
            if isinstance(one.views, Exception):
                error = BrokenVideoError(path, str(one.views))
                if broken == "fail":
                    raise error
                if path not in left_out:
                    left_out[path] = str(error)
                    _log.warning("left out, %d so far: %s", len(left_out), error)
            else:
                sums.logits[one.video] += finite_logits(model, one.logits, path, dtype)
                sums.views[one.video] += 1
                clips += 1
            position = Position(one.video + one.last, 0 if one.last else one.view + 1, left_out)
            if one.logits is not None and clips % batch == 0 and position.example < len(dataset.examples):
                report_position(save=clips // batch % every == 0)
    if (position.example, position.view) != begin:
        report_position(save=True)
    index = np.flatnonzero(sums.views)
    check_used(index.size, dataset, left_out)
    logits = sums.logits[index] / sums.views[index, np.newaxis]
    return ExampleLogits(logits=logits, index=index, broken=left_out, views=views, stride=spec.sampling.stride)


def check_used(used: int, dataset: Dataset, left_out: Mapping[str, str]) -> None:
    """Raises ValueError, with the first of the errors by path, if none of the examples can be used."""
    if not used:
        reason = next(iter(left_out.values()), "")
        raise ValueError(f"none of the {len(dataset.examples)} examples can be used, the first because {reason}")
