"""An evaluation that was interrupted: what it had summed up, where its loader was, and of what it was.

One file, replaced at once, so that sums and position always belong together. Nothing in it is pickled.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vivit.checkpoints.files import read_npz
from vivit.data.sources import Dataset
from vivit.json_files import as_object
from vivit.writing import write_file

NAME = "evaluation.npz"


class Sums(NamedTuple):
    """Of every example: logits float64[n v], summed over the views that were seen, and how many, int64[n]."""

    logits: np.ndarray
    views: np.ndarray


def save_unfinished(folder: Path, sums: Sums, loader: dict[str, Any], about: dict[str, Any]) -> None:
    """Replaces the folder's file. loader: its state. about: all that the result depends on, as plain JSON data."""
    reached = int(np.flatnonzero(sums.views)[-1]) + 1 if sums.views.any() else 0  # they are evaluated in order
    arrays = {
        "logits": sums.logits[:reached],
        "views": sums.views[:reached],
        "text": np.array(json.dumps({"about": about, "loader": loader})),
    }

    def write(path: Path) -> None:
        with path.open("wb") as file:  # given a name, NumPy would add .npz to it
            np.savez(file, allow_pickle=False, **arrays)

    write_file(folder / NAME, write)


def load_unfinished(folder: Path, sums: Sums, about: dict[str, Any]) -> dict[str, Any] | None:
    """Fills the sums in and returns the loader's state; None if the folder has no evaluation yet.

    Raises ValueError if that in the folder is of something else, naming what differs, or cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        arrays = read_npz(path)
        text = as_object(str(arrays["text"]), f"{path}'s text")
        old, loader = text.object("about").values, text.object("loader").values
        logits, views = arrays["logits"], arrays["views"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} cannot be read: remove it to start anew: {error}") from None
    now = json.loads(json.dumps(about))
    if changed := sorted(name for name in {*old, *now} if old.get(name) != now.get(name)):
        raise ValueError(
            f"{path} is of an evaluation with other {', '.join(changed)}: name another folder or remove it"
        )
    if views.ndim != 1 or logits.shape != (len(views), sums.logits.shape[1]) or len(views) > len(sums.views):
        shapes = f"logits and views of shapes {logits.shape} and {views.shape}"
        raise ValueError(f"{path} has {shapes}, which do not fit the data: remove it to start anew")
    sums.logits[: len(logits)], sums.views[: len(views)] = logits, views
    return loader


def digest_of_dataset(dataset: Dataset) -> str:
    """A hash of the labels' names, and of every example with its file's size and time; a changed file is another."""
    digest = hashlib.sha256(repr((dataset.heads, dataset.names, dataset.multi_label)).encode())
    for example in dataset.examples:
        digest.update(repr((example, _changed(example.path))).encode())
    return digest.hexdigest()


def _changed(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:  # it is reported when it is loaded
        return None
    return status.st_size, status.st_mtime_ns
