"""Evaluates a model on a dataset: the metrics of the logits that example_logits.py averages, and their predictions."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vivit.data.clips import Broken
from vivit.data.sources import Dataset, label_vector
from vivit.files.atomic import write_file
from vivit.inference import metrics
from vivit.inference.example_logits import EVERY, ExampleLogits, Forward, average_logits
from vivit.inference.match_labels import match_labels
from vivit.inference.metrics import TOP_K, split_heads
from vivit.model_data import ModelData
from vivit.video.cache import Cache
from vivit.video.container import Limits
from vivit.video.crops import VIEWS
from vivit.video.sampling import Short


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """The result of an evaluation on the m examples whose videos could be read.

    report: that of metrics.report, with "views", "stride", "left_out" (number of examples) and "broken". logits:
    float64[m v], averaged over the views. labels: float32[m v]. index: int64[m], the examples' indices in the dataset.
    broken: the errors of the videos left out, by path. dataset: with labels in the order of the model's classes.
    """

    report: dict[str, Any]
    logits: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    index: np.ndarray = field(repr=False)
    broken: dict[str, str]
    dataset: Dataset = field(repr=False)


def evaluate(
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
) -> Result:
    """Returns the metrics of a model on a dataset. Labels are matched by name if the model has class names.

    stride: frames from one sampled frame to the next; None: the model's. short: as in Sampling. views: (temporal clips,
    spatial crops of each). batch: clips per batch; changes results by rounding only. broken: "fail" stops at the first
    video that cannot be read, "skip" leaves it out and reports it. shorter_side: frames are scaled to this length;
    None: the model's preprocessing. dtype: as in models.forward. cache, limits: as in ClipSpec.
    folder: progress is saved there every `every` batches. A call with the same arguments resumes from it, and a
    finished evaluation returns at once; threads, cache and every may differ.
    progress: called with (clips done, total clips); each video counts as the full number of views. None: a notebook
    shows a bar.
    forward: replaces the model's, for example on several devices: function from preprocessed video
    [b frames height width 3] and frames_valid int32[b] (None: all) to logits [b v]. It must compute the same.
    Raises ValueError that names an invalid argument; BrokenVideoError; ValueError if no video can be read, or, naming
    the first stage that is not finite, if logits are not.
    """
    config = model.config
    if not config.classes:
        raise ValueError("classes is (): the model must have a head to be evaluated")
    if model.labels is not None:
        dataset = match_labels(dataset, model.labels, model.heads)
    if dataset.classes != config.classes:
        raise ValueError(f"the data has {dataset.classes} classes: it must have {config.classes}, as the model has")
    averaged = average_logits(
        model,
        dataset,
        stride=stride,
        views=views,
        batch=batch,
        short=short,
        broken=broken,
        threads=threads,
        shorter_side=shorter_side,
        dtype=dtype,
        cache=cache,
        limits=limits,
        folder=folder,
        every=every,
        progress=progress,
        forward=forward,
    )
    return _result(dataset, averaged)


def _result(dataset: Dataset, averaged: ExampleLogits) -> Result:
    logits, index, broken = averaged.logits, averaged.index, averaged.broken
    labels = np.stack([label_vector(dataset, dataset.examples[number]) for number in index])
    report = metrics.report(logits, labels, dataset.classes, dataset.names, dataset.multi_label, heads=dataset.heads)
    left_out = len(dataset.examples) - len(index)
    report |= {"views": list(averaged.views), "stride": averaged.stride, "left_out": left_out, "broken": dict(broken)}
    return Result(report=report, logits=logits, labels=labels, index=index, broken=dict(broken), dataset=dataset)


def write_predictions(path: Path, result: Result) -> None:
    """Writes a CSV file with one row per example, in order: path, start, end, and the columns of every head.

    The columns of a head are its label (several are separated by "|"), then name and probability of the five best
    classes, best first. Probabilities are the softmax over the head; the sigmoid of each class for multi-label data.
    """
    dataset = result.dataset
    columns = ["path", "start", "end"]
    for head, names in zip(dataset.heads, dataset.names, strict=True):
        best = range(1, min(TOP_K, len(names)) + 1)
        columns += [head, *(f"{head} {what}{number}" for number in best for what in ("", "probability "))]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    heads = [_best(part, dataset.multi_label) for part in split_heads(result.logits, dataset.classes)]
    for row, number in enumerate(result.index.tolist()):
        example = dataset.examples[number]
        cells = [example.path, *("" if at is None else at for at in (example.start, example.end))]
        for names, labels, (indices, probabilities) in zip(dataset.names, example.labels, heads, strict=True):
            cells.append("|".join(names[label] for label in labels))
            for index, probability in zip(indices[row], probabilities[row], strict=True):
                cells += [names[index], f"{probability:.6f}"]
        table.writerow(cells)
    data = text.getvalue().encode("utf-8", "surrogateescape")  # writes the bytes of a file name unchanged
    write_file(path, lambda temporary: temporary.write_bytes(data))


def _best(logits: np.ndarray, multi_label: bool) -> tuple[list[list[int]], list[list[float]]]:
    """Returns the best classes of every row of one head's logits [n v], and their probabilities. Ties: the first."""
    if multi_label:
        probabilities = np.exp(-np.logaddexp(0, -logits))
    else:
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = weights / weights.sum(axis=1, keepdims=True)
    indices = np.argsort(-logits, axis=1, kind="stable")[:, :TOP_K]
    return indices.tolist(), np.take_along_axis(probabilities, indices, axis=1).tolist()
