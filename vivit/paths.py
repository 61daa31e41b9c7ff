"""What a path is and what it names, found out without guessing: what cannot be looked at is an error, not "nothing"."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from vivit.reference.values import quoted, shortened

LONGEST, LONGEST_NAME = 4095, 255  # bytes, of a path and of each name in it: what file systems take


def as_path(path: str | Path) -> Path:
    """The path. Raises ValueError for what no file can be called: nothing, another type, no letters, too long."""
    if not isinstance(path, (str, Path)):
        raise ValueError(f"a path is of type {type(path).__name__}: it must be a text or a pathlib.Path")
    text = str(path)
    if not text:  # which pathlib takes for the folder one is in
        raise ValueError("'' is no path: it must name a file or folder")
    try:
        names = os.fsencode(text).split(os.fsencode(os.sep))
    except UnicodeEncodeError:
        names = [b"\0"]
    if any(b"\0" in name for name in names):
        raise ValueError(f"{quoted(text)} is no path: it must be letters that a name can have")
    size, longest = sum(map(len, names)) + len(names) - 1, max(map(len, names))
    if size > LONGEST or longest > LONGEST_NAME:
        told = f"has {size:,} bytes, and a name of {longest:,} in it"
        raise ValueError(f"{shortened(text)} {told}: a path has at most {LONGEST:,}, a name {LONGEST_NAME}")
    return Path(path)


def status(path: str | Path) -> os.stat_result | None:
    """What is there, links followed; None: nothing. Raises ValueError as as_path, and for what cannot be looked at."""
    try:
        return os.stat(as_path(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from None


def is_file(path: str | Path) -> bool:
    """Whether a regular file is there. Raises ValueError as status."""
    found = status(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there. Raises ValueError as status."""
    found = status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def entries(folder: str | Path) -> list[Path]:
    """What a folder holds, hidden names left out, sorted. Raises ValueError, naming it, if it cannot be read."""
    try:
        return sorted(Path(folder) / name for name in os.listdir(as_path(folder)) if not name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from None


def files_below(folder: str | Path) -> Iterator[Path]:
    """The regular files in a folder and in folders of it, hidden ones left out; linked files, but no linked folders.

    What cannot be looked at is among them: whoever reads it says why. Raises ValueError, naming it, for a folder that
    cannot be read.
    """
    for path in entries(folder):
        try:
            found = status(path)
        except ValueError:
            yield path
            continue
        if found is not None and stat.S_ISDIR(found.st_mode):
            if not path.is_symlink():
                yield from files_below(path)
        elif found is not None and stat.S_ISREG(found.st_mode):
            yield path


def unreadable(path: str | Path, error: OSError) -> ValueError:
    """The one-line error for what the system says of a path."""
    return ValueError(f"{path} cannot be read: {error.strerror or error}")
