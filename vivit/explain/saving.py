"""Explanations as files: a page or a picture, by the ending of the name."""

from pathlib import Path

from vivit.explain.explanation import Explanation
from vivit.explain.page import page
from vivit.explain.picture import check_installed, write_picture
from vivit.writing import check_place, write_text

PAGES, PICTURES = (".html", ".htm"), (".png",)


def save(explanation: Explanation, path: str | Path) -> str:
    """Writes a self-contained page (.html), or a still picture (.png), which needs the [plot] extra.

    Returns which fonts are missing here for letters of a picture, as it says below itself; "" if none is.
    Raises ValueError, naming the path, for another ending, a folder that is not there, or without the extra.
    """
    path = Path(path)
    check_output(path)
    if path.suffix.lower() in PICTURES:
        return write_picture(explanation, path)
    write_text(path, page(explanation))
    return ""


def check_output(path: Path) -> None:
    """Raises ValueError unless the ending is known, a file can be written there, and for a picture matplotlib too."""
    if path.suffix.lower() not in (*PAGES, *PICTURES):
        raise ValueError(f"{path} must end in {PAGES[0]} or {PICTURES[0]}")
    check_place(path)
    if path.suffix.lower() in PICTURES:
        check_installed()
