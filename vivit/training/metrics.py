"""How good logits are: NumPy functions of logits and labels, and one report of all of them as plain JSON data.

Whatever has no value (the accuracy of a class without examples) is NaN in arrays, None in the report, and no part of a
mean. Equal logits are in the order of their numbers, as argmax has them, so that a head of zeros is not always right.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

BEST = 5  # the other k of top-k, beside 1


def report(
    logits: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[int],
    names: Sequence[Sequence[str]],
    multi_label: bool = False,
    *,
    heads: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Every metric as plain JSON data.

    logits: float[n v], head after head. labels: [n v], 1 at the labels, else 0. names: of each head's classes. heads:
    what the heads are called; None: "label", or "head 1", "head 2", …

    Returns {"examples": n, "heads": {head: …}}. A head has "top_1", "top_5" if it has more than five classes,
    "mean_class_accuracy", "classes_without_examples", "per_class" (a list of name, examples, accuracy) and "confusion"
    (a list of rows). Several heads also have "action": {"top_1", "top_5"}. With multi_label a head has "map",
    "classes_without_positives" and "per_class" (name, positives, average_precision), and "map" stands beside "heads",
    over the classes of all of them.
    Raises ValueError, naming the argument and the requirement, if these do not fit each other or are not finite.
    """
    logits, labels = _checked(logits, labels, classes, multi_label)
    heads = heads or (["label"] if len(classes) == 1 else [f"head {number + 1}" for number in range(len(classes))])
    for name, values in (("names", names), ("heads", heads)):
        if len(values) != len(classes):
            raise ValueError(f"{name} has {len(values)} entries: it must have one for each of the {len(classes)} heads")
    if (counts := tuple(map(len, names))) != tuple(classes):
        raise ValueError(f"names has {counts} names: it must have {tuple(classes)}, as classes says")
    one = _multi_label_head if multi_label else _head
    parts = zip(heads, split(logits, classes), split(labels, classes), names, strict=True)
    found: dict[str, Any] = {
        "examples": len(logits),
        "heads": {head: one(its_logits, its_labels, its_names) for head, its_logits, its_labels, its_names in parts},
    }
    if multi_label:
        found["map"] = _or_none(mean(average_precisions(logits, labels)))
    elif len(classes) > 1:
        found["action"] = {
            f"top_{k}": action_accuracy(logits, labels, classes, k) for k in (1, BEST) if k < max(2, math.prod(classes))
        }
    return found


def scalars(found: dict[str, Any]) -> dict[str, float]:
    """The numbers of a report that are worth a curve, by name: "top_1", or with several heads "verb/top_1", …"""
    values: dict[str, float] = {}
    several = len(found["heads"]) > 1
    for head, metrics in found["heads"].items():
        for name in ("top_1", f"top_{BEST}", "mean_class_accuracy", "map"):
            if metrics.get(name) is not None:
                values[f"{head}/{name}" if several else name] = metrics[name]
    if several:
        values |= {f"action/{name}": value for name, value in found.get("action", {}).items()}
        values |= {"map": found["map"]} if found.get("map") is not None else {}
    return values


def split(values: np.ndarray, classes: Sequence[int]) -> list[np.ndarray]:
    """[n v] as one [n v] a head."""
    return np.split(values, np.cumsum(classes)[:-1], axis=1)


def top_k(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """The part of the examples whose class is among the k best of one head. logits, labels (one-hot): [n v]."""
    return float((_rank(logits, labels.argmax(1)) < k).mean())


def confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int64[v v]: examples of one head by their class (row) and the class that the logits prefer (column)."""
    v = logits.shape[1]
    return np.bincount(labels.argmax(1) * v + logits.argmax(1), minlength=v * v).reshape(v, v)


def per_class_accuracy(counts: np.ndarray) -> np.ndarray:
    """float64[v] of a confusion [v v]: how often the examples of a class are recognised; NaN where there are none."""
    rows = counts.sum(1)
    return np.divide(counts.diagonal(), rows, out=np.full(len(counts), np.nan), where=rows > 0)


def action_accuracy(logits: np.ndarray, labels: np.ndarray, classes: Sequence[int], k: int = 1) -> float:
    """The part of the examples whose action, one class of every head, is among the k most probable ones.

    Source: Arnab et al. 2021, section 4.1, the best pair over the outer product of the heads' softmax probabilities.
    A product of probabilities is a sum of logits but for a term that all actions of an example share, and a class that
    k classes of its head precede is in none of the k best: so no more than k·k sums an example are ever compared.
    """
    n = len(logits)
    truth, width = np.zeros(n, np.int64), 1  # an action's number: row-major over the heads, as outer products lie
    best, numbers = np.zeros((n, 1)), np.zeros((n, 1), np.int64)
    for its_logits, its_labels, v in zip(split(logits, classes), split(labels, classes), classes, strict=True):
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
    """Σ (recall_i − recall_{i−1}) · precision_i over the thresholds i, which are the scores; NaN without a positive.

    scores: float[n]. positive: bool[n]. Examples of equal score are found together, so their order does not matter.
    """
    if not positive.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of those that share a score
    hits = np.cumsum(positive[order])[last]
    found = np.flatnonzero(last) + 1
    return float((np.diff(hits, prepend=0) * hits / found).sum() / hits[-1])


def average_precisions(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64[v]: the average precision of every class. logits, labels (any number of ones a row): [n v]."""
    return np.array([average_precision(one, mine > 0) for one, mine in zip(logits.T, labels.T, strict=True)])


def mean(values: np.ndarray) -> float:
    """The mean of those that are not NaN; NaN if there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _head(logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    counts = confusion(logits, labels)
    accuracies, examples = per_class_accuracy(counts), counts.sum(1)
    return {
        **{f"top_{k}": top_k(logits, labels, k) for k in (1, BEST) if k < max(2, logits.shape[1])},
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
    """int64[n]: how many classes come before this one of each row. logits: [n v], number: int64[n]."""
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
    if not multi_label and any((part.sum(1) != 1).any() for part in split(labels, classes)):
        raise ValueError("labels has a row that is not one-hot: it must have one 1 a head, unless multi_label is set")
    return logits, labels


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
