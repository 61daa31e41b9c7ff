"""What the tables of an explanation's page say: labels, views, figures, in words and numbers. How: page.html."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from vivit.explain.explanation import Explanation, ViewScores


class Labels(NamedTuple):
    """The best labels of one head. rows: label, probability."""

    caption: str
    rows: tuple[tuple[str, float], ...]


class ViewRow(NamedTuple):
    """One view: its number, as `vivit explain --view` takes it, where it lies and the best label of each head."""

    number: int
    pictured: bool
    span: str
    crop: str
    best: tuple[tuple[str, float], ...]


def label_tables(one: Explanation) -> Iterable[Labels]:
    """A table a head."""
    for head, (rows, classes) in enumerate(zip(one.scores, one.config.classes, strict=True)):
        caption = f"The best {len(rows)} of {classes} labels" if len(rows) < classes else f"All {classes} labels"
        several = f"{head_title(one, head)}: {caption[0].lower()}{caption[1:]}"
        yield Labels(several if len(one.scores) > 1 else caption, rows)


def head_name(one: Explanation, head: int) -> str:
    """What a head of the model is called: by its name or its number, from 1."""
    return one.head_names[head] if one.head_names else f"head {head + 1}"


def head_title(one: Explanation, head: int) -> str:
    """The same as a title: "Head 1"."""
    name = head_name(one, head)
    return f"{name[:1].upper()}{name[1:]}"


def view_columns(one: Explanation) -> list[str]:
    """The headings of view_rows."""
    heads = [f"Best of {head_name(one, head)}" for head in range(len(one.scores))]
    return ["View", "Seconds" if one.unit == "s" else "Frames", "Crop", *(heads if len(heads) > 1 else ["Best label"])]


def view_rows(one: Explanation) -> Iterable[ViewRow]:
    """The views in their order."""
    for number, view in enumerate(one.views):
        yield ViewRow(number + 1, number == one.view, span(one, view), f"{view.crop + 1} of {one.crops}", view.best)


def figures(one: Explanation) -> dict[str, Any]:
    """What is known of the clip and the model, beside the config's fields."""
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
    """Names and values in words."""
    return [(name, _plain(value)) for name, value in values.items()]


def span(one: Explanation, view: ViewScores) -> str:
    """From the first frame of a view to its last: seconds, or the numbers of an array's frames, from 1."""
    if one.unit == "s":
        return f"{view.start:.2f} to {view.end:.2f}"
    return f"{view.start + 1:g} to {view.end + 1:g}"


def percent(probability: float) -> str:
    """0.123 as "12.3 %"."""
    return f"{100 * probability:.1f} %"


def _plain(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
