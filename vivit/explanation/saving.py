"""Saves explanations as a page or a picture, according to the suffix of the file name."""

from collections.abc import Iterable
from pathlib import Path

from vivit.explanation.data import ExplanationData
from vivit.explanation.page import framed, page
from vivit.explanation.picture import check_installed, write_picture
from vivit.files.atomic import check_writable, write_text
from vivit.files.paths import as_path

PAGES, PICTURES = (".html", ".htm"), (".png",)


def save(explanation: ExplanationData, path: str | Path, inputs: Iterable[str | Path] = ()) -> str:
    """Writes a self-contained page (.html), or a picture (.png), which requires the [plot] extra.

    path: "-" is standard output, which gets the page. inputs: files that are read; path must be none of them.
    Returns a warning about characters without a font, which the picture also shows; "" without such characters.
    Raises ValueError, naming the path, if the suffix is unknown, the folder does not exist or the extra is missing.
    """
    path = as_path(path)
    check_output(path, inputs)
    if path.suffix.lower() in PICTURES:
        return write_picture(explanation, path)
    write_text(path, page(explanation), inputs=inputs)
    return ""


def check_output(path: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Raises ValueError unless the suffix is known, the file can be written, and for a picture Matplotlib is there."""
    check_writable(path, suffixes=(*PAGES, *PICTURES), inputs=inputs, piped="text")
    if path.suffix.lower() in PICTURES:
        check_installed()


class Explanation(ExplanationData):
    """The result of `vivit.explain`: ExplanationData with methods."""

    def save(self, path: str | Path) -> None:
        """Writes a self-contained page (.html) or a still picture (.png). Raises ValueError as `save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        """Returns the page in an iframe, for notebooks."""
        return framed(self)
