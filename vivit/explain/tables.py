"""The tables of an explanation's page, as HTML: labels, views, figures. Names and labels are escaped."""

from collections.abc import Iterable
from html import escape
from typing import Any

from vivit.explain.explanation import Explanation, ViewScores
from vivit.printable import printable


def label_table(one: Explanation, head: int) -> str:
    """The best labels of one head, each with a bar."""
    shown, classes = len(one.scores[head]), one.config.classes[head]
    caption = f"The best {shown} of {classes} labels" if shown < classes else f"All {classes} labels"
    if len(one.scores) > 1:
        caption = f"Head {head + 1}: {caption[0].lower()}{caption[1:]}"
    rows = "\n".join(
        f'<tr><th scope="row">{escaped(label)}{_bar(probability)}</th>'
        f'<td class="percent">{percent(probability)}</td></tr>'
        for label, probability in one.scores[head]
    )
    columns = '<tr><th scope="col">Label</th><th scope="col" class="percent">Probability</th></tr>'
    return (
        f'<table class="labels"><caption>{caption}</caption><thead>{columns}</thead><tbody>\n{rows}\n</tbody></table>'
    )


def view_columns(one: Explanation) -> list[str]:
    """The headings of view_rows."""
    heads = [f"Best of head {number + 1}" for number in range(len(one.scores))]
    return ["View", "Seconds" if one.unit == "s" else "Frames", "Crop", *(heads if len(heads) > 1 else ["Best label"])]


def view_rows(one: Explanation) -> Iterable[str]:
    """Each view: its number, as `vivit explain --view` takes it, where it lies and the best label of each head."""
    for number, view in enumerate(one.views):
        mark, words = (' class="pictured" aria-current="true"', " (pictured)") if number == one.view else ("", "")
        best = (
            f'{escaped(label)} <span class="percent">{percent(probability)}</span>' for label, probability in view.best
        )
        data = "".join(f"<td>{cell}</td>" for cell in (span(one, view), f"{view.crop + 1} of {one.crops}", *best))
        yield f'<tr{mark}><th scope="row">{number}{words}</th>{data}</tr>'


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


def fact_rows(values: dict[str, Any]) -> str:
    """A row a value."""
    cells = ((escaped(name), escaped(_plain(value))) for name, value in values.items())
    return "\n".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in cells)


def span(one: Explanation, view: ViewScores) -> str:
    """From the first frame of a view to its last, in the stamps' unit."""
    return f"{view.start:.2f} to {view.end:.2f}" if one.unit == "s" else f"{view.start:g} to {view.end:g}"


def percent(probability: float) -> str:
    """0.123 as "12.3 %"."""
    return f"{100 * probability:.1f} %"


def escaped(value: object) -> str:
    """Any value as text that HTML shows as it is."""
    return escape(printable(str(value)))


def _bar(part: float) -> str:
    """Beside its number, so it is hidden from who hears the page."""
    rectangle = f'<rect width="{100 * part:.2f}" height="1"/>'
    return f'<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">{rectangle}</svg>'


def _plain(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
