"""A model on a whole dataset: several views of every video, their logits averaged, and the metrics of the result.

It can be killed at any moment and goes on where it was last written down, with the same bits in the end: clips come in
one order, and each example's logits are added up in that order in float64.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vivit import compiled
from vivit.data.cache import Cache
from vivit.data.clips import Pixels
from vivit.data.loading import Broken, Loader, Share, evaluation_batches
from vivit.data.opening import Limits
from vivit.data.sampling import Sampling, Short
from vivit.data.sources import Dataset, label_vector
from vivit.data.views import VIEWS
from vivit.digests import digest_of_params
from vivit.inference.finite import not_finite
from vivit.inference.views import checked_views
from vivit.memory import check_model, check_views
from vivit.model import Model
from vivit.reference.values import MOST, is_count, quoted
from vivit.training import metrics
from vivit.training.naming import matched
from vivit.training.unfinished import Sums, digest_of_dataset, load_unfinished, save_unfinished

EVERY = 50  # batches between two writings

Forward = Callable[[np.ndarray | jax.Array, np.ndarray | None], jax.Array]


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What an evaluation found, of the m examples that could be used.

    report: as metrics.report's, with "views", "stride", "left_out" (how many examples) and "broken". logits:
    float64[m v], averaged over the views. labels: float32[m v]. index: int64[m], their numbers in the dataset.
    broken: reason by path of the videos left out. dataset: in the order of the model's classes.
    """

    report: dict[str, Any]
    logits: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    index: np.ndarray = field(repr=False)
    broken: dict[str, str]
    dataset: Dataset = field(repr=False)


def evaluate(
    model: Model,
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
) -> Result:
    """The metrics of a model on a dataset, whose labels are matched with the model's by name if that has any.

    stride: from frame to frame; None: the model's. short: as Sampling's. The config says the clip's size.
    views: clips in time and crops of each.
    batch: clips at once; it changes results by rounding only. broken: "fail" stops at the first video that cannot be
    used, "skip" leaves it out and reports it. shorter_side: pictures are scaled to it; None: as the model's
    preprocessing says. dtype, cache, limits: as models.forward's and Pixels'.
    folder: where progress is written every `every` batches; called again with the same arguments it goes on from
    there, and finds a finished evaluation's result again at once. threads, cache and every may differ.
    progress: is called with (clips done, clips in all). forward: from preprocessed video [b frames height width 3] and
    frames_valid (None: all) to logits [b v], in place of the model's on one device; it must compute the same.
    Raises ValueError that names the argument, BrokenVideoError, or ValueError if no example could be used or logits are
    not finite, naming the first stage that is not.
    """
    config = model.config
    if not config.classes:
        raise ValueError("classes is (): the model must have a head to be evaluated")
    for name, value in (("every", every), ("batch", batch), ("threads", threads)):
        if not is_count(value):
            raise ValueError(f"{name} is {quoted(value)}: it must be at least 1, and at most {MOST}")
    views, limits = checked_views(views), limits or Limits()
    check_model(config, limits.memory, clips=batch)
    check_views(config, views, limits.memory)
    if model.labels is not None:
        dataset = matched(dataset, model.labels, model.heads)
    if dataset.classes != config.classes:
        raise ValueError(f"the data has {dataset.classes} classes: it must have {config.classes}, as the model has")
    stride = model.preprocessing.stride if stride is None else stride
    sampling = Sampling(frames=config.frames, stride=stride, short=short)
    side = _shorter_side(model) if shorter_side is None else shorter_side
    pixels = Pixels(
        sampling=sampling,
        height=config.height,
        width=config.width,
        shorter_side=side,
        cache=cache,
        limits=limits,
    )
    sums = Sums(np.zeros((len(dataset.examples), sum(config.classes))), np.zeros(len(dataset.examples), np.int64))
    about = {}
    if folder is not None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "weights": digest_of_params(model.params),
            "config": asdict(config),
            "preprocessing": asdict(model.preprocessing),
            "data": digest_of_dataset(dataset),
            **dict(stride=stride, views=views, batch=batch, short=short, broken=broken, shorter_side=side),
            "dtype": dtype,
            "device": jax.devices()[0].device_kind,
        }
    forward = forward or partial(compiled.logits, model.params, config=config, dtype=dtype)
    total = len(dataset.examples) * views[0] * views[1]
    with evaluation_batches(
        dataset, pixels, Share(batch=batch), views=views[0], crops=views[1], threads=threads, broken=broken
    ) as loader:
        if folder is not None and (state := load_unfinished(folder, sums, about)) is not None:
            loader.restore(state)
        if progress is not None:
            progress(min(loader.state()["step"] * batch, total), total)
        for index, video, logits, state in _computed(model, loader, forward, padded=short == "pad"):
            used = index >= 0
            rows = np.asarray(logits, np.float64)
            faulty = used & ~np.isfinite(rows).all(axis=1)
            if faulty.any():
                row = int(faulty.argmax())
                raise not_finite(model, video[row], dataset.examples[index[row]].path, dtype)
            np.add.at(sums.logits, index[used], rows[used])
            np.add.at(sums.views, index[used], 1)
            if folder is not None and (state["step"] % every == 0 or state["step"] == loader.steps):
                save_unfinished(folder, sums, state, about)
            if progress is not None:
                progress(min(state["step"] * batch, total), total)
        return _result(dataset, sums, loader.broken, views, stride)


def _computed(
    model: Model, loader: Loader, forward: Forward, *, padded: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, jax.Array, dict[str, Any]]]:
    """Batch by batch the examples' numbers, their clips, the logits, and the loader's state after it.

    The device computes a batch while the one before it is used.
    """
    waiting = None
    for batch in loader:
        logits = forward(model.preprocessed(batch.video), batch.frames_valid if padded else None)
        if waiting is not None:
            yield waiting
        waiting = batch.index, batch.video, logits, loader.state()
    if waiting is not None:
        yield waiting


def _result(dataset: Dataset, sums: Sums, broken: dict[str, str], views: tuple[int, int], stride: int) -> Result:
    index = np.flatnonzero(sums.views)
    if not index.size:
        reason = next(iter(broken.values()), "")
        raise ValueError(f"none of the {len(sums.views)} examples can be used, the first because {reason}")
    logits = sums.logits[index] / sums.views[index, np.newaxis]
    labels = np.stack([label_vector(dataset, dataset.examples[number]) for number in index])
    found = metrics.report(logits, labels, dataset.classes, dataset.names, dataset.multi_label, heads=dataset.heads)
    found |= {"views": list(views), "stride": stride, "left_out": len(sums.views) - len(index), "broken": dict(broken)}
    return Result(report=found, logits=logits, labels=labels, index=index, broken=dict(broken), dataset=dataset)


def _shorter_side(model: Model) -> int | None:
    """What the model's preprocessing says of it. Raises ValueError if it says what views cannot be cut from."""
    preprocessing = model.preprocessing
    preprocessing.check_crop(model.config.height, model.config.width)
    if isinstance(preprocessing.resize, tuple):
        raise ValueError(
            f"preprocessing resizes to {preprocessing.resize}, a shape that has no crops: shorter_side must be said"
        )
    return preprocessing.resize
