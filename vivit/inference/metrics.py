"""Metrics: NumPy functions of logits and labels, and a report of all metrics as JSON data.

An undefined value, such as the accuracy of a class without examples, is NaN in arrays, None in the report, and excluded
from means. Ties of logits are broken by class index, as in argmax, so that a head of zeros is not always correct.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

TOP_K = 5  # besides top-1


def report(
    logits: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[int],
    names: Sequence[Sequence[str]],
    multi_label: bool = False,
    *,
    heads: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Returns all metrics as JSON data: {"examples": n, "heads": {head: …}}.

    logits: float[n v], heads concatenated. labels: [n v], 1 at the labels, else 0. names: class names of every head.
    heads: names of the heads; None: "label", or "head 1", "head 2", …

    Fields of a head: "top_1", "top_5" (with more than five classes), "mean_class_accuracy", "classes_without_examples",
    "per_class" (name, examples, accuracy) and "confusion" (a list of rows). With several heads, "action" has the
    "top_1" and "top_5" of their joint classes. With multi_label, a head has "map", "classes_without_positives" and
    "per_class" (name, positives, average_precision), and a "map" beside "heads" is over the classes of all heads.
    Raises ValueError, naming the argument and the requirement, if shapes do not match or values are not finite.
    """
    logits, labels = _checked(logits, labels, classes, multi_label)
    heads = heads or (["label"] if len(classes) == 1 else [f"head {number + 1}" for number in range(len(classes))])
    for name, values in (("names", names), ("heads", heads)):
        if len(values) != len(classes):
            raise ValueError(f"{name} has {len(values)} entries: it must have one for each of the {len(classes)} heads")
    if (counts := tuple(map(len, names))) != tuple(classes):
        raise ValueError(f"names has {counts} names: it must have {tuple(classes)}, as classes says")
    one = _multi_label_head if multi_label else _head
    parts = zip(heads, split_heads(logits, classes), split_heads(labels, classes), names, strict=True)
    result: dict[str, Any] = {
        "examples": len(logits),
        "heads": {head: one(its_logits, its_labels, its_names) for head, its_logits, its_labels, its_names in parts},
    }
    if multi_label:
        result["map"] = _or_none(mean(average_precisions(logits, labels)))
    elif len(classes) > 1:
        result["action"] = {
            f"top_{k}": action_accuracy(logits, labels, classes, k)
            for k in (1, TOP_K)
            if k < max(2, math.prod(classes))
        }
    return result


def scalars(report: dict[str, Any]) -> dict[str, float]:
    """Returns the numbers of a report to plot, by name: "top_1", or with several heads "verb/top_1", …"""
    values: dict[str, float] = {}
    several = len(report["heads"]) > 1
    for head, metrics in report["heads"].items():
        for name in ("top_1", f"top_{TOP_K}", "mean_class_accuracy", "map"):
            if metrics.get(name) is not None:
                values[f"{head}/{name}" if several else name] = metrics[name]
    if several:
        values |= {f"action/{name}": value for name, value in report.get("action", {}).items()}
        values |= {"map": report["map"]} if report.get("map") is not None else {}
    return values


def split_heads(values: np.ndarray, classes: Sequence[int]) -> list[np.ndarray]:
    """[n v] as one [n v] a head."""
    return np.split(values, np.cumsum(classes)[:-1], axis=1)


def top_k(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Returns the fraction of examples whose class is among the k best of one head. logits, labels (one-hot): [n v]."""
    return float((_rank(logits, labels.argmax(1)) < k).mean())


def confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the confusion matrix of one head, int64[v v]: examples by class (row) and prediction (column)."""
    v = logits.shape[1]
    return np.bincount(labels.argmax(1) * v + logits.argmax(1), minlength=v * v).reshape(v, v)


def per_class_accuracy(counts: np.ndarray) -> np.ndarray:
    """Returns the accuracy of every class, float64[v], from a confusion matrix [v v]; NaN without examples."""
    rows = counts.sum(1)
    return np.divide(counts.diagonal(), rows, out=np.full(len(counts), np.nan), where=rows > 0)


def action_accuracy(logits: np.ndarray, labels: np.ndarray, classes: Sequence[int], k: int = 1) -> float:
    """Returns the fraction of examples whose action, one class of every head, is among the k most probable actions.

    Source: Arnab et al. 2021, section 4.1, the best pair over the outer product of the heads' softmax probabilities.
    The log of such a product is a sum of logits, up to a constant of the example. The k best actions contain only the k
    best classes of each head, so at most k·k sums are compared per example and head.
    """
    n = len(logits)
    truth, width = np.zeros(n, np.int64), 1  # index of an action: row-major over the heads
    best, numbers = np.zeros((n, 1)), np.zeros((n, 1), np.int64)
    by_head = zip(split_heads(logits, classes), split_heads(labels, classes), classes, strict=True)
    for its_logits, its_labels, v in by_head:
        order = np.argsort(-its_logits, axis=1, kind="stable")[:, :k]
        width *= v
        truth = truth * v + its_labels.argmax(1)
        best = best[:, :, np.newaxis] + np.take_along_axis(its_logits, order, 1).astype(np.float64)[:, np.newaxis]
        numbers = numbers[:, :, np.newaxis] * v + order[:, np.newaxis]
        best, numbers = best.reshape(n, -1), numbers.reshape(n, -1)
        order = np.lexsort((numbers, -best), axis=1)[:, :k]
        best, numbers = np.take_along_axis(best, order, 1), np.take_along_axis(numbers, order, 1)
    return float((numbers == truth[:, np.newaxis]).any(1).mean())


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Returns Σ (recall_i − recall_{i−1}) · precision_i over the thresholds i, the scores; NaN without positives.

    scores: float[n]. positive: bool[n]. Examples with equal scores share a threshold, so their order does not matter.
    """
    if not positive.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of the examples with equal scores
    hits = np.cumsum(positive[order])[last]
    retrieved = np.flatnonzero(last) + 1
    return float((np.diff(hits, prepend=0) * hits / retrieved).sum() / hits[-1])


def average_precisions(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the average precision of every class, float64[v]. logits, labels (any number of ones per row): [n v]."""
    return np.array([average_precision(one, mine > 0) for one, mine in zip(logits.T, labels.T, strict=True)])


def mean(values: np.ndarray) -> float:
    """Returns the mean of the values that are not NaN; NaN if all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _head(logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    counts = confusion(logits, labels)
    accuracies, examples = per_class_accuracy(counts), counts.sum(1)
    return {
        **{f"top_{k}": top_k(logits, labels, k) for k in (1, TOP_K) if k < max(2, logits.shape[1])},
        "mean_class_accuracy": mean(accuracies),
        "classes_without_examples": int((examples == 0).sum()),
        "per_class": [
            {"name": name, "examples": int(count), "accuracy": _or_none(accuracy)}
            for name, count, accuracy in zip(names, examples, accuracies, strict=True)
        ],
        "confusion": counts.tolist(),
    }


def _multi_label_head(logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    precisions, positives = average_precisions(logits, labels), (labels > 0).sum(0)
    return {
        "map": _or_none(mean(precisions)),
        "classes_without_positives": int((positives == 0).sum()),
        "per_class": [
            {"name": name, "positives": int(count), "average_precision": _or_none(precision)}
            for name, count, precision in zip(names, positives, precisions, strict=True)
        ],
    }


def _rank(logits: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Returns the rank of a class in every row, int64[n]; 0 is the best. logits: [n v]. number: int64[n], classes."""
    own = np.take_along_axis(logits, number[:, np.newaxis], 1)
    earlier = np.arange(logits.shape[1]) < number[:, np.newaxis]
    return ((logits > own) | ((logits == own) & earlier)).sum(1)


def _checked(
    logits: np.ndarray, labels: np.ndarray, classes: Sequence[int], multi_label: bool
) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = np.asarray(logits), np.asarray(labels)
    if not classes or min(classes) < 1:
        raise ValueError(f"classes is {tuple(classes)}: it must be a positive integer for every head")
    for name, values in (("logits", logits), ("labels", labels)):
        if values.ndim != 2 or values.shape[1] != sum(classes) or not len(values):
            raise ValueError(f"{name} has shape {values.shape}: it must be (examples, {sum(classes)}), at least one")
    if len(logits) != len(labels):
        raise ValueError(f"labels has {len(labels)} rows: it must have {len(logits)}, as logits has")
    if not np.isfinite(logits).all():
        row = int(np.argmin(np.isfinite(logits).all(1)))
        raise ValueError(f"logits has NaN or infinity in row {row}: it must be finite")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels has {labels[~np.isin(labels, (0, 1))][0]}: it must be 0 or 1 everywhere")
    if not multi_label and any((part.sum(1) != 1).any() for part in split_heads(labels, classes)):
        raise ValueError("labels has a row that is not one-hot: it must have one 1 a head, unless multi_label is set")
    return logits, labels


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
