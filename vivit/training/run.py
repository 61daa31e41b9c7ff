"""Defines Run: the folder, intervals, devices and threads of a training run. What the run learns is in recipe.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vivit.video.prefetch import check_threads

if TYPE_CHECKING:
    from vivit.data.clips import Broken


@dataclass(frozen=True, kw_only=True)
class Run:
    """Options of a training run that do not change what it learns, so they may change when it resumes.

    folder: receives checkpoints/, metrics.jsonl, TensorBoard's files, best/ (the model of the best validation so far)
        and, at the end, model/ (the last model).
    save_every, log_every: intervals in steps. keep: number of checkpoints to keep.
    validate_every: interval in steps; None: after each epoch and at the end.
    patience: number of validations without a new best after which the run ends; None: no limit.
    mesh: devices along data, sequence and model; (1, 1, 1): the first device alone; None: all devices along data.
    threads: number of decoding threads. cache: a folder for decoded frames.
    broken: "fail" or "skip" for videos that cannot be used; loading.training_batches describes damaged ones.

    Raises ValueError, naming the field and the requirement.
    """

    folder: Path
    save_every: int = 500
    log_every: int = 10
    keep: int = 3
    validate_every: int | None = None
    patience: int | None = None
    mesh: tuple[int, int, int] | None = None
    threads: int = 2
    broken: "Broken" = "fail"
    cache: Path | None = None

    def __post_init__(self) -> None:
        for name in ("save_every", "log_every", "keep", "validate_every", "patience"):
            value = getattr(self, name)
            optional = name in ("validate_every", "patience")
            if not (optional and value is None) and (type(value) is not int or value < 1):
                raise ValueError(f"{name} is {value!r}: it must be a positive integer")
        check_threads(self.threads)
