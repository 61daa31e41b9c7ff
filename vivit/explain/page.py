"""An Explanation as one HTML document that holds all it shows: no server, no network, it opens from the disk.

How it looks is page.html's and the style sheets' question, what it does page.js's, what its tables say tables.py's and
what it draws drawn.py's; here it is put together, in words that fit the model.
"""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from importlib import resources
from pathlib import PurePath
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from vivit.explain.drawn import drawn
from vivit.explain.explanation import Explanation
from vivit.explain.filters import most_used
from vivit.explain.images import png_url
from vivit.explain.tables import facts, figures, head_title, label_tables, percent, span, view_columns, view_rows
from vivit.printable import printable
from vivit.reference.config import Config

GAP = 2  # pixels between filters
ACROSS = 16  # pictures of filters side by side at most


def page(explanation: Explanation) -> str:
    """The document. Names and labels are escaped; its own policy forbids it to load anything.

    Raises ValueError if a map has a number that is not finite, which a picture cannot show.
    """
    one = explanation
    script, style = _file("page.js"), _file("page.css") + _file("viewer.css")
    largest = most_used(one.filters)
    return _template().render(
        name=_last(one.name),
        target=one.targets[0].label,
        best=[(head_title(one, head), *rows[0]) for head, rows in enumerate(one.scores)],
        checkpoint=_last(one.checkpoint) or "the model",
        view_count=f"{len(one.views)} views" if len(one.views) > 1 else "one view",
        labels=list(label_tables(one)),
        pictured=_pictured(one),
        choices=list(_choices(one)),
        token=_token(one.config),
        query=_query(one.config),
        kinds=" ".join(_kinds(one)),
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
        data=drawn(one),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def framed(explanation: Explanation) -> str:
    """The page as part of another, such as a notebook's: in a frame of its own, so that neither changes the other."""
    title, style = printable(_last(explanation.name)), "width: 100%; height: 56rem; border: 0"
    attributes = f'sandbox="allow-scripts" title="{escape(title)}" style="{style}"'
    return f'<iframe srcdoc="{escape(page(explanation))}" {attributes}></iframe>'


def filter_picture(kernels: np.ndarray) -> np.ndarray:
    """uint8[height width 3]: filters in rows, each its times side by side. kernels: float[m t h w 3]."""
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


def _pictured(one: Explanation) -> str:
    view = one.views[one.view]
    unit = "seconds" if one.unit == "s" else "the array’s"
    crop = f"crop {view.crop + 1} of {one.crops}"
    return f"view {one.view + 1}: {len(one.frames)} frames, {unit} {span(one, view)}, {crop}"


def _choices(one: Explanation) -> Iterable[tuple[str, list[tuple[int, str, float]]]]:
    """Of each head its name and the targets that can be chosen: number, label, probability, the likeliest first."""
    for head in range(len(one.scores)):
        of_head = [(n, target.label, target.probability) for n, target in enumerate(one.targets) if target.head == head]
        yield head_title(one, head), sorted(of_head, key=lambda choice: -choice[2])


def _token(config: Config) -> str:
    length, height, width = config.tubelet
    return f"{height} × {width} pixels of {f'{length} frames' if length > 1 else 'one frame'}"


def _query(config: Config) -> str:
    """Whose attention is shown, as AttentionMaps says."""
    if config.class_token:
        return "the class token, from which the label is read"
    pooled = {
        "first": ", although the label is read from the first",
        "max": ", although the label is read from the largest",
    }
    return f"all tokens alike{pooled.get(config.pooling, '')}"


def _kinds(one: Explanation) -> Iterable[str]:
    """What is particular about the attentions of this model."""
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


def _filters_note(one: Explanation, shown: int) -> str:
    length, height, width = one.config.tubelet
    which = f"The {shown} largest of {len(one.filters)} filters" if shown < len(one.filters) else f"All {shown} filters"
    times = f", its {length} times side by side" if length > 1 else ""
    return (
        f"What the first layer looks for in the pixels of a token. {which}, the largest first: "
        f"each of {height} × {width} pixels{times}, on a scale of its own; grey is 0."
    )


@cache
def _template() -> Any:
    """page.html, which escapes whatever is put into it, once it can be shown."""
    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_file),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters["percent"] = percent
    return environment.get_template("page.html")


def _last(path: str) -> str:
    """The last name of a path; who opens the page has no use for the folders of who made it, as a heading."""
    return PurePath(path).name or path


def _hash(text: str) -> str:
    """How a content security policy names a script or a style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _file(name: str) -> str:
    return resources.files("vivit").joinpath("explain", name).read_text("utf-8")
