"""Fits a classifier of one's own on the features of a model: a logistic regression, which becomes the model's head.

The videos go through the model once. Their features are those before the head, averaged over the views of a video; as
the head is linear, `evaluate` with the same views finds the accuracy that is reported here.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple

import jax.numpy as jnp
import numpy as np

from vivit.data.clips import Broken, BrokenVideoError
from vivit.data.reading import read_data
from vivit.data.sources import Dataset, label_vector
from vivit.inference import metrics
from vivit.inference.example_logits import average_logits, check_used
from vivit.inference.metrics import split_heads
from vivit.model_data import AnyModel, with_stride
from vivit.reference.params import Dense
from vivit.video.cache import Cache
from vivit.video.container import Limits

STRENGTHS = tuple(10.0**exponent for exponent in range(4, -5, -1))  # of the L2 penalty; the first is the strongest
MAX_STEPS = 1000  # of the solver
SMALL = 10**9  # multiply-adds of a step, below which several threads cost more than they gain: on busy cores, 100 times
HALVES = np.array([-0.5, 0.5])  # from the logit of two classes to a logit each
FITTED = ("train", "validation")  # splits


class ExampleFeatures(NamedTuple):
    """Features float64[m c] of m examples, whose numbers in the dataset are int64[m]. broken: errors by path."""

    features: np.ndarray
    numbers: np.ndarray
    broken: dict[str, str]


class FittedHead(NamedTuple):
    """One head. kernel: float64[c v]. bias: float64[v]. strength: of the penalty. loss: cross-entropy on validation."""

    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class Probe(Generic[AnyModel]):
    """model: with the new head. strengths: of the L2 penalty, by head. report: that of metrics.report on validation.

    examples: the number of videos used, by split. broken: the errors of the videos left out, by path.
    """

    model: AnyModel
    strengths: dict[str, float]
    report: dict[str, Any]
    examples: dict[str, int]
    broken: dict[str, str]


def probe(
    model: AnyModel,
    data: str | Path | Mapping[str, Dataset],
    *,
    heads: Sequence[str] | None = None,
    stride: int | None = None,
    views: tuple[int, int] = (1, 1),
    batch: int = 8,
    broken: Broken = "fail",
    threads: int = 2,
    dtype: str | None = None,
    cache: Cache | None = None,
    limits: Limits | None = None,
    features: Mapping[str, np.ndarray | ValueError] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Probe[AnyModel]:
    """Returns a model whose head is a logistic regression on its features, fitted on train, chosen on validation.

    data: what `vivit train` takes, or datasets by split; it must have the splits train and validation, one label per
    example, and examples of every class in train. heads: label columns of a table. stride: frames from one sampled
    frame to the next, which the new model keeps; None: the model's. views: (temporal clips, spatial crops) of a video.
    Other arguments as in evaluation.evaluate. features: those before the head, [c], or the error, of every video by its
    absolute path, such as `vivit.bulk.prelogits` reads; no video is opened then. None: they are computed.

    The strength of the L2 penalty is that of the lowest cross-entropy on validation, separately for every head.
    Raises ValueError if the data does not fit or a video cannot be read, and ModuleNotFoundError without scikit-learn
    (extra [probe]).
    """
    import sklearn.linear_model  # noqa: F401  # before the videos are read

    splits = dict(data) if isinstance(data, Mapping) else read_data(data, heads=heads)
    _check_splits(splits, "the data" if isinstance(data, Mapping) else str(data))
    model = with_stride(model, stride)
    options: dict[str, Any] = dict(
        views=views, batch=batch, broken=broken, threads=threads, dtype=dtype, cache=cache, limits=limits
    )
    used: dict[str, ExampleFeatures] = {}
    for split, shown in zip(FITTED, _shares(progress, splits), strict=True):
        if features is None:
            found = average_logits(without_head(model), splits[split], **options, progress=shown)
            used[split] = ExampleFeatures(found.logits, found.index, found.broken)
        else:
            used[split] = _look_up(features, splits[split], broken)
    labels = {split: _labels(splits[split], used[split].numbers) for split in FITTED}
    fitted = [
        fit(used["train"].features, train.argmax(1), used["validation"].features, validation.argmax(1), names)
        for train, validation, names in zip(
            *(split_heads(labels[split], splits["train"].classes) for split in FITTED),
            splits["train"].names,
            strict=True,
        )
    ]
    kernel = np.concatenate([head.kernel for head in fitted], axis=1)
    bias = np.concatenate([head.bias for head in fitted])
    dataset = splits["train"]
    made = replace(
        model,
        config=replace(model.config, classes=dataset.classes),
        params=model.params._replace(head=Dense(jnp.asarray(kernel, jnp.float32), jnp.asarray(bias, jnp.float32))),
        labels=dataset.names,
        heads=dataset.heads,
        report=model.report.with_notes(f"head: a logistic regression for {dataset.classes} classes"),
    )
    logits = used["validation"].features @ kernel + bias
    return Probe(
        model=made,
        strengths={name: head.strength for name, head in zip(dataset.heads, fitted, strict=True)},
        report=metrics.report(logits, labels["validation"], dataset.classes, dataset.names, heads=dataset.heads),
        examples={split: len(used[split].numbers) for split in FITTED},
        broken=used["train"].broken | used["validation"].broken,
    )


def without_head(model: AnyModel) -> AnyModel:
    """Returns the model without its head: its logits are the features before the head."""
    config = replace(model.config, classes=())
    return replace(model, config=config, params=model.params._replace(head=None), labels=None, heads=None)


def fit(
    features: np.ndarray, labels: np.ndarray, held_out: np.ndarray, its_labels: np.ndarray, names: Sequence[str]
) -> FittedHead:
    """Fits a softmax regression with an L2 penalty of every strength, and returns the best on the held-out examples.

    features: float[n c]; every channel is standardised, and the result takes channels that are not. labels: int[n],
    indices into `names`, the classes. held_out, its_labels: [m c] and [m]. Raises ValueError if a class has no example.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # scikit-learn needs it

    counts = np.bincount(labels, minlength=len(names))
    if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
        raise ValueError(f"train has no example of {', '.join(map(repr, empty[:5]))}: it must have one of every class")
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 1e-6 * np.abs(features).max(0, initial=0), scale, 1)  # a constant channel stays as it is
    standardised, tried = (features - mean) / scale, []
    regression = LogisticRegression(max_iter=MAX_STEPS, warm_start=True)
    for strength in STRENGTHS:
        regression.set_params(C=1 / strength)
        with warnings.catch_warnings(), threadpool_limits(1 if features.size * len(names) < SMALL else None):
            warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty: validation judges what was reached
            regression.fit(standardised, labels)
        weights, offsets = regression.coef_.T, regression.intercept_
        if len(names) == 2:
            weights, offsets = weights * HALVES, offsets * HALVES
        kernel = weights / scale[:, np.newaxis]
        bias = offsets - mean @ kernel
        tried.append(FittedHead(kernel, bias, strength, _cross_entropy(held_out @ kernel + bias, its_labels)))
    return min(tried, key=lambda head: head.loss)


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean cross-entropy of labels int[m] under the softmax of logits float64[m v]."""
    shifted = logits - logits.max(1, keepdims=True)
    own = np.take_along_axis(shifted, labels[:, np.newaxis], 1)[:, 0]
    return float((np.log(np.exp(shifted).sum(1)) - own).mean())


def _check_splits(splits: Mapping[str, Dataset], name: str) -> None:
    """Raises ValueError unless there are training and validation examples with one label of at least two classes."""
    if missing := [split for split in FITTED if split not in splits]:
        existing = ", ".join(splits) or "no split"
        raise ValueError(f"{name} has {existing}: it must have {' and '.join(missing)} examples too")
    train, validation = (splits[split] for split in FITTED)
    if train.multi_label:
        raise ValueError(f"{name} has any number of labels per example: it must have one")
    if (train.heads, train.names) != (validation.heads, validation.names):
        raise ValueError(f"{name} has other classes in train than in validation: they must be the same")
    for head, names in zip(train.heads, train.names, strict=True):
        if len(names) < 2:
            raise ValueError(f"{head} has {len(names)} class: it must have at least two")


def _look_up(features: Mapping[str, np.ndarray | ValueError], dataset: Dataset, broken: Broken) -> ExampleFeatures:
    """Returns the features of the examples. An error is treated as `broken` says; ValueError if a video is missing."""
    rows, numbers, left_out = [], [], {}
    for number, example in enumerate(dataset.examples):
        if (example.start, example.end) != (None, None):
            raise ValueError(f"{example.path} has a segment in the data: its features are of the whole video")
        found = features.get(os.path.abspath(example.path))
        if found is None:
            raise ValueError(f"{example.path} has no features: they must have every video of train and validation")
        if isinstance(found, ValueError):
            error = BrokenVideoError(example.path, str(found))
            if broken == "fail":
                raise error
            left_out[example.path] = str(error)
        else:
            rows.append(found)
            numbers.append(number)
    check_used(len(rows), dataset, left_out)
    return ExampleFeatures(np.stack(rows), np.array(numbers), left_out)


def _labels(dataset: Dataset, numbers: np.ndarray) -> np.ndarray:
    """Returns the labels of the examples with these numbers, float32[m v], as label_vector."""
    return np.stack([label_vector(dataset, dataset.examples[number]) for number in numbers])


def _shares(
    progress: Callable[[int, int], None] | None, splits: Mapping[str, Dataset]
) -> list[Callable[[int, int], None] | None]:
    """Returns a progress function for every split; together they call `progress` with the clips of both."""
    if progress is None:
        return [None for _ in FITTED]
    counts = [len(splits[split].examples) for split in FITTED]

    def share(before: int, own: int) -> Callable[[int, int], None]:
        def shown(done: int, total: int) -> None:
            views = total // own
            progress(done + before * views, sum(counts) * views)

        return shown

    return [share(0, counts[0]), share(*counts)]
