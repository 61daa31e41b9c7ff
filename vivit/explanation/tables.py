"""The contents of the tables on the page: labels, views and figures. page.html draws them."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from vivit.explanation.data import ExplanationData, ViewScores


class Labels(NamedTuple):
    """The table of one head. rows: (label, probability), best first."""

    caption: str
    rows: tuple[tuple[str, float], ...]


class ViewRow(NamedTuple):
    """One view: its number for `vivit explain --view`, its position, and (label, probability) of each head's best."""

    number: int
    pictured: bool
    span: str
    crop: str
    best: tuple[tuple[str, float], ...]


def label_tables(one: ExplanationData) -> Iterable[Labels]:
    """Yields one table per head."""
    for head, (rows, classes) in enumerate(zip(one.scores, one.config.classes, strict=True)):
        caption = f"The best {len(rows)} of {classes} labels" if len(rows) < classes else f"All {classes} labels"
        several = f"{head_title(one, head)}: {caption[0].lower()}{caption[1:]}"
        yield Labels(several if len(one.scores) > 1 else caption, rows)


def head_name(one: ExplanationData, head: int) -> str:
    """Returns the name of a head, or "head 1", "head 2", … if it has none."""
    return one.head_names[head] if one.head_names else f"head {head + 1}"


def head_title(one: ExplanationData, head: int) -> str:
    """Returns the name of a head with a capital letter."""
    name = head_name(one, head)
    return f"{name[:1].upper()}{name[1:]}"


def view_columns(one: ExplanationData) -> list[str]:
    """Returns the column headings of view_rows."""
    heads = [f"Best of {head_name(one, head)}" for head in range(len(one.scores))]
    return ["View", "Seconds" if one.unit == "s" else "Frames", "Crop", *(heads if len(heads) > 1 else ["Best label"])]


def view_rows(one: ExplanationData) -> Iterable[ViewRow]:
    """Yields one row per view, in order."""
    for number, view in enumerate(one.views):
        yield ViewRow(number + 1, number == one.view, span(one, view), f"{view.crop + 1} of {one.crops}", view.best)


def figures(one: ExplanationData) -> dict[str, Any]:
    """Returns facts about clip and model that are not fields of the config."""
    frames, height, width, _ = one.frames.shape
    return {
        "Video": one.name,
        "Checkpoint": one.checkpoint or "not named",
        "Clip": f"{frames} frames of {width} × {height} pixels",
        "Tokens": "{} times of {} × {} places".format(*one.config.grid),
        "Parameters": f"{one.parameters:,}",
        "GFLOPs of one clip, counted in multiply-adds": f"{one.multiply_adds / 1e9:.4g}",
        "Black and white become": one.preprocessing.range,
    }


def facts(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the names and values as text."""
    return [(name, _plain(value)) for name, value in values.items()]


def span(one: ExplanationData, view: ViewScores) -> str:
    """Returns first and last frame of a view as text: seconds, or frame numbers of an array, from 1."""
    if one.unit == "s":
        return f"{view.start:.2f} to {view.end:.2f}"
    return f"{view.start + 1:g} to {view.end + 1:g}"


def percent(probability: float) -> str:
    """Returns a percentage, such as "12.3 %" for 0.123."""
    return f"{100 * probability:.1f} %"


def _plain(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
