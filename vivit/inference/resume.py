"""Saves and loads the state of an unfinished evaluation: sums of logits, position, and a description of its inputs.

The state is one npz file, replaced atomically, so that sums and position always match. It contains no pickles.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vivit.checkpoints.files import read_npz
from vivit.data.sources import Dataset
from vivit.files.atomic import write_file
from vivit.files.json_files import Fields, parse_object

NAME = "evaluation.npz"


class Sums(NamedTuple):
    """logits: float64[n v], the sum over the evaluated views of every example. views: int64[n], their number."""

    logits: np.ndarray
    views: np.ndarray


@dataclass(frozen=True)
class Position:
    """The next view to evaluate. broken: the errors of the videos left out so far, by path."""

    example: int = 0
    view: int = 0
    broken: dict[str, str] = field(default_factory=dict)


def save_unfinished(folder: Path, sums: Sums, position: Position, about: dict[str, Any]) -> None:
    """Replaces the file in the folder. about: everything that the result depends on, as JSON data."""
    reached = int(np.flatnonzero(sums.views)[-1]) + 1 if sums.views.any() else 0  # examples are evaluated in order
    arrays = {
        "logits": sums.logits[:reached],
        "views": sums.views[:reached],
        "text": np.array(json.dumps({"about": about, "position": asdict(position)})),
    }

    def write(path: Path) -> None:
        with path.open("wb") as file:  # NumPy would append .npz to a file name
            np.savez(file, allow_pickle=False, **arrays)

    write_file(folder / NAME, write)


def load_unfinished(folder: Path, sums: Sums, about: dict[str, Any]) -> Position | None:
    """Copies the saved sums into `sums` and returns the position; None if the folder has no saved evaluation.

    Raises ValueError if the file cannot be read or is of another evaluation, naming the differences.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        arrays = read_npz(path)
        text = parse_object(str(arrays["text"]), f"{path}'s text")
        old, position = text.object("about").values, _position(text.object("position"))
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
    if position.example > len(sums.views):
        raise ValueError(f"{path} is at example {position.example} of {len(sums.views)}: remove it to start anew")
    sums.logits[: len(logits)], sums.views[: len(views)] = logits, views
    return position


def _position(fields: Fields) -> Position:
    broken = fields.object("broken").values
    return Position(fields.count("example", least=0), fields.count("view", least=0), broken)


def hash_of_dataset(dataset: Dataset) -> str:
    """Returns a hash of the label names, the examples, and the sizes and modification times of their files."""
    digest = hashlib.sha256(repr((dataset.heads, dataset.names, dataset.multi_label)).encode())
    for example in dataset.examples:
        digest.update(repr((example, _size_and_time(example.path))).encode())
    return digest.hexdigest()


def _size_and_time(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:  # loading the video reports it
        return None
    return status.st_size, status.st_mtime_ns
