"""Writes the metrics of a training run as JSON lines and as TensorBoard files, without TensorFlow.

metrics.jsonl is the record. Each line is one event: its step, its kind, the time in seconds since 1970, and its values;
a value that is not finite is written as null. If a process is killed while it writes a line, that line is removed when
the run resumes. The TensorBoard files are in a folder of their own.
"""

import json
import math
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any, Literal, get_args

from vivit.files.atomic import report_write_errors, write_file
from vivit.files.json_files import parse_object

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"  # names in the folder of a run
Kind = Literal["train", "validation"]
RESERVED = ("step", "kind", "time")


class Logs:
    """Appends events to folder/metrics.jsonl and folder/tensorboard/.

    resume_step: the step from which the run resumes; later events, which will be repeated, are removed from
    metrics.jsonl and hidden by TensorBoard. None: a new run.

    Raises ValueError if the folder already has events of another run, if a line other than an incomplete last one is
    damaged, or if tensorboardX is not installed.
    """

    def __init__(self, folder: str | Path, resume_step: int | None = None) -> None:
        scalars = _tensorboard()
        self._path = Path(folder) / METRICS
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if resume_step is not None:
            _truncate_after(self._path, resume_step)
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
        """Appends one event.

        Raises ValueError for an unknown kind or a value with a reserved name, and OSError that names the file if the
        disk is full.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"kind is {kind!r}: it must be one of {', '.join(get_args(Kind))}")
        if reserved := [name for name in values if name in RESERVED]:
            raise ValueError(f"values has {reserved[0]!r}: this name is reserved, use another")
        numbers = {name: float(value) for name, value in values.items()}
        event = {"step": int(step), "kind": kind, "time": round(time.time(), 3)}
        event |= {name: number if math.isfinite(number) else None for name, number in numbers.items()}
        with report_write_errors(self._path):
            _append(self._file, json.dumps(event, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._tensorboard.write(int(step), {f"{kind}/{name}": number for name, number in numbers.items()})

    def close(self) -> None:
        """Closes the files. Further calls have no effect."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._tensorboard.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Returns the events of a metrics.jsonl in order, without an incomplete last line.

    Raises ValueError, naming the line, if any other line is not an event.
    """
    return [json.loads(line) for line in _lines(Path(path))]


def _append(file: int, line: bytes) -> None:
    """Appends a line completely or not at all: if the disk is full, the previous size is restored.

    A single system call writes the line where possible, so that a killed process leaves no part of it.
    """
    before = os.fstat(file).st_size
    try:
        while line:
            line = line[os.write(file, line) :]
    except OSError:
        os.ftruncate(file, before)
        raise


def _truncate_after(path: Path, step: int) -> None:
    """Removes the events after a step. The file is replaced atomically."""
    if not path.exists():
        return
    kept = b"".join(line for line in _lines(path) if json.loads(line)["step"] <= step)
    if len(kept) < path.stat().st_size:
        write_file(path, lambda temporary: temporary.write_bytes(kept))


def _lines(path: Path) -> list[bytes]:
    """Returns the complete lines, each of which is a valid event."""
    if not path.is_file():
        raise ValueError(f"{path} is not a file: it must be a {METRICS}")
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    lines = [line + b"\n" for line in whole.split(b"\n")] if whole else []
    for number, line in enumerate(lines, 1):
        source = f"{path} line {number}"
        try:
            event = parse_object(line.decode(), source)
            event.count("step", least=0)
            event.choice("kind", get_args(Kind))
        except ValueError as error:
            raise ValueError(f"{source} is damaged: it must be a JSON object with a step and a kind: {error}") from None
    return lines


def _tensorboard() -> Any:
    """Returns a class that writes scalars to a TensorBoard file in a folder. resume_step: as in Logs.

    The records are written here because the library writes them in a thread that ignores a full disk.
    """
    try:
        from tensorboardX import record_writer, summary
        from tensorboardX.proto import event_pb2
    except ImportError:
        raise ValueError('tensorboardX is not installed: install it with: pip install "vivit[train]"') from None

    messages: Any = event_pb2  # generated code without type annotations

    def record(**fields: Any) -> bytes:
        data = messages.Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        sums = (struct.pack("<I", record_writer.masked_crc32c(part)) for part in (length, data))
        return length + next(sums) + data + next(sums)

    class Scalars:
        def __init__(self, folder: Path, resume_step: int | None) -> None:
            # nanoseconds, so that a run resumed within the same second does not overwrite its own file
            self._path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
            with report_write_errors(self._path):
                folder.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            self._append(record(file_version="brain.Event:2"))
            if resume_step is not None:  # TensorBoard then drops events of later steps
                self._append(
                    record(step=resume_step + 1, session_log=messages.SessionLog(status=messages.SessionLog.START))
                )

        def write(self, step: int, values: dict[str, float]) -> None:
            scalars = (summary.scalar(name, value) for name, value in values.items())
            self._append(b"".join(record(step=step, summary=scalar) for scalar in scalars))

        def close(self) -> None:
            os.close(self._file)

        def _append(self, data: bytes) -> None:
            with report_write_errors(self._path):
                _append(self._file, data)

    return Scalars
