"""An Explanation as one HTML document that holds all it shows: no server, no network, it opens from the disk.

How it looks is page.html's and page.css's question, what it does page.js's; here stands what is filled in, escaped.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from importlib import resources
from pathlib import PurePath
from string import Template
from typing import Any

import numpy as np

from vivit.explain.explanation import AttentionMaps, Explanation
from vivit.explain.filters import most_used
from vivit.explain.images import frame_url, png_url
from vivit.model import Score
from vivit.printable import printable
from vivit.reference.config import Config
from vivit.reference.tubelet import frame_indices

GAP = 2  # pixels between filters
ACROSS = 16  # pictures of filters side by side at most


def page(explanation: Explanation) -> str:
    """The document. Names and labels are escaped; its own policy forbids it to load anything."""
    one = explanation
    html, style, script = (_file(f"page.{kind}") for kind in ("html", "css", "js"))
    count = len(one.views)
    shown = most_used(one.filters)
    kernel = "×".join(map(str, one.filters.shape[1:4]))
    return Template(html).substitute(
        title=_text(f"{PurePath(one.name).name}: {one.target.label}"),
        name=_text(PurePath(one.name).name),
        summary=f"{_text(one.checkpoint or 'The model')} says <strong>{_text(one.target.label)}</strong>, "
        f"{_percent(one.target.probability)}.",
        view_count=f"{count} views" if count > 1 else "one view",
        labels="\n".join(_labels(number, head, len(one.scores)) for number, head in enumerate(one.scores)),
        pictured=f"View {one.view} of the table below is pictured: the clip that the model saw, and what it looked at.",
        target=_text(one.target.label),
        view_columns="".join(f'<th scope="col">{name}</th>' for name in _view_columns(one)),
        view_rows="\n".join(_view_rows(one)),
        filters=png_url(filter_picture(one.filters[shown])),
        filters_note=f"What the embedding looks for: the {len(shown)} filters of the largest norm, of "
        f"{len(one.filters)}. Each is {kernel} (time, height, width), its "
        f"times side by side, on a scale of its own; grey is 0.",
        filters_alt=f"{len(shown)} tubelet filters of {kernel} pixels as small pictures",
        figures=_rows(_figures(one)),
        config=_rows(asdict(one.config)),
        preprocessing=_rows(asdict(one.preprocessing)),
        data=_data(one),
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


def times_of_frames(config: Config) -> list[int]:
    """For every frame of a clip the time index of the token that it is in, or that stands for it."""
    frames = np.arange(config.frames)
    if config.sampled_frames is None:
        return (frames // config.tubelet[0]).tolist()
    sampled = frame_indices(config.frames, config.sampled_frames)
    return np.abs(frames[:, np.newaxis] - sampled).argmin(axis=1).tolist()


def _data(one: Explanation) -> str:
    """What the script needs, as JSON that cannot end its element."""
    steps = np.diff(one.stamps)
    step = float(np.median(np.abs(steps))) if len(steps) else 1.0
    value = dict(
        frames=[frame_url(frame) for frame in one.frames],
        stamps=one.stamps.tolist(),
        unit=one.unit,
        rate=1 / step if step > 0 else 1.0,
        token_of_frame=times_of_frames(one.config),
        grid=one.config.grid,
        target=printable(one.target.label),
        layers=[_layer(maps) for maps in one.attention],
        rollout=_packed(one.rollout[np.newaxis]),
        relevance=_packed(one.relevance[np.newaxis]),
    )
    return json.dumps(value).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _layer(maps: AttentionMaps) -> dict[str, Any]:
    heads = len(maps.heads)
    time = maps.time
    if time is not None and maps.time_of_class is not None:
        time = np.concatenate([maps.time_of_class[:, np.newaxis], time], axis=1)
    return dict(
        title=title(maps.stage),
        heads=[f"Mean of {heads} heads", *(f"Head {number + 1}" for number in maps.heads)],
        space=None if maps.space is None else _packed(_with_mean(maps.space)),
        time=None if time is None else _packed(_with_mean(time)),
        class_row=maps.time_of_class is not None,
    )


def title(stage: str) -> str:
    """ "encoder/3/time_weights" in words: "Layer 4, over time"."""
    encoder, number, weights = stage.split("/")
    kind = "Temporal layer" if encoder == "temporal_encoder" else "Layer"
    over = {"time_weights": ", over time", "space_weights": ", within frames"}.get(weights, "")
    return f"{kind} {int(number) + 1}{over}"


def _with_mean(maps: np.ndarray) -> np.ndarray:
    return np.concatenate([maps.mean(axis=0, keepdims=True), maps])


def _packed(maps: np.ndarray) -> dict[str, Any]:
    """Maps [m …] as bytes, each scaled to its own peak."""
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    peaks = flat.max(axis=1)
    scaled = np.round(255 * flat / np.where(peaks > 0, peaks, 1)[:, np.newaxis]).astype(np.uint8)
    return dict(bytes=base64.b64encode(scaled.tobytes()).decode(), peaks=peaks.tolist())


def _labels(number: int, head: Sequence[Score], heads: int) -> str:
    caption = f"Head {number + 1}" if heads > 1 else "Most probable"
    rows = []
    for label, probability in head:
        meter = f'<meter min="0" max="1" value="{probability:.4f}" aria-label="{_text(label)}"></meter>'
        figure = f'<td class="number">{_percent(probability)}</td>'
        rows.append(f'<tr><th scope="row">{_text(label)}</th>{figure}<td>{meter}</td></tr>')
    return f'<table class="labels"><caption>{caption}</caption><tbody>\n' + "\n".join(rows) + "\n</tbody></table>"


def _view_columns(one: Explanation) -> list[str]:
    heads = [f"Best of head {number + 1}" for number in range(len(one.scores))]
    return ["View", "Seconds" if one.unit == "s" else "Frames", "Crop", *(heads if len(heads) > 1 else ["Best"])]


def _view_rows(one: Explanation) -> Iterable[str]:
    for number, view in enumerate(one.views):
        mark, words = (' class="pictured" aria-current="true"', " (pictured)") if number == one.view else ("", "")
        best = [f"{_text(score.label)}, {_percent(score.probability)}" for score in view.best]
        cells = [f"{view.start:.2f} to {view.end:.2f}", f"{view.crop + 1} of {one.crops}", *best]
        data = "".join(f"<td>{cell}</td>" for cell in cells)
        yield f'<tr{mark}><th scope="row">{number}{words}</th>{data}</tr>'


def _figures(one: Explanation) -> dict[str, Any]:
    frames, height, width, _ = one.frames.shape
    return {
        "video": one.name,
        "checkpoint": one.checkpoint or "-",
        "clip": f"{frames} frames of {width}x{height}",
        "tokens": "{} x {} x {}".format(*one.config.grid),
        "parameters": f"{one.parameters:,}",
        "GFLOPs of a clip (10⁹ multiply-adds)": f"{one.multiply_adds / 1e9:.4g}",
        "pixels become": one.preprocessing.range,
    }


def _rows(values: dict[str, Any]) -> str:
    cells = ((_text(name), _text(_plain(value))) for name, value in values.items())
    return "\n".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in cells)


def _plain(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"


def _text(value: object) -> str:
    return escape(printable(str(value)))


def _hash(text: str) -> str:
    """How a content security policy names a script or a style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _file(name: str) -> str:
    return resources.files("vivit").joinpath("explain", name).read_text("utf-8")
