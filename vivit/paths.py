"""Names of files and folders as they are given, before the system is asked for them."""

import os
from pathlib import Path

from vivit.reference.values import shortened

LONGEST, LONGEST_NAME = 4095, 255  # bytes, of a path and of each name in it: what file systems take


def as_path(path: str | Path) -> Path:
    """The path. Raises ValueError for what no file can be called: nothing, another type, too long."""
    if not isinstance(path, (str, Path)):
        raise ValueError(f"a path is of type {type(path).__name__}: it must be a text or a pathlib.Path")
    if str(path) == "":
        raise ValueError("a path is empty: it must name a file or a folder")
    size = len(os.fsencode(path))
    longest = max(len(os.fsencode(name)) for name in str(path).split(os.sep))
    if size > LONGEST or longest > LONGEST_NAME:
        told = f"has {size:,} bytes, and a name of {longest:,} in it"
        raise ValueError(f"{shortened(str(path))} {told}: a path has at most {LONGEST:,}, a name {LONGEST_NAME}")
    return Path(path)
