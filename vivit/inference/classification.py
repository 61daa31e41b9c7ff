"""The labels of videos: the views of each, batched over views and videos, their logits averaged.

Videos are decoded in threads while the device computes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import jax
import numpy as np

from vivit import compiled
from vivit.data.opening import Limits
from vivit.data.views import VIEWS
from vivit.inference.ahead import check_threads, mapped
from vivit.inference.batches import BATCH, NotFinite, computed, evenly
from vivit.inference.finite import not_finite
from vivit.inference.videos import called
from vivit.inference.views import View, Views, checked_views, taken
from vivit.labels import Labels, numbered
from vivit.memory import check_model, check_views
from vivit.model import Model, Score
from vivit.reference.values import MOST, is_count, quoted

Video = str | Path | np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Classification:
    """What a model says of one video.

    heads: for each head the best classes, best first, from the mean of the views' logits. views: where each was taken.
    logits: float64[n v], view by view, all heads.
    """

    heads: tuple[tuple[Score, ...], ...]
    views: tuple[View, ...] = field(repr=False)
    logits: np.ndarray = field(repr=False)


def classify(
    model: Model,
    videos: Sequence[Video],
    *,
    views: tuple[int, int] = VIEWS,
    top: int = 5,
    stride: int | None = None,
    batch: int = BATCH,
    dtype: str | None = None,
    threads: int = 2,
    limits: Limits | None = None,
) -> Iterator[Classification | ValueError]:
    """What the model says of each video, in their order; in the place of one that cannot be used, or
    of which the model makes numbers that are not finite, why, in one line.

    videos, views, stride, limits: as views.taken's. top: classes of each head. batch: clips at once, at most; it
    changes results by rounding only. dtype: "float32" or "bfloat16", of the matmuls' operands. threads: that decode.
    Raises ValueError if the model has no head, or for an argument that makes no sense.
    """
    class_names(model)
    views, memory = checked_views(views), (limits or Limits()).memory
    for name, value in (("top", top), ("batch", batch)):
        if not is_count(value):
            raise ValueError(f"{name} is {quoted(value)}: it must be at least 1, and at most {MOST}")
    check_threads(threads)
    check_model(model.config, memory, clips=batch)
    check_views(model.config, views, memory)
    cores = 0 if len(videos) == 1 else 1  # of each decoder; 0: all
    most = max(1, len(videos) * math.prod(views))
    decode = partial(_taken, model, views=views, stride=stride, limits=limits, threads=cores)
    decoded = zip(map(called, videos), mapped(decode, videos, threads=threads), strict=True)
    return _classified(model, decoded, top, evenly(most, batch), dtype)


def view_logits(
    model: Model, pixels: np.ndarray, name: str, *, batch: int = BATCH, dtype: str | None = None
) -> np.ndarray:
    """float64[n v], the logits of clips uint8 or float32[n frames height width 3], `batch` at once at most.

    name: of the video, for an error. Raises ValueError if they are not finite, naming the first stage that is not.
    """
    clips = ((number, clip) for number, clip in enumerate(pixels))
    logits = []
    for _, row in computed(_forward(model, dtype), clips, evenly(len(pixels), batch)):
        if isinstance(row, NotFinite):
            raise not_finite(model, row.clip, name, dtype)
        logits.append(row)
    return np.stack(logits).astype(np.float64)


def probabilities(model: Model, logits: np.ndarray) -> list[np.ndarray]:
    """float64[… v], of each head, from the logits of all heads float[… v]."""
    heads = np.split(np.asarray(logits, np.float64), np.cumsum(model.config.classes)[:-1], axis=-1)
    weights = [np.exp(head - head.max(axis=-1, keepdims=True)) for head in heads]
    return [head / head.sum(axis=-1, keepdims=True) for head in weights]


def scores(model: Model, logits: np.ndarray, top: int) -> tuple[tuple[Score, ...], ...]:
    """For each head the `top` best classes, best first, from logits float[v]. Raises as class_names."""
    return tuple(
        tuple(Score(names[place], float(head[place])) for place in np.argsort(-head)[:top])
        for head, names in zip(probabilities(model, logits), class_names(model), strict=True)
    )


def class_names(model: Model) -> Labels:
    """What the classes of each head are called: their labels, or "class 0" and so on where the checkpoint has no names.

    Raises ValueError if the model has no head.
    """
    if not model.config.classes:
        raise ValueError("classes is (): the model has no head to classify with")
    return model.labels or numbered(model.config)


def _classified(
    model: Model, decoded: Iterator[tuple[str, Views | ValueError]], top: int, batch: int, dtype: str | None
) -> Iterator[Classification | ValueError]:
    rows: list[np.ndarray | NotFinite] = []  # of one video
    for (name, found), row in computed(_forward(model, dtype), _clips(decoded), batch):
        if isinstance(found, ValueError):
            yield found
            continue
        rows.append(row)
        if len(rows) < len(found):
            continue
        broken = next((row for row in rows if isinstance(row, NotFinite)), None)
        if broken is not None:
            yield not_finite(model, broken.clip, name, dtype)
        else:
            views = np.stack(rows).astype(np.float64)
            yield Classification(heads=scores(model, views.mean(0), top), views=found, logits=views)
        rows = []


def _forward(model: Model, dtype: str | None) -> Callable[[np.ndarray], jax.Array]:
    return lambda pixels: compiled.logits(model.params, model.preprocessed(pixels), config=model.config, dtype=dtype)


def _taken(model: Model, video: Video, **options) -> Views | ValueError:
    try:
        return taken(model, video, **options)
    except (ValueError, OSError) as error:
        return ValueError(" ".join(str(error).split()))


def _clips(
    decoded: Iterator[tuple[str, Views | ValueError]],
) -> Iterator[tuple[tuple[str, tuple[View, ...] | ValueError], np.ndarray | None]]:
    """Clip after clip, each with its video's name and views; a video that cannot be used has no clip."""
    for name, found in decoded:
        if isinstance(found, ValueError):
            yield (name, found), None
        else:
            yield from (((name, found.views), clip) for clip in found.pixels)
