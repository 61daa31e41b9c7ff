"""A file that changes while it is read: what was made of it is of no use, and the error says that it changed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class State(NamedTuple):
    """What tells two states of a file apart."""

    file: tuple[int, int]  # device and number
    size: int
    time: int


def state_of(path: str | Path) -> State | None:
    """None if nothing is there, or it cannot be looked at."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return State((status.st_dev, status.st_ino), status.st_size, status.st_mtime_ns)


@contextmanager
def steady(path: str | Path, before: State | None = None) -> Iterator[None]:
    """Raises ValueError, saying how, if a file changed while it was read in the block, whatever became of that.

    before: its state when reading began; None: when the block begins.
    """
    before = before or state_of(path)
    try:
        yield
    except (ValueError, OSError):
        _check(path, before)
        raise
    _check(path, before)


def _check(path: str | Path, before: State | None) -> None:
    after = state_of(path)
    if before is None or after == before:
        return
    if after is None or after.file != before.file:
        how = "was removed" if after is None else "was replaced by another file"
    elif after.size == before.size:
        how = "was changed"
    else:
        verb = "grew" if after.size > before.size else "shrank"
        how = f"{verb} from {before.size:,} to {after.size:,} bytes"
    raise ValueError(f"{path} {how} while it was read: it must be whole before it is used") from None
