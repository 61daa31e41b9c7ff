"""What is measured while a model learns: as lines of JSON, and as TensorBoard files (without TensorFlow).

metrics.jsonl is the record. A line is an event: its step, its kind, the time in seconds since 1970, and the values; one
that is not finite is null. A process may be killed at any moment: a line that it did not finish is cut off when its
run goes on. TensorBoard's files stand in a folder of their own.
"""

import json
import math
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any, Literal, get_args

from vivit.json_files import as_object
from vivit.writing import naming, write_file

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"  # names within the folder
Kind = Literal["train", "validation"]
RESERVED = ("step", "kind", "time")


class Logs:
    """Appends events to folder/metrics.jsonl and folder/tensorboard/.

    resume_step: the step from which a run goes on; events after it, which are going to happen again, are dropped, from
    TensorBoard's view too. None: a new run.
    Raises ValueError if the folder has events of another run already, if its lines are damaged (but for the end of the
    last one), or without tensorboardX.
    """

    def __init__(self, folder: str | Path, resume_step: int | None = None) -> None:
        scalars = _tensorboard()
        self._path = Path(folder) / METRICS
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if resume_step is not None:
            _cut_after(self._path, resume_step)
        elif self._path.exists() and read_metrics(self._path):
            raise ValueError(f"{self._path} has the events of another run: resume that, or name another folder")
        else:
            self._path.write_bytes(b"")
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._tensorboard = scalars(Path(folder) / TENSORBOARD, resume_step)

    def __enter__(self) -> "Logs":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, values: dict[str, float], kind: Kind = "train") -> None:
        """Appends one event. Raises ValueError for another kind, or if a value has a name of the event's own.

        Raises OSError that names the file if the disk is full.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"kind is {kind!r}: it must be one of {', '.join(get_args(Kind))}")
        if taken := [name for name in values if name in RESERVED]:
            raise ValueError(f"values has {taken[0]!r}: an event has one of its own, name it otherwise")
        numbers = {name: float(value) for name, value in values.items()}
        event = {"step": int(step), "kind": kind, "time": round(time.time(), 3)}
        event |= {name: number if math.isfinite(number) else None for name, number in numbers.items()}
        with naming(self._path):
            _append(self._file, json.dumps(event, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._tensorboard.write(int(step), {f"{kind}/{name}": number for name, number in numbers.items()})

    def close(self) -> None:
        """Closing twice is closing once."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._tensorboard.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The events of a metrics.jsonl in order; the end of a last line that was not finished is left out.

    Raises ValueError, naming the line, if another one is no event.
    """
    return [json.loads(line) for line in _lines(Path(path))]


def _append(file: int, line: bytes) -> None:
    """One call of the system for all of it, so that a killed process leaves all or none; a full disk none either."""
    before = os.fstat(file).st_size
    try:
        while line:
            line = line[os.write(file, line) :]
    except OSError:
        os.ftruncate(file, before)
        raise


def _cut_after(path: Path, step: int) -> None:
    """Leaves the whole lines up to this step. The file is replaced at once, or stays as it is."""
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
    """Makes a file of TensorBoard's in a folder, for a run that goes on from a step, None: that begins.

    Written here, not by the library's thread, whose full disk would be nobody's error.
    """
    try:
        from tensorboardX import record_writer, summary
        from tensorboardX.proto import event_pb2
    except ImportError:
        raise ValueError('tensorboardX is not installed: install it with: pip install "vivit[train]"') from None

    messages: Any = event_pb2  # generated, so that nothing is known of it

    def record(**fields: Any) -> bytes:
        data = messages.Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        sums = (struct.pack("<I", record_writer.masked_crc32c(part)) for part in (length, data))
        return length + next(sums) + data + next(sums)

    class Scalars:
        def __init__(self, folder: Path, resume_step: int | None) -> None:
            # its time to the nanosecond, or a run that goes on within a second would replace its own file
            self._path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
            with naming(self._path):
                folder.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            self._append(record(file_version="brain.Event:2"))
            if resume_step is not None:  # TensorBoard then drops what it has of later steps
                self._append(
                    record(step=resume_step + 1, session_log=messages.SessionLog(status=messages.SessionLog.START))
                )

        def write(self, step: int, values: dict[str, float]) -> None:
            scalars = (summary.scalar(name, value) for name, value in values.items())
            self._append(b"".join(record(step=step, summary=scalar) for scalar in scalars))

        def close(self) -> None:
            os.close(self._file)

        def _append(self, data: bytes) -> None:
            with naming(self._path):
                _append(self._file, data)

    return Scalars
