"""Classifies videos: averages the logits of each video's views and returns the probabilities of the best classes."""

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from vivit.inference.batches import BATCH, NotFinite, balanced_batch_size, padded
from vivit.inference.view_logits import ViewLogits, forward_of, view_logits
from vivit.jitted import not_finite
from vivit.labels import Labels, default_labels
from vivit.memory import check_model, check_views
from vivit.model_data import ModelData, clip_spec
from vivit.notebook import progress_bar, table
from vivit.reference.values import check_count
from vivit.video.container import Limits
from vivit.video.crops import VIEWS
from vivit.video.inputs import video_name
from vivit.video.prefetch import check_threads
from vivit.video.views import VideoViews, View, checked_views, load_views

Video = str | Path | np.ndarray


class Score(NamedTuple):
    """A class of a head and its probability, the softmax over that head."""

    label: str
    probability: float


class HeadScores(tuple[tuple[Score, ...], ...]):
    """The best classes of every head, best first. A notebook shows a table for each head."""

    def _repr_html_(self) -> str:
        titles = [f"Head {number + 1}" if len(self) > 1 else "The best classes" for number in range(len(self))]
        return "\n".join(
            table(
                title, ((label, f"{100 * probability:.1f} %") for label, probability in head), ("class", "probability")
            )
            for title, head in zip(titles, self, strict=True)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Classification:
    """The classification of one video.

    heads: the best classes of every head, best first, from the mean of the views' logits. views: the position of every
    view. logits: float64[n v] of every view, all heads.
    """

    heads: HeadScores
    views: tuple[View, ...] = field(repr=False)
    logits: np.ndarray = field(repr=False)

    def _repr_html_(self) -> str:
        """Returns the tables of the heads, for notebooks."""
        return self.heads._repr_html_()


def classify(
    model: ModelData,
    video: Video,
    *,
    top: int = 5,
    views: tuple[int, int] = VIEWS,
    stride: int | None = None,
    batch: int = BATCH,
    dtype: str | None = None,
    limits: Limits | None = None,
) -> HeadScores:
    """Returns the `top` most probable classes of a video for every head, best first.

    Source: Arnab et al. 2021, section 4.1: the logits of all views are averaged.
    video: a file, "-" (standard input), or frames [n height width 3]: uint8 of any size, or preprocessed float32 of the
    model's size. views: (temporal clips, spatial crops of each). stride: frames from one sampled frame to the next;
    None: the model's for a file, 1 for an array. batch: clips per batch; changes results by rounding only. dtype: of
    the operands of matrix products, "float32" or "bfloat16". limits: on the resources that a file may use.
    Classes without a name are called "class 0", "class 1", …
    Raises ValueError if the model has no head, an argument is invalid or the video cannot be read. Use classify_videos
    for several videos.
    """
    (result,) = classify_videos(
        model, [video], top=top, views=views, stride=stride, batch=batch, dtype=dtype, limits=limits
    )
    if isinstance(result, ValueError):
        raise result
    return result.heads


def classify_videos(
    model: ModelData,
    videos: Sequence[Video],
    *,
    top: int = 5,
    views: tuple[int, int] = VIEWS,
    stride: int | None = None,
    batch: int = BATCH,
    dtype: str | None = None,
    threads: int = 2,
    limits: Limits | None = None,
    balanced: bool = True,
) -> Iterator[Classification | ValueError]:
    """Yields the classification of every video in order, or a one-line ValueError.

    The error is of a video that cannot be read or whose logits are not finite. threads: for decoding. balanced: batches
    are smaller than `batch` if that saves padding; otherwise every batch has this size, whatever the number of videos.
    Other arguments are those of classify; one compiled program serves all videos.
    Raises ValueError if the model has no head or an argument is invalid.
    """
    class_names(model)
    views, memory = checked_views(views), (limits or Limits()).memory
    for name, value in (("top", top), ("batch", batch)):
        check_count(name, value)
    check_threads(threads)
    config = model.config
    check_model(config, memory, clips=batch)
    check_views(config.frames, config.height, config.width, views, memory)
    cores = 0 if len(videos) == 1 else 1  # threads of each decoder; 0: one per core

    def load(video: Video) -> VideoViews:
        return load_views(clip_spec(model, video, stride=stride, limits=limits, threads=cores), video, views)

    count = math.prod(views)
    size = balanced_batch_size(max(1, len(videos) * count), batch) if balanced else batch
    forward = forward_of(model, dtype)

    def run(pixels: np.ndarray, _: np.ndarray) -> jax.Array:
        return forward(pixels if balanced else padded(pixels, size))

    stream = view_logits(run, load, videos, views_per_video=count, batch=size, threads=threads)
    return _classified(model, videos, stream, top, dtype, count)


def probabilities(model: ModelData, logits: np.ndarray) -> list[np.ndarray]:
    """Returns the softmax of every head, float64[… v], from the logits of all heads, float[… v]."""
    heads = np.split(np.asarray(logits, np.float64), np.cumsum(model.config.classes)[:-1], axis=-1)
    weights = [np.exp(head - head.max(axis=-1, keepdims=True)) for head in heads]
    return [head / head.sum(axis=-1, keepdims=True) for head in weights]


def scores(model: ModelData, logits: np.ndarray, top: int) -> HeadScores:
    """Returns the `top` best classes of every head, best first, from logits float[v]. Raises as class_names."""
    return HeadScores(
        tuple(Score(names[index], float(head[index])) for index in np.argsort(-head)[:top])
        for head, names in zip(probabilities(model, logits), class_names(model), strict=True)
    )


def class_names(model: ModelData) -> Labels:
    """Returns the class names of every head: the model's labels, or "class 0", "class 1", … if it has none.

    Raises ValueError if the model has no head.
    """
    if not model.config.classes:
        raise ValueError("classes is (): the model has no head to classify with")
    return model.labels or default_labels(model.config)


def _classified(
    model: ModelData, videos: Sequence[Video], stream: Generator[ViewLogits], top: int, dtype: str | None, count: int
) -> Iterator[Classification | ValueError]:
    rows: list[np.ndarray] = []  # of one video
    broken: NotFinite | None = None
    show = progress_bar("views")
    show(0, len(videos) * count)
    with closing(stream):
        for one in stream:
            show(one.video * count + (count if one.last else one.view + 1), len(videos) * count)
            if isinstance(one.views, Exception):
                yield ValueError(" ".join(str(one.views).split()))
                continue
            if isinstance(one.logits, NotFinite):
                broken = broken or one.logits
            else:
                rows.append(np.asarray(one.logits, np.float64))
            if not one.last:
                continue
            if broken is not None:
                yield not_finite(model, broken.clip, video_name(videos[one.video]), dtype)
            else:
                logits = np.stack(rows)
                yield Classification(heads=scores(model, logits.mean(0), top), views=one.views, logits=logits)
            rows, broken = [], None
