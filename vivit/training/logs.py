"""What is measured while a model learns: as lines of JSON, and as TensorBoard files (without TensorFlow).

metrics.jsonl is the record. A line is an event: its step, its kind, the time in seconds since 1970, and the values; one
that is not finite is null. A process may be killed at any moment: a line that it did not finish is cut off when its
run goes on. TensorBoard's files are written some seconds later and stand in folders of their own.
"""

import json
import math
import os
import time
from pathlib import Path
from typing import Any, Literal, get_args

from vivit.json_files import as_object
from vivit.writing import remove_unfinished, write_file

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"  # names within the folder
Kind = Literal["train", "validation"]
RESERVED = ("step", "kind", "time")
SECONDS = 5  # between TensorBoard's visits to the disk


class Logs:
    """Appends events to folder/metrics.jsonl and folder/tensorboard/.

    resume_step: the step from which a run goes on; events after it, which are going to happen again, are dropped, from
    TensorBoard's view too. None: a new run.
    Raises ValueError if the folder has events of another run already, if its lines are damaged (but for the end of the
    last one), or without tensorboardX.
    """

    def __init__(self, folder: str | Path, resume_step: int | None = None) -> None:
        writer = _tensorboard()
        self._path = Path(folder) / METRICS
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if resume_step is not None:
            _cut_after(self._path, resume_step)
        elif self._path.exists() and read_metrics(self._path):
            raise ValueError(f"{self._path} has the events of another run: resume that, or name another folder")
        else:
            self._path.write_bytes(b"")
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._writer = writer(
            str(Path(folder) / TENSORBOARD),
            purge_step=None if resume_step is None else resume_step + 1,
            flush_secs=SECONDS,
            filename_suffix=f".{time.time_ns()}",  # or a run that goes on within a second would replace its own file
        )

    def __enter__(self) -> "Logs":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, values: dict[str, float], kind: Kind = "train") -> None:
        """Appends one event. Raises ValueError for another kind, or if a value has a name of the event's own."""
        if kind not in get_args(Kind):
            raise ValueError(f"kind is {kind!r}: it must be one of {', '.join(get_args(Kind))}")
        if taken := [name for name in values if name in RESERVED]:
            raise ValueError(f"values has {taken[0]!r}: an event has one of its own, name it otherwise")
        numbers = {name: float(value) for name, value in values.items()}
        event = {"step": int(step), "kind": kind, "time": round(time.time(), 3)}
        event |= {name: number if math.isfinite(number) else None for name, number in numbers.items()}
        _append(self._file, json.dumps(event, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        for name, number in numbers.items():
            self._writer.add_scalar(f"{kind}/{name}", number, int(step))

    def close(self) -> None:
        """Waits until everything is written. Closing twice is closing once."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._writer.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The events of a metrics.jsonl in order; the end of a last line that was not finished is left out.

    Raises ValueError, naming the line, if another one is no event.
    """
    return [json.loads(line) for line in _lines(Path(path))]


def _append(file: int, line: bytes) -> None:
    """One call of the system for a line, so that a killed process leaves all of it or none, but for full disks."""
    while line:
        line = line[os.write(file, line) :]


def _cut_after(path: Path, step: int) -> None:
    """Leaves the whole lines up to this step. The file is replaced at once, or stays as it is."""
    remove_unfinished(path)
    if not path.exists():
        return
    kept = b"".join(line for line in _lines(path) if json.loads(line)["step"] <= step)
    if len(kept) < path.stat().st_size:
        write_file(path, lambda temporary: temporary.write_bytes(kept))


def _lines(path: Path) -> list[bytes]:
    """Whole lines with an event each."""
    if not path.is_file():
        raise ValueError(f"{path} is not a file: it must be a {METRICS}")
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    lines = [line + b"\n" for line in whole.split(b"\n")] if whole else []
    for number, line in enumerate(lines, 1):
        where = f"{path} line {number}"
        try:
            event = as_object(line.decode(), where)
            event.count("step", least=0)
            event.choice("kind", get_args(Kind))
        except ValueError as error:
            raise ValueError(f"{where} is damaged: it must be a JSON object with a step and a kind: {error}") from None
    return lines


def _tensorboard() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ValueError('tensorboardX is not installed: install it with: pip install "vivit[train]"') from None
    return SummaryWriter
