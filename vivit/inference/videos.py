"""What a user names as videos: files, folders of files, standard input.

Streams that can be read only once are copied to a temporary file, since a video is looked at more than once.
"""

import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from vivit.data.listing import videos_below
from vivit.paths import as_path, is_folder, status, unreadable
from vivit.writing import working_folder

STANDARD_INPUT = "-"
CHUNK = 1 << 20  # bytes copied at once


def videos(names: Sequence[str | Path]) -> list[str]:
    """The files that are meant, in the order named; those of a folder, and of folders in it, sorted.

    Hidden files are left out. "-" is standard input and stays. Raises ValueError for a folder without a video or that
    cannot be read, for what is no path, and for standard input named twice.
    """
    found: list[str] = []
    for name in names:
        if str(name) == STANDARD_INPUT or not _is_folder(as_path(name)):
            found.append(str(name))
            continue
        inside = videos_below(name).videos
        if not inside:
            raise ValueError(f"{name} is a folder without videos: it must hold files such as .mp4, .mkv or .avi")
        found += map(str, inside)
    if found.count(STANDARD_INPUT) > 1:
        raise ValueError("- is named twice: standard input can be read only once")
    return found


def called(video: str | Path | np.ndarray) -> str:
    """What a video is called in a message."""
    if isinstance(video, np.ndarray):
        return "an array"
    return "standard input" if str(video) == STANDARD_INPUT else str(video)


@contextmanager
def seekable(name: str) -> Iterator[str]:
    """The path of a file for this name: itself, or a temporary copy of standard input or of a named pipe.

    Errors inside the block that name the copy name the stream instead. Raises ValueError if the stream cannot be read.
    """
    if name == STANDARD_INPUT:
        if sys.stdin is None:
            raise ValueError("standard input is closed: it must be a video")
        with _copied(sys.stdin.buffer, "standard input") as copy:
            yield copy
    elif _is_pipe(name):
        with _opened(name) as stream, _copied(stream, name) as copy:
            yield copy
    else:
        yield name


@contextmanager
def _copied(stream: IO[bytes], name: str) -> Iterator[str]:
    with working_folder(Path(tempfile.gettempdir())) as folder:
        copy = folder / "video"
        try:
            with copy.open("wb") as file:
                shutil.copyfileobj(stream, file, CHUNK)
        except OSError as error:
            raise ValueError(f"{name} cannot be copied to {folder.parent}: {error.strerror or error}") from None
        try:
            yield str(copy)
        except ValueError as error:
            raise ValueError(str(error).replace(str(copy), name)) from None


def _opened(name: str) -> IO[bytes]:
    try:
        return open(name, "rb")
    except OSError as error:
        raise unreadable(name, error) from None


def _is_folder(path: Path) -> bool:
    """False for what cannot be looked at, too: that costs that video only."""
    try:
        return is_folder(path)
    except ValueError:
        return False


def _is_pipe(name: str) -> bool:
    found = status(name)
    return found is not None and stat.S_ISFIFO(found.st_mode)
