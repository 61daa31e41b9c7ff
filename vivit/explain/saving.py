"""Explanations as files: a page or a picture, by the ending of the name."""

from collections.abc import Iterable
from pathlib import Path

from vivit.explain.explanation import Explanation
from vivit.explain.page import page
from vivit.explain.picture import check_installed, write_picture
from vivit.paths import as_path
from vivit.writing import check_place, write_text

PAGES, PICTURES = (".html", ".htm"), (".png",)


def save(explanation: Explanation, path: str | Path, inputs: Iterable[str | Path] = ()) -> str:
    """Writes a self-contained page (.html), or a still picture (.png), which needs the [plot] extra.

    "-" is standard output, and gets the page. inputs: files that are read, none of which it may be.
    Returns which fonts are missing here for letters of a picture, as it says below itself; "" if none is.
    Raises ValueError, naming the path, for another ending, a folder that is not there, or without the extra.
    """
    path = as_path(path)
    check_output(path, inputs)
    if path.suffix.lower() in PICTURES:
        return write_picture(explanation, path)
    write_text(path, page(explanation), inputs=inputs)
    return ""


def check_output(path: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Raises ValueError unless the ending is known, a file can be written there, and for a picture matplotlib too."""
    check_place(path, suffixes=(*PAGES, *PICTURES), inputs=inputs, piped="text")
    if path.suffix.lower() in PICTURES:
        check_installed()
