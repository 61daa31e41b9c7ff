"""The data of page.js: frames as images, maps as bytes, and texts."""

import base64
from typing import Any

import numpy as np

from vivit.explanation.data import AttentionMaps, ExplanationData
from vivit.explanation.images import COLOR, EVEN, LIGHT, SUM_ROUNDING, frame_url, strength
from vivit.explanation.tables import head_name
from vivit.files.paths import printable
from vivit.reference.config import Config
from vivit.reference.tubelet import frame_indices

UNITS = {  # of the maps over space, by the last component of the stage
    "weights": "share of the clip’s attention",
    "space_weights": "share of the attention within one time",
    "time_weights": "share of the attention along one place",
    "rollout": "share of what the label is read from",
    "relevance": "attention × gradient of the logit",
}


def page_data(one: ExplanationData) -> dict[str, Any]:
    """Returns the data as JSON data. Raises ValueError if a map has NaN or infinity."""
    steps = np.abs(np.diff(one.stamps)) if one.unit == "s" else []
    return dict(
        color=COLOR,
        light=LIGHT,
        frames=[frame_url(frame) for frame in one.frames],
        frame_names=frame_names(one),
        marks=marks(one),
        seconds=float(np.median(steps)) if len(steps) else 0.0,  # between frames
        time_of_frame=times_of_frames(one.config).tolist(),
        grid=one.config.grid,
        targets=[_target(one, number) for number in range(len(one.targets))],
        units=UNITS,
        layers=[_layer(maps) for maps in one.attention],
        rollout=_packed(one.rollout[np.newaxis], [SUM_ROUNDING]),
        relevance=_packed(one.relevance, one.rounding.tolist()),
    )


def frame_names(one: ExplanationData) -> list[str]:
    """Returns the name of every frame: its number in the clip, from 1, and its position in the video if different."""
    names = [f"{number} of {len(one.frames)}" for number in range(1, len(one.frames) + 1)]
    if one.unit == "s":
        return [f"{name}, {stamp:.2f} s" for name, stamp in zip(names, one.stamps, strict=True)]
    return [
        name if stamp == index else f"{name}, the array’s {stamp + 1:g}"
        for index, (name, stamp) in enumerate(zip(names, one.stamps, strict=True))
    ]


def marks(one: ExplanationData) -> list[str]:
    """Returns a note for every frame that repeats another or that the model did not see, otherwise ""."""
    _, firsts, which = np.unique(one.stamps, return_index=True, return_inverse=True)
    notes = [
        f"Frame {first + 1} again: the video is shorter than the clip." if first < frame else ""
        for frame, first in enumerate(firsts[which].tolist())
    ]
    if one.config.sampled_frames is None:
        return notes
    sampled = frame_indices(one.config.frames, one.config.sampled_frames)
    for frame, time in enumerate(times_of_frames(one.config).tolist()):
        if sampled[time] != frame:
            notes[frame] = f"The model never saw this frame: the map is of frame {sampled[time] + 1}. {notes[frame]}"
    return [note.strip() for note in notes]


def times_of_frames(config: Config) -> np.ndarray:
    """Returns the time index of every frame's token, int[frames]; for a frame that was not sampled, the nearest."""
    frames = np.arange(config.frames)
    if config.sampled_frames is None:
        return frames // config.tubelet[0]
    sampled = frame_indices(config.frames, config.sampled_frames)
    return np.abs(frames[:, np.newaxis] - sampled).argmin(axis=1)


def title(stage: str) -> str:
    """Returns the title of a stage, such as "Layer 4, over time" for "encoder/3/time_weights"."""
    encoder, number, weights = stage.split("/")
    kind = "Temporal layer" if encoder == "temporal_encoder" else "Layer"
    over = {"time_weights": ", over time", "space_weights": ", within frames"}.get(weights, "")
    return f"{kind} {int(number) + 1}{over}"


def _target(one: ExplanationData, number: int) -> str:
    target = one.targets[number]
    head = f", {printable(head_name(one, target.head))}" if len(one.scores) > 1 else ""
    return f"“{printable(target.label)}”{head}"


def _layer(maps: AttentionMaps) -> dict[str, Any]:
    heads = len(maps.heads)
    time = maps.time
    if time is not None and maps.time_of_class is not None:
        time = np.concatenate([maps.time_of_class[:, np.newaxis], time], axis=1)
    floors = [SUM_ROUNDING] * (heads + 1)
    return dict(
        title=title(maps.stage),
        unit=maps.stage.split("/")[-1],
        heads=[f"Mean of {heads} heads", *(f"Head {number + 1}" for number in maps.heads)],
        space=None if maps.space is None else _packed(_with_mean(maps.space), floors),
        time=None if time is None else _packed(_with_mean(time), floors),
        class_row=maps.time_of_class is not None,
    )


def _with_mean(maps: np.ndarray) -> np.ndarray:
    return np.concatenate([maps.mean(axis=0, keepdims=True), maps])


def _packed(maps: np.ndarray, floors: list[float]) -> dict[str, Any]:
    """Encodes maps [m r k] as bytes, each scaled to its maximum, with the numbers of every map and of its r rows.

    Numbers have two significant digits. strongest: index of the maximum in a row, −1 if the row is even.
    """
    if not np.isfinite(maps).all():
        raise ValueError("a map has numbers that are not finite: they must be, to be shown")
    strengths = [strength(values, floor) for values, floor in zip(maps, floors, strict=True)]
    most, least = maps.max(axis=2), maps.min(axis=2)
    shown = most > np.array(floors)[:, np.newaxis]
    scaled = np.round(255 * np.stack([one.parts for one in strengths])).astype(np.uint8)
    return dict(
        bytes=base64.b64encode(scaled.tobytes()).decode(),
        least=[_short(one.least) for one in strengths],
        most=[_short(one.most) for one in strengths],
        state=["nothing" if one.nothing else "even" if one.even else "" for one in strengths],
        row_most=[_short(value) for value in np.where(shown, most, 0).ravel()],
        strongest=np.where(least >= EVEN * most, -1, maps.argmax(axis=2)).ravel().tolist(),
    )


def _short(value: float) -> float:
    return float(f"{value:.2g}")
