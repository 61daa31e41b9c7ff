"""Draws an explanation as a PNG: frames, attention, rollout and relevance maps, and the best labels.

Text is literal: a $ starts no formula, unprintable characters are replaced, and long text is truncated. The page
(page.py) has all layers and heads; the picture has the last attention map, averaged over heads.
"""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vivit import figures
from vivit.explanation.data import AttentionMaps, ExplanationData
from vivit.explanation.images import SUM_ROUNDING, Strength, overlay, strength
from vivit.explanation.page_data import title
from vivit.explanation.tables import head_title, percent, span
from vivit.figures import check_installed as check_installed  # of saving.py
from vivit.files.paths import printable
from vivit.reference.tubelet import frame_indices

FRAMES = 6  # side by side
LABELS, HEADS = 5, 6  # per head, and heads; the number of further heads is shown
MAX_CHARACTERS = 300  # of a text, before it is truncated to its width
PATH = 80  # characters of the video's name
INK, SOFT, RULE, BAR, TARGET = "#1a1a2e", "#5c6b7a", "#e4e4ea", "#9db4d6", "#b3501b"
STRENGTH = 0.9  # opacity of full color over the film
# inches
EDGE, GAP, NAMES, SCALE, BARS, HEADING, STAMPS = 0.35, 0.08, 1.75, 0.85, 3.1, 0.95, 0.3
LINE, HEAD, PAUSE = (
    0.46,
    0.42,
    0.16,
)  # heights of a label with its bar, of a head's name, and of the gap before the next head
MAX_WIDTH, MAX_HEIGHT, MIN_SIDE = 1.7, 2.0, 0.4  # of a frame


class Row(NamedTuple):
    """A row of maps over the frames. values: float[t s]. floor: values up to it may be rounding error."""

    name: str
    about: str
    values: np.ndarray
    floor: float


def write_picture(explanation: ExplanationData, path: Path) -> str:
    """Writes a PNG: rows of frames with maps over them (attention, rollout, relevance), and bars of the best labels.

    Returns the warning of figures.write_png. Raises ValueError if the folder does not exist or Matplotlib is missing.
    """
    rows = _rows(explanation)
    times, frames = _spaced_frames(explanation)
    cell = _cell(explanation.frames.shape[1:3])
    maps_height = STAMPS + (1 + len(rows)) * (cell[1] + GAP)
    bars_height = sum(HEAD + PAUSE + LINE * len(best[:LABELS]) for best in explanation.scores[:HEADS]) + PAUSE
    width = 2 * EDGE + NAMES + max(FRAMES * 0.8, len(frames) * (cell[0] + GAP)) + SCALE + BARS
    height = 2 * EDGE + HEADING + max(maps_height, bars_height)
    with warnings.catch_warnings():  # of measuring texts
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure = figures.new_figure(width, height, facecolor="white")
        paper = _Paper(figure, width, height)
        _draw_heading(paper, explanation, width - 2 * EDGE)
        top = EDGE + HEADING
        _draw_frames(paper, explanation, frames, cell, top)
        for number, row in enumerate(rows, 1):
            _draw_row(paper, row, explanation, times, frames, cell, top + STAMPS + number * (cell[1] + GAP))
        _draw_bars(paper, explanation, width - EDGE - BARS, top)
    return figures.write_png(figure, path)


class _Paper(NamedTuple):
    """A figure with coordinates in inches from its top left corner."""

    figure: Any
    width: float
    height: float

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        position = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(position)

    def text(self, left: float, top: float, text: str, *, room: float = math.inf, **style: Any) -> None:
        """Draws text with its baseline at (left, top), truncated to `room` inches. ha, va: other alignments."""
        style = dict(va="baseline", color=INK, fontsize=9) | style
        whole = printable(text)
        shown = whole[:MAX_CHARACTERS]
        drawn = self.figure.text(left / self.width, 1 - top / self.height, shown, parse_math=False, **style)
        figures.add_fonts(drawn)  # before it is measured
        low, high = 0, len(shown)  # binary search: low characters fit, high do not
        if len(whole) == len(shown) and self._inches(drawn) <= room:
            return
        while low < high - 1:
            middle = (low + high) // 2
            drawn.set_text(f"{shown[:middle].rstrip()}…")
            low, high = (middle, high) if self._inches(drawn) <= room else (low, middle)
        drawn.set_text(f"{shown[:low].rstrip()}…")

    def _inches(self, drawn: Any) -> float:
        return drawn.get_window_extent(self.figure.canvas.get_renderer()).width / figures.DOTS


def _rows(explanation: ExplanationData) -> list[Row]:
    rows = []
    last = _last_in_space(explanation.attention)
    if last is not None and last.space is not None:
        heads = "1 head" if len(last.heads) == 1 else f"mean of {len(last.heads)} heads"
        rows.append(Row("Attention", f"{title(last.stage)}\n{heads}", last.space.mean(axis=0), SUM_ROUNDING))
    rows.append(
        Row("Rollout", "attention of all layers,\nfrom the output to tokens", explanation.rollout, SUM_ROUNDING)
    )
    about = "of the class’s logit:\nattention × gradient"
    rows.append(Row("Relevance", about, explanation.relevance[0], float(explanation.rounding[0])))
    return rows


def _last_in_space(attention: Sequence[AttentionMaps]) -> AttentionMaps | None:
    return next((maps for maps in reversed(attention) if maps.space is not None), None)


def _spaced_frames(explanation: ExplanationData) -> tuple[np.ndarray, np.ndarray]:
    """Returns n evenly spaced time indices of tokens, int[n], and the middle frame of each, int[n]."""
    config = explanation.config
    t = config.grid[0]
    times = np.linspace(0, t - 1, min(FRAMES, t)).round().astype(int)
    if config.sampled_frames is not None:
        return times, frame_indices(config.frames, config.sampled_frames)[times]
    return times, times * config.tubelet[0] + config.tubelet[0] // 2


def _cell(size: tuple[int, int]) -> tuple[float, float]:
    """Returns (width, height) in inches of a frame of (height, width) pixels; extreme aspect ratios are distorted."""
    scale = min(MAX_WIDTH / size[1], MAX_HEIGHT / size[0])
    return max(MIN_SIDE, size[1] * scale), max(MIN_SIDE, size[0] * scale)


def _draw_heading(paper: _Paper, explanation: ExplanationData, room: float) -> None:
    target, view = explanation.targets[0], explanation.views[explanation.view]
    crop = f", crop {view.crop + 1} of {explanation.crops}" if explanation.crops > 1 else ""
    when = span(explanation, view)
    when = f"{when} s" if explanation.unit == "s" else f"frames {when}"
    where = f"view {explanation.view + 1} of {len(explanation.views)}, {when}{crop}"
    # separate widths, so that a long name hides no other text; of a path, the end is more informative than the start
    name = explanation.name if len(explanation.name) <= PATH else f"…{explanation.name[1 - PATH :]}"
    paper.text(EDGE, EDGE + 0.16, name, room=room, fontsize=15, fontweight="bold")
    label = f"{percent(target.probability)}  {target.label}"
    paper.text(EDGE, EDGE + 0.44, label, room=room * 0.65, fontsize=11, color=TARGET, fontweight="bold")
    paper.text(EDGE + room, EDGE + 0.44, where, ha="right", color=SOFT)
    made = f"by {explanation.checkpoint}" if explanation.checkpoint else "by a model without a name"
    paper.text(EDGE, EDGE + 0.68, made, room=room, color=SOFT)


def _draw_frames(
    paper: _Paper, explanation: ExplanationData, frames: np.ndarray, cell: tuple[float, float], top: float
) -> None:
    _draw_names(paper, "Frames", "as the model saw them", cell, top + STAMPS)
    for column, frame in enumerate(frames.tolist()):
        left = EDGE + NAMES + column * (cell[0] + GAP)
        at = explanation.stamps[frame]
        stamp = f"{at:.2f} s" if explanation.unit == "s" else f"frame {at + 1:g}"
        paper.text(left + cell[0] / 2, top + STAMPS - 0.06, stamp, ha="center", va="bottom", color=SOFT, fontsize=8)
        _show(paper, explanation.frames[frame], left, top + STAMPS, cell)


def _draw_row(
    paper: _Paper,
    row: Row,
    explanation: ExplanationData,
    times: np.ndarray,
    frames: np.ndarray,
    cell: tuple[float, float],
    top: float,
) -> None:
    """Draws one row with one scale: from 0 to the maximum over all times, drawn or not."""
    _, rows, columns = explanation.config.grid
    values = np.nan_to_num(np.asarray(row.values, np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(0)
    shown = strength(values, row.floor)
    _draw_names(paper, row.name, f"{row.about}{_why_blank(shown)}", cell, top)
    height, width = explanation.frames.shape[1:3]
    for column, (time, frame) in enumerate(zip(times.tolist(), frames.tolist(), strict=True)):
        parts = shown.parts[time].reshape(rows, columns)
        parts = STRENGTH * parts.repeat(height // rows, axis=0).repeat(width // columns, axis=1)
        left = EDGE + NAMES + column * (cell[0] + GAP)
        _show(paper, overlay(explanation.frames[frame], parts), left, top, cell)
    _draw_scale(paper, shown.most, EDGE + NAMES + len(frames) * (cell[0] + GAP) + 0.04, top, cell[1])


def _why_blank(shown: Strength) -> str:
    if shown.nothing:
        return "\nnothing found"
    return "\nnearly even everywhere" if shown.even else ""


def _draw_names(paper: _Paper, name: str, about: str, cell: tuple[float, float], top: float) -> None:
    room = NAMES - 0.15
    paper.text(EDGE, top + cell[1] / 2 - 0.2, name, fontsize=11, fontweight="bold", room=room, va="center")
    for number, line in enumerate(about.splitlines()):
        paper.text(EDGE, top + cell[1] / 2 + 0.17 * number, line, room=room, color=SOFT, fontsize=8, va="center")


def _draw_scale(paper: _Paper, most: float, left: float, top: float, height: float) -> None:
    """Draws the colors from 0 to the maximum, over black and over the lightest grey."""
    film = np.broadcast_to(np.array([0, 255], np.uint8)[:, np.newaxis], (256, 2, 3))
    _show(paper, overlay(film, STRENGTH * np.linspace(1, 0, 256)[:, np.newaxis]), left, top, (0.1, height))
    paper.text(left + 0.15, top, f"{most:.2g}", fontsize=8, color=SOFT, va="top")
    paper.text(left + 0.15, top + 0.14, "of the clip", fontsize=7, color=SOFT, va="top")
    paper.text(left + 0.15, top + height, "0", fontsize=8, color=SOFT, va="bottom")


def _show(paper: _Paper, pixels: np.ndarray, left: float, top: float, cell: tuple[float, float]) -> None:
    ax = paper.axes(left, top, *cell)
    ax.imshow(pixels, aspect="auto", interpolation="nearest")
    ax.set_axis_off()


def _draw_bars(paper: _Paper, explanation: ExplanationData, left: float, top: float) -> None:
    target = explanation.targets[0]
    for number, best in enumerate(explanation.scores[:HEADS]):
        several = len(explanation.scores) > 1
        heading = f"{head_title(explanation, number)} of {len(explanation.scores)}" if several else "Labels"
        paper.text(left, top + 0.14, heading, fontsize=11, fontweight="bold")
        paper.text(left + BARS, top + 0.14, "over all views", ha="right", fontsize=8, color=SOFT)
        top += HEAD
        for score in best[:LABELS]:
            is_target = number == target.head and score.label == target.label
            paper.text(left, top + 0.13, score.label, room=BARS - 0.7, fontweight="bold" if is_target else "normal")
            paper.text(left + BARS, top + 0.13, percent(score.probability), ha="right")
            ax = paper.axes(left, top + 0.21, BARS, 0.09)
            ax.barh([0], [1], color=RULE)
            ax.barh([0], [score.probability], color=TARGET if is_target else BAR)
            ax.set(xlim=(0, 1), ylim=(-0.4, 0.4))
            ax.set_axis_off()
            top += LINE
        top += PAUSE
    more = len(explanation.scores) - HEADS
    if more > 0:
        paper.text(left, top, f"and {more} more", color=SOFT, fontsize=8)
