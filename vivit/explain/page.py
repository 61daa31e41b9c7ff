"""An Explanation as one HTML document that holds all it shows: no server, no network, it opens from the disk.

How it looks is page.html's and the style sheets' question, what it does page.js's, what its tables say tables.py's and
what it draws drawn.py's; here it is put together, in words that fit the model.
"""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from importlib import resources
from pathlib import PurePath
from string import Template

import numpy as np

from vivit.explain.drawn import drawn
from vivit.explain.explanation import Explanation
from vivit.explain.filters import most_used
from vivit.explain.images import png_url
from vivit.explain.tables import escaped, fact_rows, figures, label_table, percent, span, view_columns, view_rows
from vivit.reference.config import Config

GAP = 2  # pixels between filters
ACROSS = 16  # pictures of filters side by side at most


def page(explanation: Explanation) -> str:
    """The document. Names and labels are escaped; its own policy forbids it to load anything.

    Raises ValueError if a map has a number that is not finite, which a picture cannot show.
    """
    one = explanation
    html, script = _file("page.html"), _file("page.js")
    style = _file("page.css") + _file("viewer.css")
    largest = most_used(one.filters)
    return Template(html).substitute(
        title=escaped(f"{_last(one.name)}: {one.target.label}"),
        name=escaped(_last(one.name)),
        answer=", ".join(
            f"<strong>{escaped(head[0].label)}</strong> {percent(head[0].probability)}" for head in one.scores
        ),
        checkpoint=f"<strong>{escaped(_last(one.checkpoint) or 'the model')}</strong>",
        view_count=f"{len(one.views)} views" if len(one.views) > 1 else "one view",
        labels="\n".join(label_table(one, head) for head in range(len(one.scores))),
        pictured=_pictured(one),
        target=escaped(one.target.label),
        token=_token(one.config),
        query=_query(one.config),
        kinds=" ".join(_kinds(one)),
        view_columns="".join(f'<th scope="col">{name}</th>' for name in view_columns(one)),
        view_rows="\n".join(view_rows(one)),
        filters=png_url(filter_picture(one.filters[largest])),
        filters_note=_filters_note(one, len(largest)),
        filters_alt=f"{len(largest)} tubelet filters as small pictures",
        figures=fact_rows(figures(one)),
        config=fact_rows(asdict(one.config)),
        preprocessing=fact_rows(asdict(one.preprocessing)),
        data=drawn(one),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


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
    unit = "seconds" if one.unit == "s" else f"{one.unit}s"
    return f"view {one.view}: {len(one.frames)} frames, {unit} {span(one, view)}, crop {view.crop + 1} of {one.crops}"


def _token(config: Config) -> str:
    length, height, width = config.tubelet
    return f"{height} × {width} pixels of {f'{length} frames' if length > 1 else 'one frame'}"


def _query(config: Config) -> str:
    """Whose attention is shown, as AttentionMaps says."""
    return "the class token, from which the label is read" if config.class_token else "all tokens alike"


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


def _last(path: str) -> str:
    """The last name of a path; who opens the page has no use for the folders of who made it, as a heading."""
    return PurePath(path).name or path


def _hash(text: str) -> str:
    """How a content security policy names a script or a style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _file(name: str) -> str:
    return resources.files("vivit").joinpath("explain", name).read_text("utf-8")
