"""Resolves the videos that a user names: files, folders, standard input.

In a folder, videos are recognised by the suffix of their name; other files are ignored. A stream that can be read only
once is copied to a temporary file, because a video is read more than once.
"""

import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from vivit.files.atomic import working_folder
from vivit.files.paths import as_path, files_below, is_folder, status, unreadable
from vivit.video import archive

STANDARD_INPUT = "-"
CHUNK = 1 << 20  # bytes per copy


def videos(names: Sequence[str | Path]) -> list[str]:
    """Returns the video files, in the order named. Replaces a folder by its videos at any depth, sorted.

    Hidden files are left out. "-" is standard input and is returned as it is. Raises ValueError if a folder has no
    video or cannot be read, a name is not a path, or standard input is named twice.
    """
    paths: list[str] = []
    for name in names:
        if str(name) == STANDARD_INPUT or not _is_folder(as_path(name)):
            paths.append(str(name))
            continue
        inside = videos_below(name).videos
        if not inside:
            raise ValueError(f"{name} is a folder without videos: it must hold files such as .mp4, .mkv or .avi")
        paths += map(str, inside)
    if paths.count(STANDARD_INPUT) > 1:
        raise ValueError("- is named twice: standard input can be read only once")
    return paths


def video_name(video: str | Path | np.ndarray) -> str:
    """Returns the name of a video for messages."""
    if isinstance(video, np.ndarray):
        return "an array"
    return "standard input" if str(video) == STANDARD_INPUT else str(video)


@contextmanager
def seekable(name: str) -> Iterator[str]:
    """Yields a path that can be read repeatedly: the name itself, or a copy of what has none.

    Standard input, a named pipe and a video in a tar file (see archive.py) are copied. A ValueError inside the block
    that names the copy is raised with the name of the stream. Raises ValueError if the stream cannot be read.
    """
    if name == STANDARD_INPUT:
        if sys.stdin is None:
            raise ValueError("standard input is closed: it must be a video")
        with _copied(sys.stdin.buffer, "standard input") as copy:
            yield copy
    elif archive.NAME.fullmatch(name):
        with archive.open_member(name) as stream, _copied(stream, name) as copy:
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
    """Returns False for an inaccessible path too: loading that video reports the error."""
    try:
        return is_folder(path)
    except ValueError:
        return False


def _is_pipe(name: str) -> bool:
    found = status(name)
    return found is not None and stat.S_ISFIFO(found.st_mode)


# suffixes of videos in folders; a file that the user names may have any suffix
SUFFIX = re.compile(
    r"\.(3gp|asf|avi|flv|gif|h?26[45]|hevc|m2ts|m4v|mjpe?g|mkv|mov|mp4|mpe?g|mts|mxf|ogv|ts|vob|webm|wmv|y4m)",
    re.IGNORECASE,
)


class Listing(NamedTuple):
    """The files in a folder and its subfolders, sorted, without hidden ones."""

    videos: list[Path]
    others: list[Path]


def videos_below(folder: str | Path) -> Listing:
    """Lists the files in a folder and its subfolders. Raises ValueError, naming it, if a folder cannot be read."""
    listing = Listing([], [])
    for path in sorted(files_below(folder)):
        (listing.videos if SUFFIX.fullmatch(path.suffix) else listing.others).append(path)
    return listing
