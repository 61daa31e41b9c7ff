"""What a user names as videos: files, folders of files, standard input.

Streams that can be read only once are copied to a temporary file, since a video is looked at more than once.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from vivit.paths import as_path

STANDARD_INPUT = "-"
CHUNK = 1 << 20  # bytes copied at once
# what is looked for in folders; a file that is named itself may be called anything
SUFFIX = re.compile(
    r"\.(3gp|asf|avi|flv|gif|h?26[45]|hevc|m2ts|m4v|mjpe?g|mkv|mov|mp4|mpe?g|mts|mxf|ogv|ts|vob|webm|wmv|y4m)",
    re.IGNORECASE,
)


def videos(names: Sequence[str | Path]) -> list[str]:
    """The files that are meant, in the order named; those of a folder, and of folders in it, sorted.

    Hidden files are left out. "-" is standard input and stays. Raises ValueError for a folder without a video, and for
    standard input named twice.
    """
    found: list[str] = []
    for name in names:
        folder = as_path(name)
        if str(name) == STANDARD_INPUT or not folder.is_dir():
            found.append(str(name))
            continue
        inside = sorted(file for file in folder.rglob("*") if _is_video(file.relative_to(folder)) and file.is_file())
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

    Errors inside the block that name the copy name the stream instead.
    """
    if name == STANDARD_INPUT:
        with _copied(sys.stdin.buffer, "standard input") as copy:
            yield copy
    elif Path(name).is_fifo():
        with open(name, "rb") as stream, _copied(stream, name) as copy:
            yield copy
    else:
        yield name


@contextmanager
def _copied(stream: IO[bytes], name: str) -> Iterator[str]:
    with tempfile.NamedTemporaryFile(prefix="vivit-") as copy:
        shutil.copyfileobj(stream, copy, CHUNK)
        copy.flush()
        try:
            yield copy.name
        except ValueError as error:
            raise ValueError(str(error).replace(copy.name, name)) from None


def _is_video(path: Path) -> bool:
    return SUFFIX.fullmatch(path.suffix) is not None and not any(part.startswith(".") for part in path.parts)
