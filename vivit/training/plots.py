"""Draws learning curves and confusion matrices as PNG files.

Names are drawn literally: "$" does not start a formula.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vivit import figures
from vivit.files.paths import printable
from vivit.training.logs import read_metrics

INK, FAINT, GRID = "#1a1a2e", "#9db4d6", "#e4e4ea"
BLUE, ORANGE = "#2f5d9f", "#d9702b"
LINES = (BLUE, ORANGE, "#3d8f5f", "#8a4fa3", "#b8962e", "#5c6b7a", "#c2476b", "#3aa0ae")
SMOOTHING = 40  # the loss is averaged over 1/40 of its points
NUMBERED = 15  # up to this many classes, cells show their numbers
NAMED = 400  # up to this many classes, all are named; beyond, every n-th


def learning_curves(metrics: str | Path, png: str | Path, *, title: str = "") -> None:
    """Draws the loss, the learning rate and the validation metrics over the steps.

    metrics: a metrics.jsonl, whose events may hold "loss" and "learning_rate" (kind train), and "loss" and fractions of
    any name, such as "top_1" (kind validation). png: the file to write, atomically. title: defaults to the name of the
    folder that holds `metrics`.

    Raises ValueError if there is no training or validation event, or Matplotlib is not installed.
    """
    figures.check_installed()
    from matplotlib.ticker import PercentFormatter

    events = read_metrics(metrics)
    train = _series([event for event in events if event["kind"] == "train"])
    validation = _series([event for event in events if event["kind"] == "validation"])
    validated_loss = validation.pop("loss", None)
    panels = [
        name
        for name, there in (
            ("loss", "loss" in train or validated_loss is not None),
            ("learning rate", "learning_rate" in train),
            ("validation", bool(validation)),
        )
        if there
    ]
    if not panels:
        raise ValueError(f"{metrics} has no loss, learning rate or validation: it must have events with one")
    heights = {"loss": 3.2, "learning rate": 1.3, "validation": 3.2}
    figure = figures.new_figure(8.5, sum(heights[name] for name in panels) + 0.8, layout="constrained")
    ratios = [heights[name] for name in panels]
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    for name, ax in zip(panels, axes, strict=True):
        if name == "loss":
            _draw_loss(ax, train.get("loss"), validated_loss)
        elif name == "learning rate":
            ax.plot(*train["learning_rate"], color=INK, linewidth=1.4)
            ax.set_ylim(bottom=0)
            ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        else:
            _draw_validation(ax, validation)
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.set_ylabel(name)
        ax.grid(color=GRID, linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0.01)
    axes[-1].set_xlabel("step")
    heading = title or f"Learning curves of {printable(Path(metrics).absolute().parent.name)}"
    figure.suptitle(heading, parse_math=False, x=0.01, ha="left", fontsize=12, fontweight="bold")
    figures.write_png(figure, Path(png))


def confusion_matrix(counts: np.ndarray, names: Sequence[str], png: str | Path, *, title: str = "") -> None:
    """Draws how often the examples of each class (row) were classified as each class (column).

    counts: int[v v], as returned by metrics.confusion; rows are shown in percent of their examples, and rows without
    examples are hatched. names: of the v classes. png: the file to write, atomically.

    Raises ValueError if the sizes disagree, or Matplotlib is not installed.
    """
    counts = np.asarray(counts)
    v = len(names)
    if counts.shape != (v, v) or not v:
        raise ValueError(f"counts has shape {counts.shape}: it must be {(v, v)}, as there are {v} names")
    figures.check_installed()
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    examples = counts.sum(1)
    fractions = np.divide(counts, examples[:, np.newaxis], out=np.zeros((v, v)), where=examples[:, np.newaxis] > 0)
    # cell size in inches: room for a number inside it, else for a name beside it
    cell = 0.62 if v <= NUMBERED else max(0.1, min(0.3, 18 / v)) if v <= NAMED else 0.1 * NAMED / v
    letters = 9 if v <= NUMBERED else min(8.5, max(5.0, 52 * cell))
    side = cell * v
    margin = min(3.2, 0.5 + 0.011 * letters * max(map(len, names)))
    figure = figures.new_figure(side + margin + 1.5, side + margin + 1.0)
    width, height = figure.get_size_inches()
    ax = figure.add_axes((margin / width, margin / height, side / width, side / height))
    shade = PowerNorm(0.5, vmin=0, vmax=1)  # square root, so that rare confusions are visible
    image = ax.imshow(fractions, cmap="Blues", norm=shade, interpolation="nearest")
    for row in np.flatnonzero(examples == 0).tolist():
        ax.axhspan(row - 0.5, row + 0.5, facecolor="#f2f2f2", edgecolor="#bbbbbb", hatch="////", linewidth=0)
    indices = np.arange(0, v, math.ceil(v / NAMED))
    for axis, rotation in ((ax.xaxis, 90), (ax.yaxis, 0)):
        axis.set_ticks(
            indices, [figures.shorten(names[index]) for index in indices.tolist()], rotation=rotation, parse_math=False
        )
        axis.set_tick_params(labelsize=letters, length=0, pad=3)
    thin = dict(color=GRID, linewidth=0.8 if v <= NUMBERED else 0.3)
    ax.hlines(np.arange(1, v) - 0.5, -0.5, v - 0.5, **thin)
    ax.vlines(np.arange(1, v) - 0.5, -0.5, v - 0.5, **thin)
    ax.set(xlim=(-0.5, v - 0.5), ylim=(v - 0.5, -0.5))
    if v <= NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if fractions[row, column] > 0.3 else INK
            text = f"{100 * fractions[row, column]:.0f}"
            ax.text(column, row, text, ha="center", va="center", color=color, fontsize=letters)
    larger = min(16, max(10, 1.1 * side))
    ax.set_ylabel("class", fontsize=larger)
    ax.set_xlabel("recognised as", fontsize=larger)
    accuracy = np.trace(counts) / max(1, counts.sum())
    accuracy_text = f"{100 * accuracy:.1f} % of {int(counts.sum()):,} examples recognised"
    heading = f"{title}: {accuracy_text}" if title else accuracy_text
    ax.set_title(heading, loc="left", fontsize=larger, color=INK, pad=10, parse_math=False)
    bar = figure.add_axes(((margin + side + 0.2) / width, margin / height, 0.16 / width, min(side, 4.0) / height))
    figure.colorbar(image, cax=bar, ticks=[0, 0.01, 0.05, 0.25, 0.5, 1], format=PercentFormatter(1.0, decimals=0))
    bar.set_ylabel("fraction of the class's examples", fontsize=8)
    bar.tick_params(labelsize=8)
    figures.write_png(figure, Path(png), tight=True)


def _series(events: list[dict[str, Any]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns (steps, values) by name, without values that are not finite."""
    pairs: dict[str, list[tuple[int, float]]] = {}
    for event in events:
        for name, value in event.items():
            if name not in ("step", "kind", "time") and value is not None:
                pairs.setdefault(name, []).append((event["step"], value))
    return {name: (np.array(both)[:, 0], np.array(both)[:, 1]) for name, both in pairs.items()}


def _draw_loss(ax: Any, train: tuple | None, validation: tuple | None) -> None:
    if train is not None:
        steps, losses = train
        window = max(1, len(losses) // SMOOTHING)
        if window > 1:
            ax.plot(steps, losses, color=FAINT, linewidth=0.6)
            sums = np.cumsum(np.pad(losses, (1, 0)))
            low = np.maximum(0, np.arange(len(losses)) + 1 - window)
            losses = (sums[1:] - sums[low]) / (np.arange(len(losses)) + 1 - low)
        label = f"training, mean of {window} points" if window > 1 else "training"
        ax.plot(steps, losses, color=BLUE, linewidth=1.6, label=label)
    if validation is not None:
        ax.plot(*validation, color=ORANGE, linewidth=1.6, marker="o", markersize=3.5, label="validation")
    ax.legend(frameon=False, loc="upper right")


def _draw_validation(ax: Any, validation: dict[str, tuple]) -> None:
    """Draws fractions as lines, each labelled with its last value."""
    for number, (name, (steps, values)) in enumerate(sorted(validation.items(), key=lambda pair: -pair[1][1][-1])):
        color, dashes = LINES[number % len(LINES)], "-" if number < len(LINES) else "--"
        label = f"{name.replace('_', ' ')}  {100 * values[-1]:.1f} %"
        ax.plot(steps, values, dashes, color=color, linewidth=1.6, marker="o", markersize=3.5, label=label)
    ax.set_ylim(0, 1.02)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), title="last", alignment="left")
