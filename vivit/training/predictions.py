"""What a model said of each video of an evaluation, as a table: its labels, the best classes, their probabilities."""

import csv
import io
from pathlib import Path

import numpy as np

from vivit.training.evaluate import Result
from vivit.training.metrics import BEST, split
from vivit.writing import write_file


def write_predictions(path: Path, result: Result) -> None:
    """A CSV file with a row an example, in their order: path, start and end, and of each head its columns.

    Those are its label (several separated by "|"), then the name and the probability of the best class, of the second,
    and so on, up to five: softmax over the head, or with several labels an example each class by itself.
    """
    dataset = result.dataset
    columns = ["path", "start", "end"]
    for head, names in zip(dataset.heads, dataset.names, strict=True):
        best = range(1, min(BEST, len(names)) + 1)
        columns += [head, *(f"{head} {what}{number}" for number in best for what in ("", "probability "))]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    heads = [_best(part, dataset.multi_label) for part in split(result.logits, dataset.classes)]
    for row, number in enumerate(result.index.tolist()):
        example = dataset.examples[number]
        cells = [example.path, *("" if at is None else at for at in (example.start, example.end))]
        for names, labels, (places, probabilities) in zip(dataset.names, example.labels, heads, strict=True):
            cells.append("|".join(names[label] for label in labels))
            for place, probability in zip(places[row], probabilities[row], strict=True):
                cells += [names[place], f"{probability:.6f}"]
        table.writerow(cells)
    data = text.getvalue().encode("utf-8", "surrogateescape")  # a path keeps the bytes that its name has
    write_file(path, lambda temporary: temporary.write_bytes(data))


def _best(logits: np.ndarray, multi_label: bool) -> tuple[list[list[int]], list[list[float]]]:
    """The best classes of one head for each row of its logits [n v], and their probabilities; of equals the first."""
    if multi_label:
        probabilities = np.exp(-np.logaddexp(0, -logits))
    else:
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = weights / weights.sum(axis=1, keepdims=True)
    places = np.argsort(-logits, axis=1, kind="stable")[:, :BEST]
    return places.tolist(), np.take_along_axis(probabilities, places, axis=1).tolist()
