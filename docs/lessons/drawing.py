"""The figures of the lessons: SVG in the color of the page around it, so that one drawing fits light and dark pages.

figure, axes = drawing.figure(width=6, height=2)
axes.plot(…)
drawing.show(figure, "What the figure shows, in a sentence.")  # the last line of a cell
"""

import io
import re
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Rectangle

BLUE, ORANGE, GREEN, PURPLE, GREY = "#2b7bba", "#d9622b", "#2a9d6e", "#a05cc0", "#808080"  # 3:1 on white and on black
STYLE = {
    "svg.fonttype": "none",  # letters stay letters: small files, and text that can be searched and read aloud
    "svg.hashsalt": "vivit",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.facecolor": "none",
    "axes.prop_cycle": mpl.cycler(color=[BLUE, ORANGE, GREEN, PURPLE, GREY]),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.interpolation": "none",
    "image.cmap": "viridis",
    "image.composite_image": False,
}


class Drawn:
    """A figure that a notebook shows as SVG."""

    def __init__(self, svg: str, text: str) -> None:
        self.svg, self.text = svg, text

    def _repr_html_(self) -> str:
        return f'<figure class="drawn">{self.svg}<figcaption>{escape(self.text)}</figcaption></figure>'


def figure(rows: int = 1, columns: int = 1, *, width: float = 7.0, height: float = 2.5, **options: Any) -> Any:
    """A figure and its axes. width, height: in inches. options: of Figure.subplots."""
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(width, height), layout="constrained")
        return made, made.subplots(rows, columns, **options)


def show(drawn: Figure, text: str) -> Drawn:
    """The figure with a caption, which is also what a screen reader says of it."""
    for legend in drawn.findobj(Legend):
        legend.set_frame_on(False)
    written = io.StringIO()
    with mpl.rc_context(STYLE):
        drawn.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"^.*?<svg", "<svg", written.getvalue(), flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace("#000000", "currentColor")
    return Drawn(svg.replace("<svg", f'<svg role="img" aria-label="{escape(text)}" fill="currentColor"', 1), text)


def picture(axes: Any, values: Any, title: str = "", **options: Any) -> Any:
    """Draws an image, or a matrix as one, without ticks. options: of Axes.imshow."""
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes.imshow(values, interpolation="none", **options)


def numbers(axes: Any, matrix: Any, form: str = ".2f", **options: Any) -> None:
    """Draws a small matrix as an image with its numbers written in the cells."""
    shown = picture(axes, matrix, **options)
    for (row, column), value in _entries(matrix):
        red, green, blue, _ = shown.cmap(shown.norm(value))
        dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
        axes.text(
            column,
            row,
            format(value, form),
            ha="center",
            va="center",
            color="#ffffff" if dark else "#010101",
            fontsize=9,
        )


def _entries(matrix: Any):
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            yield (row, column), value


def box(x: float, y: float, width: float, height: float, color: str = ORANGE) -> Rectangle:
    """An empty rectangle to add to axes, in their units."""
    return Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=2)


def overlay(axes: Any, strength: Any, title: str = "") -> None:
    """Lays a matrix of 0 to 1 over a picture whose extent is (0, columns, rows, 0), in orange."""
    rows, columns = strength.shape
    colors = [*(int(ORANGE[i : i + 2], 16) / 255 for i in (1, 3, 5))]
    shown = [[(*colors, 0.85 * float(value) ** 0.5) for value in row] for row in strength]
    picture(axes, shown, title, extent=(0, columns, rows, 0))
