"""Where and on what a training runs; what it learns is recipe.py's."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vivit.inference.ahead import check_threads

if TYPE_CHECKING:
    from vivit.data.loading import Broken


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and on what a training runs: nothing here changes what is learned, so that it may change on a resume.

    folder: receives checkpoints/, metrics.jsonl, TensorBoard's files, best/, the model of the best validation so far,
    and, at the end, model/, the last. save_every, log_every: steps. keep: checkpoints. validate_every: steps; None:
    after each epoch and at the end. patience: validations that may follow the best one before the run ends; None: any
    number. mesh: devices along data, sequence and model, (1, 1, 1): the first alone; None: all along data. threads:
    that decode. broken: "fail" or "skip" videos that cannot be used; what is damaged fails or is used as it is
    (loading.training_batches). cache: a folder for decoded frames. Raises ValueError, naming the field and the
    requirement.
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
