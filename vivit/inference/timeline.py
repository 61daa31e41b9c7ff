"""The labels of a long video over time: a model slides over it, and a label lasts while its probability stays high."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vivit.inference.batches import BATCH
from vivit.inference.classification import class_names, probabilities
from vivit.inference.sliding_logits import sliding_logits
from vivit.memory import check_memory
from vivit.model_data import ModelData
from vivit.notebook import progress_bar
from vivit.reference.config import Config
from vivit.reference.values import is_number, quoted
from vivit.video.container import Limits

ENTER, LEAVE = 0.5, 0.3


class Span(NamedTuple):
    """A label of one head from `start` to `end`, in seconds. probability: its mean over this time."""

    head: str
    label: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Timeline:
    """The labels of one video over time.

    spans: sorted by start; spans of the same head may overlap while one label fades and the next one begins.
    edges: float64[m + 1], the seconds between which probabilities are constant. probabilities: float64[m v] of each
    head, the means over the clips that show this part of the video.
    """

    spans: tuple[Span, ...]
    edges: np.ndarray = field(repr=False)
    probabilities: tuple[np.ndarray, ...] = field(repr=False)


def timeline(
    model: ModelData,
    video: str | Path | np.ndarray,
    *,
    enter: float = ENTER,
    leave: float = LEAVE,
    stride: int | None = None,
    clip_stride: int | None = None,
    batch: int = BATCH,
    dtype: str | None = None,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Timeline:
    """Returns the labels of a video with their start and end.

    The model slides over the video. The probability of a label at a time is the mean over the clips that show this
    time. A label begins when its probability reaches `enter` and ends when it falls below `leave` (hysteresis).
    video: a file (not a pipe), or frames [n height width 3] as `vivit.classify` takes them, whose seconds are
    the numbers of its frames. clip_stride: frames from clip to clip; None: a quarter of a clip. stride, batch, dtype,
    limits: as vivit.features. progress: is called with (clips done, clips in all); None: a notebook
    shows a bar.
    Raises ValueError if the model has no head, an argument is not valid, the video cannot be decoded, or logits are not
    finite.
    """
    names = class_names(model)
    for name, value in (("enter", enter), ("leave", leave)):
        if not is_number(value) or not 0 < value <= 1:
            raise ValueError(f"{name} is {quoted(value)}: it must be a probability, more than 0 and at most 1")
    if leave > enter:
        raise ValueError(f"leave is {leave}: it must be at most enter, {enter}")
    config, limits = model.config, limits or Limits()
    if stride is None:
        stride = 1 if isinstance(video, np.ndarray) else model.preprocessing.stride
    if clip_stride is None:
        clip_stride = quarter_clip(config, stride)
    sliding = sliding_logits(
        model, video, stride=stride, clip_stride=clip_stride, batch=batch, dtype=dtype, limits=limits
    )
    classes = sum(config.classes)
    check_memory(
        f"the probabilities of {classes:,} classes in {sliding.total:,} clips",
        6 * 8 * sliding.total * classes,
        limits.memory,
    )
    shown, logits = [], np.empty((sliding.total, classes))
    progress = progress or progress_bar("clips")
    for done, (clip, row) in enumerate(sliding.clips):
        shown.append((clip.stamps.min(), clip.stamps.max(), clip.indices.min(), clip.indices.max()))
        logits[done] = row
        progress(done + 1, sliding.total)
    first, last, first_index, last_index = np.array(shown).T
    frames = last_index.max() - first_index.min()
    frame = (last.max() - first.min()) / frames if frames else 1.0  # seconds that one frame is shown
    ends = np.minimum(last + stride * frame, last.max() + frame)
    edges, means = _means(first, ends, probabilities(model, logits))
    spans = [
        span
        for head, labels, values in zip(model.head_names, names, means, strict=True)
        for span in _spans(head, labels, edges, values, enter, leave)
    ]
    return Timeline(spans=tuple(sorted(spans, key=lambda span: span.start)), edges=edges, probabilities=tuple(means))


def quarter_clip(config: Config, stride: int) -> int:
    """Returns a quarter of a clip in frames, rounded down to whole time indices, which model 2 then computes once."""
    index = config.tubelet[0] * stride if config.sampled_frames is None else stride
    return max(1, config.frames * stride // (4 * index)) * index


def _means(starts: np.ndarray, ends: np.ndarray, heads: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Averages the probabilities of the clips that show each part of the video.

    starts, ends: float64[n], of clips, in order. heads: float64[n v]. Returns (edges float64[m + 1], float64[m v]).
    """
    edges = np.unique(np.round([starts, ends], 6))  # stamps are multiples of a time base: equal ones may differ by it
    middles = (edges[:-1] + edges[1:]) / 2
    begin, end = np.searchsorted(ends, middles), np.searchsorted(starts, middles)  # the clips that show a part
    means = [np.stack([head[one:two].mean(axis=0) for one, two in zip(begin, end, strict=True)]) for head in heads]
    return edges, means


def _spans(
    head: str, labels: tuple[str, ...], edges: np.ndarray, values: np.ndarray, enter: float, leave: float
) -> list[Span]:
    """Returns the spans of one head from its probabilities float64[m v]."""
    seconds = np.diff(edges)
    spans = []
    for number in np.flatnonzero((values >= enter).any(axis=0)).tolist():
        column, active = values[:, number], False
        on = np.array([active := bool(value >= (leave if active else enter)) for value in column])
        changes = np.flatnonzero(np.diff(on, prepend=False, append=False))
        for first, last in changes.reshape(-1, 2).tolist():
            weight = seconds[first:last]
            mean = float((column[first:last] * weight).sum() / weight.sum())
            spans.append(Span(head, labels[number], float(edges[first]), float(edges[last]), mean))
    return spans
