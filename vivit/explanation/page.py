"""Builds the page of an explanation: one self-contained HTML document, which needs no server and no network.

page.html and the style sheets define its appearance, page.js its behaviour, tables.py its tables and page_data.py its
images. This file combines them and writes the sentences that depend on the model.
"""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import PurePath

import numpy as np
from markupsafe import escape

from vivit.explanation.data import ExplanationData
from vivit.explanation.filters import most_used
from vivit.explanation.images import png_url
from vivit.explanation.page_data import page_data
from vivit.explanation.tables import facts, figures, head_title, label_tables, span, view_columns, view_rows
from vivit.explanation.template import render
from vivit.files.paths import printable
from vivit.reference.config import Config

GAP = 2  # pixels between filters
ACROSS = 16  # largest number of filter images in a row


def page(explanation: ExplanationData) -> str:
    """Returns the document. Names and labels are escaped; a content security policy forbids loading anything.

    Raises ValueError if a map has NaN or infinity.
    """
    one = explanation
    largest = most_used(one.filters)
    return render(
        "page.html",
        styles=("page.css", "viewer.css"),
        script="page.js",
        name=_file_name(one.name),
        target=one.targets[0].label,
        best=[(head_title(one, head), *rows[0]) for head, rows in enumerate(one.scores)],
        checkpoint=_file_name(one.checkpoint) or "the model",
        view_count=f"{len(one.views)} views" if len(one.views) > 1 else "one view",
        labels=list(label_tables(one)),
        pictured=_pictured(one),
        choices=list(_choices(one)),
        token=_token(one.config),
        query=_query(one.config),
        kinds=" ".join(_attention_notes(one)),
        view_columns=view_columns(one),
        view_rows=list(view_rows(one)),
        filters=png_url(filter_picture(one.filters[largest])),
        filters_note=_filters_note(one, len(largest)),
        filters_alt=f"{len(largest)} tubelet filters as small pictures",
        facts={
            "Figures": facts(figures(one)),
            "Preprocessing": facts(asdict(one.preprocessing)),
            "Config": facts(asdict(one.config)),
        },
        data=page_data(one),
    )


def framed(explanation: ExplanationData) -> str:
    """Returns the page in an iframe, for notebooks, so that page and notebook do not affect each other."""
    title, style = printable(_file_name(explanation.name)), "width: 100%; height: 56rem; border: 0"
    attributes = f'sandbox="allow-scripts" title="{escape(title)}" style="{style}"'
    return f'<iframe srcdoc="{escape(page(explanation))}" {attributes}></iframe>'


def filter_picture(kernels: np.ndarray) -> np.ndarray:
    """Draws filters in rows, uint8[height width 3], the frames of a filter side by side. kernels: float[m t h w 3]."""
    m, t, h, w, _ = kernels.shape
    across = max(1, min(m, ACROSS // t))
    down = -(-m // across)
    picture = np.full((down * (h + GAP) + GAP, across * (t * w + GAP) + GAP, 3), 24, np.uint8)
    for number, kernel in enumerate(kernels):
        row, column = divmod(number, across)
        top, left = GAP + row * (h + GAP), GAP + column * (t * w + GAP)
        largest = max(float(np.abs(kernel).max()), np.finfo(np.float32).tiny)
        pixels = np.round(127.5 + 127.5 * kernel / largest).astype(np.uint8)
        picture[top : top + h, left : left + t * w] = np.concatenate(list(pixels), axis=1)
    return picture


def _pictured(one: ExplanationData) -> str:
    view = one.views[one.view]
    unit = "seconds" if one.unit == "s" else "the array’s"
    crop = f"crop {view.crop + 1} of {one.crops}"
    return f"view {one.view + 1}: {len(one.frames)} frames, {unit} {span(one, view)}, {crop}"


def _choices(one: ExplanationData) -> Iterable[tuple[str, list[tuple[int, str, float]]]]:
    """Yields the title of every head and its targets (index, label, probability), most probable first."""
    for head in range(len(one.scores)):
        of_head = [(n, target.label, target.probability) for n, target in enumerate(one.targets) if target.head == head]
        yield head_title(one, head), sorted(of_head, key=lambda choice: -choice[2])


def _token(config: Config) -> str:
    length, height, width = config.tubelet
    return f"{height} × {width} pixels of {f'{length} frames' if length > 1 else 'one frame'}"


def _query(config: Config) -> str:
    """Returns the query of the attention maps in words, as AttentionMaps defines it."""
    if config.class_token:
        return "the class token, from which the label is read"
    pooled = {
        "first": ", although the label is read from the first",
        "max": ", although the label is read from the largest",
    }
    return f"all tokens alike{pooled.get(config.pooling, '')}"


def _attention_notes(one: ExplanationData) -> Iterable[str]:
    """Yields sentences about the attention maps of this model."""
    kinds = {maps.stage.split("/")[-1] for maps in one.attention if maps.space is not None}
    kept = ", but for what the class token keeps" if one.config.class_token else ""
    if "weights" in kinds:
        yield f"It sums to 1 over the clip{kept}."
    if "space_weights" in kinds:
        yield f"Within frames it sums to 1 at every time{kept}."
    if "time_weights" in kinds:
        yield "Over time it sums to 1 along every place."
    if one.config.model == "factorised_dot_product":
        yield "In every layer half of the heads look over time and half within frames, so each is listed twice."
    if any(maps.space is None for maps in one.attention):
        yield "The tokens of the temporal layers are whole frames, so these have no map over space."


def _filters_note(one: ExplanationData, shown: int) -> str:
    length, height, width = one.config.tubelet
    which = f"The {shown} largest of {len(one.filters)} filters" if shown < len(one.filters) else f"All {shown} filters"
    times = f", its {length} times side by side" if length > 1 else ""
    return (
        f"What the first layer looks for in the pixels of a token. {which}, the largest first: "
        f"each of {height} × {width} pixels{times}, on a scale of its own; grey is 0."
    )


def _file_name(path: str) -> str:
    """Returns the last name of a path, for headings."""
    return PurePath(path).name or path
