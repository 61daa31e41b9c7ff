"""What page.js draws, as JSON: the frames as pictures, the maps as bytes."""

import base64
import json
from typing import Any

import numpy as np

from vivit.explain.explanation import AttentionMaps, Explanation
from vivit.explain.images import frame_url
from vivit.printable import printable
from vivit.reference.config import Config
from vivit.reference.tubelet import frame_indices


def drawn(one: Explanation) -> str:
    """JSON that cannot end its element. Raises ValueError if a map has a number that is not finite."""
    steps = np.abs(np.diff(one.stamps)) if one.unit == "s" else []
    value = dict(
        frames=[frame_url(frame) for frame in one.frames],
        stamps=one.stamps.tolist(),
        unit=one.unit,
        seconds=float(np.median(steps)) if len(steps) else 0.0,  # from frame to frame
        time_of_frame=times_of_frames(one.config),
        grid=one.config.grid,
        target=printable(one.target.label),
        layers=[_layer(maps) for maps in one.attention],
        rollout=_packed(one.rollout[np.newaxis]),
        relevance=_packed(one.relevance[np.newaxis]),
    )
    return json.dumps(value).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def times_of_frames(config: Config) -> list[int]:
    """For every frame of a clip the time index of the token that it is in, or that stands for it."""
    frames = np.arange(config.frames)
    if config.sampled_frames is None:
        return (frames // config.tubelet[0]).tolist()
    sampled = frame_indices(config.frames, config.sampled_frames)
    return np.abs(frames[:, np.newaxis] - sampled).argmin(axis=1).tolist()


def title(stage: str) -> str:
    """ "encoder/3/time_weights" in words: "Layer 4, over time"."""
    encoder, number, weights = stage.split("/")
    kind = "Temporal layer" if encoder == "temporal_encoder" else "Layer"
    over = {"time_weights": ", over time", "space_weights": ", within frames"}.get(weights, "")
    return f"{kind} {int(number) + 1}{over}"


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


def _with_mean(maps: np.ndarray) -> np.ndarray:
    return np.concatenate([maps.mean(axis=0, keepdims=True), maps])


def _packed(maps: np.ndarray) -> dict[str, Any]:
    """Maps [m …] as bytes, each scaled to its own peak."""
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    if not np.isfinite(flat).all():
        raise ValueError("a map has numbers that are not finite: they must be, to be shown")
    peaks = flat.max(axis=1)
    scaled = np.round(255 * flat / np.where(peaks > 0, peaks, 1)[:, np.newaxis]).astype(np.uint8)
    return dict(bytes=base64.b64encode(scaled.tobytes()).decode(), peaks=peaks.tolist())
