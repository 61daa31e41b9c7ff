"""The videos of a folder, told by their names alone: what else lies there (Thumbs.db, pictures, notes) is none."""

import re
from pathlib import Path
from typing import NamedTuple

from vivit.paths import files_below

# what is looked for in folders; a file that is named itself may be called anything
SUFFIX = re.compile(
    r"\.(3gp|asf|avi|flv|gif|h?26[45]|hevc|m2ts|m4v|mjpe?g|mkv|mov|mp4|mpe?g|mts|mxf|ogv|ts|vob|webm|wmv|y4m)",
    re.IGNORECASE,
)


class Listing(NamedTuple):
    """The files in a folder and in those below, sorted; hidden ones are in neither."""

    videos: list[Path]
    others: list[Path]


def videos_below(folder: str | Path) -> Listing:
    """Raises ValueError, naming it, for a folder that cannot be read."""
    found = Listing([], [])
    for path in sorted(files_below(folder)):
        (found.videos if SUFFIX.fullmatch(path.suffix) else found.others).append(path)
    return found
