"""Figures drawn with Matplotlib: blank ones, and how they become PNG files.

Without pyplot, so nothing is global, no display is needed and threads may draw. A letter that no font here has is a
box, and the picture says which font is missing; that a $ is no formula, each text says itself (parse_math).
"""

import warnings
from pathlib import Path
from typing import Any

from vivit import fonts
from vivit.printable import printable
from vivit.writing import check_place, write_file

DOTS = 120  # an inch


def check_installed() -> None:
    """Raises ValueError, saying how to install it, if Matplotlib is missing."""
    _matplotlib()


def blank(width: float, height: float, **options: Any) -> Any:
    """A matplotlib.figure.Figure of so many inches. Raises ValueError without Matplotlib. options: of Figure."""
    figure_of, canvas = _matplotlib()
    figure = figure_of(figsize=(width, height), dpi=DOTS, **options)
    canvas(figure)
    return figure


def write(figure: Any, png: Path, *, tight: bool = False) -> str:
    """The file appears whole, its texts in fonts that have their letters, or with a line below that says which lack.

    tight: cut to what is drawn. Returns that line, or "". Raises ValueError if no file can be written there.
    """
    from matplotlib.text import Text

    check_place(png)
    excuse = fonts.excuse(set[str]().union(*(fonts.fit(text) for text in figure.findobj(Text))))
    if excuse:
        figure.text(0.005, 0.005, excuse, fontsize=7, va="bottom", wrap=True, parse_math=False)
    options = dict(bbox_inches="tight", pad_inches=0.15) if tight else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        write_file(png, lambda temporary: figure.savefig(temporary, format="png", **options))
    return excuse


def short(name: str, longest: int = 40) -> str:
    """A name of at most so many characters, all of which can be shown."""
    name = printable(name)
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _matplotlib() -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError('Matplotlib is not installed: install it with: pip install "vivit[plot]"') from None
    return Figure, FigureCanvasAgg
