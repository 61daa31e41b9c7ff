"""The logits of clips that slide over a video. Model 2 runs its spatial encoder once per time index, not once per clip.

The spatial encoder of model 2 sees the frames of one time index only, so overlapping clips share its results: a time
index alone is a clip of the paper's baseline without a temporal encoder, and the temporal encoder is a model 1 whose
tokens are those results. Time indices coincide if clips are a multiple of tubelet · stride frames apart.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vivit import jitted, models
from vivit.backend import backend
from vivit.dropout import Rates
from vivit.encoder import Dropped, RunOptions
from vivit.inference.batches import BATCH, NotFinite, map_batched
from vivit.inference.view_logits import finite_logits, forward_of
from vivit.layers import pool
from vivit.memory import check_model
from vivit.model_data import ModelData, clip_spec
from vivit.reference.config import Config
from vivit.reference.params import Params
from vivit.reference.tubelet import frame_indices
from vivit.reference.values import check_count
from vivit.video.container import Limits
from vivit.video.inputs import video_name
from vivit.video.prefetch import prefetch
from vivit.video.sliding import ClipFrames, sliding_clips


class SlidingLogits(NamedTuple):
    """total: the number of clips. clips: pairs of a clip's frames and its logits float64[v]."""

    total: int
    clips: Iterator[tuple[ClipFrames, np.ndarray]]


def sliding_logits(
    model: ModelData,
    video: str | Path | np.ndarray,
    *,
    stride: int | None = None,
    clip_stride: int | None = None,
    batch: int = BATCH,
    dtype: str | None = None,
    limits: Limits | None = None,
) -> SlidingLogits:
    """Returns the logits of clips that start every `clip_stride` frames of a video, with one batch in memory.

    Arguments as vivit.features. Raises ValueError, naming the value or the video, if one is not valid; while iterating,
    if the video cannot be decoded or logits are not finite.
    """
    check_count("batch", batch)
    check_model(model.config, (limits or Limits()).memory, clips=batch)
    spec = clip_spec(model, video, stride=stride, limits=limits, threads=0)
    sliding = sliding_clips(spec, video, clip_stride=clip_stride)
    size = min(batch, sliding.total)
    decoded = prefetch(sliding.clips, count=2 * size)
    if model.config.model == "factorised_encoder":
        rows = _from_time_indices(model, decoded, size, video_name(video), dtype)
    else:
        clips = ((clip, (pixels,)) for clip, pixels in decoded)
        rows = map_batched(forward_of(model, dtype), clips, size)
    return SlidingLogits(
        sliding.total, ((clip, finite_logits(model, row, video_name(video), dtype)) for clip, row in rows)
    )


class _TimeIndex(NamedTuple):
    """One time index of a clip. frames: the numbers of its frames. pixels: the clip's. last: whether it is the last."""

    clip: ClipFrames
    pixels: np.ndarray
    frames: tuple[int, ...]
    last: bool


def _from_time_indices(
    model: ModelData, clips: Iterator[tuple[ClipFrames, np.ndarray]], batch: int, name: str, dtype: str | None
) -> Iterator[tuple[ClipFrames, np.ndarray | NotFinite]]:
    """Yields the logits of model 2: its spatial encoder runs once per time index, the temporal one per clip."""
    config, params = model.config, model.params
    time = config.grid[0]

    def represent(pixels: np.ndarray) -> jax.Array:
        return _represent(params, model.preprocessed(pixels), config=config, dtype=dtype)

    def over_frames(frames: np.ndarray, _: np.ndarray) -> jax.Array:
        return _over_frames(params, frames, config=config, dtype=dtype)

    def sequences() -> Iterator[tuple[_TimeIndex, tuple[np.ndarray, np.ndarray]]]:
        known: dict[tuple[int, ...], np.ndarray] = {}
        rows: list[np.ndarray] = []
        for index, row in map_batched(represent, _time_indices(clips, config), time * batch):
            if isinstance(row, NotFinite):
                raise jitted.not_finite(model, index.pixels, name, dtype)
            if row is not None:
                known[index.frames] = row
            rows.append(known[index.frames])
            if index.last:
                yield index, (np.stack(rows), index.pixels)
                rows, first = [], index.clip.indices.min()
                known = {frames: row for frames, row in known.items() if max(frames) >= first}

    for index, row in map_batched(over_frames, sequences(), batch):
        yield index.clip, NotFinite(index.pixels) if isinstance(row, NotFinite) else row


def _time_indices(
    clips: Iterator[tuple[ClipFrames, np.ndarray]], config: Config
) -> Iterator[tuple[_TimeIndex, tuple[np.ndarray] | None]]:
    """Yields every time index of every clip, with its pixels [tubelet height width 3] if they are new, else None."""
    selected = np.arange(config.frames)
    if config.sampled_frames is not None:
        selected = frame_indices(config.frames, config.sampled_frames)
    selected = selected.reshape(-1, config.tubelet[0])
    seen: set[tuple[int, ...]] = set()
    for clip, pixels in clips:
        seen = {frames for frames in seen if max(frames) >= clip.indices.min()}
        for number, rows in enumerate(selected, 1):
            frames = tuple(clip.indices[rows].tolist())
            index = _TimeIndex(clip, pixels, frames, number == len(selected))
            yield index, None if frames in seen else (pixels[rows],)
            seen.add(frames)


@partial(jax.jit, static_argnames=("config", "dtype"))
def _represent(params: Params, pixels: jax.Array, *, config: Config, dtype: str | None) -> jax.Array:
    """Returns the spatial encoder's representations float32[n c] of time indices [n tubelet height width 3]."""
    config = replace(
        config,
        frames=config.tubelet[0],
        sampled_frames=None,
        temporal_layers=0,
        temporal_heads=None,
        temporal_hidden=None,
        representation=None,
        classes=(),
    )
    params = params._replace(temporal_encoder=None, representation=None, head=None)
    return models.forward(params, pixels, config, dtype=dtype)


@partial(jax.jit, static_argnames=("config", "dtype"))
def _over_frames(params: Params, frames: jax.Array, *, config: Config, dtype: str | None) -> jax.Array:
    """Returns the logits float32[b v] of clips from the representations float32[b t c] of their time indices."""
    if params.temporal_encoder is None:
        features = pool(frames, "mean")
    else:
        options = RunOptions(ops=backend("auto"), dtype=dtype or "float32", rates=Rates())
        run = models.Run(options, {"encoder": Dropped()}, None)
        one_place = replace(config.temporal, height=config.tubelet[1], width=config.tubelet[2])
        clip = models.Clip(frames[:, :, jnp.newaxis], None, one_place.grid)
        features = models.spatio_temporal(params._replace(encoder=params.temporal_encoder), clip, one_place, run)
    return models.classify(features, params.representation, params.head)[1]
