"""Looks up paths. A path that cannot be accessed raises an error; it is not treated as missing."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from vivit.reference.values import quoted, shortened

MAX_PATH, MAX_NAME = 4095, 255  # limits of file systems in bytes, of a path and of each name in it


def as_path(path: str | Path) -> Path:
    """Returns the path.

    Raises ValueError if it is empty, too long, of another type, or has characters no file name can have.
    """
    if not isinstance(path, (str, Path)):
        raise ValueError(f"a path is of type {type(path).__name__}: it must be a text or a pathlib.Path")
    text = str(path)
    if not text:  # pathlib would read it as the current folder
        raise ValueError("'' is no path: it must name a file or folder")
    try:
        names = os.fsencode(text).split(os.fsencode(os.sep))
    except UnicodeEncodeError:
        names = [b"\0"]
    if any(b"\0" in name for name in names):
        raise ValueError(f"{quoted(text)} is no path: it must consist of characters that file names allow")
    size, longest = sum(map(len, names)) + len(names) - 1, max(map(len, names))
    if size > MAX_PATH or longest > MAX_NAME:
        sizes = f"has {size:,} bytes, and a name of {longest:,} in it"
        raise ValueError(f"{shortened(text)} {sizes}: a path has at most {MAX_PATH:,}, a name {MAX_NAME}")
    return Path(path)


def status(path: str | Path) -> os.stat_result | None:
    """Returns the status of a path, following links, or None if nothing exists there.

    Raises ValueError as as_path does, and if the path cannot be accessed.
    """
    try:
        return os.stat(as_path(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from None


def is_file(path: str | Path) -> bool:
    """Returns whether a regular file exists at the path. Raises ValueError as status does."""
    found = status(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: str | Path) -> bool:
    """Returns whether a folder exists at the path. Raises ValueError as status does."""
    found = status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def entries(folder: str | Path) -> list[Path]:
    """Returns the paths in a folder, sorted, without hidden ones.

    Raises ValueError, naming it, if it cannot be read.
    """
    try:
        return sorted(Path(folder) / name for name in os.listdir(as_path(folder)) if not name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from None


def files_below(folder: str | Path) -> Iterator[Path]:
    """Yields the regular files in a folder and its subfolders, without hidden ones.

    Follows links to files, not to folders.

    A file that cannot be accessed is included, so that reading it reports the reason. Raises ValueError, naming it, for
    a folder that cannot be read.
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
    """Returns a one-line error for an OSError of a path."""
    return ValueError(f"{path} cannot be read: {error.strerror or error}")


JOINERS = "\u200c\u200d"  # needed to spell Persian, Hindi and other scripts


def printable(text: str) -> str:
    """Replaces characters that are not printable, such as control codes and lone surrogates, by U+FFFD."""
    return "".join(
        letter if letter.isprintable() or letter in JOINERS else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
