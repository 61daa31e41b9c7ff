"""Clips that slide over a video from its first frame to its last, however long it is.

Only the frames of the clips that are being filled are in memory.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vivit.data.opening import Limits
from vivit.data.probing import probe
from vivit.data.sampling import Sampling, warn_of_loop
from vivit.data.steady import State, state_of, steady
from vivit.data.streaming import stream_frames
from vivit.inference.videos import called
from vivit.inference.views import check_frames, check_video, fitted, fitting
from vivit.memory import check_memory
from vivit.model import Model
from vivit.reference.values import MOST, is_count, quoted


class Window(NamedTuple):
    """Where a clip is taken. indices: int64[frames], numbers of frames. stamps: float64[frames], their seconds."""

    indices: np.ndarray
    stamps: np.ndarray


class Sliding(NamedTuple):
    """total: how many clips there will be. clips: pairs of a window and its pixels [frames height width 3]."""

    total: int
    clips: Iterator[tuple[Window, np.ndarray]]


def sliding(
    model: Model,
    video: str | Path | np.ndarray,
    *,
    stride: int | None = None,
    hop: int | None = None,
    limits: Limits | None = None,
) -> Sliding:
    """Clips of a model's size that slide over a video by `hop` frames; the last ends with the video's last frame.

    video: a file that can be read twice, or frames as views.taken takes them; the stamps of an array are the numbers of
    its frames. stride: as views.taken's. hop: None: clips follow one another without a gap, frames · stride.
    A video that is shorter than a clip starts again. Raises ValueError as views.taken.
    """
    check_sliding(stride, hop)
    check_video(video)
    limits = limits or Limits()
    if isinstance(video, np.ndarray):
        check_frames(model, video)
        stamps = np.arange(len(video), dtype=np.float64)
        stride = 1 if stride is None else stride
        windows = _windows(len(video), model.config.frames, stride, hop, limits)
        clips = _filled(windows, stamps, _pictures(model, video, np.unique(windows), limits))
    else:
        before = state_of(video)
        with steady(video, before):
            probed = probe(video, limits=limits)
        stamps = probed.stamps
        stride = model.preprocessing.stride if stride is None else stride
        windows = _windows(len(stamps), model.config.frames, stride, hop, limits)
        pictures = stream_frames(probed, np.unique(windows), fit=fitting(model), limits=limits)
        clips = _steadily(_filled(windows, stamps, pictures), video, before)
    warn_of_loop(called(video), Sampling(frames=model.config.frames, stride=stride), len(stamps))
    return Sliding(len(windows), clips)


def check_sliding(stride: int | None, hop: int | None) -> None:
    """Raises ValueError unless they are positive, or None."""
    for name, value in (("stride", stride), ("hop", hop)):
        if value is not None and not is_count(value):
            raise ValueError(f"{name} is {quoted(value)}: it must be at least 1, and at most {MOST}")


def _windows(length: int, frames: int, stride: int, hop: int | None, limits: Limits) -> np.ndarray:
    """int64[m frames]: the numbers of each window's frames."""
    room = length - ((frames - 1) * stride + 1)
    starts = np.array([0])
    if room > 0:
        count = room // (hop or frames * stride) + 2
        check_memory(f"the numbers of the frames of {count:,} clips", 2 * 8 * count * frames, limits.memory)
        starts = np.unique([*range(0, room, hop or frames * stride), room])
    return (starts[:, np.newaxis] + stride * np.arange(frames)) % length


def _steadily(
    clips: Iterator[tuple[Window, np.ndarray]], path: str | Path, before: State | None
) -> Iterator[tuple[Window, np.ndarray]]:
    """The clips of a file, as long as it stays what it was."""
    with steady(path, before):
        yield from clips


def _pictures(model: Model, video: np.ndarray, indices: np.ndarray, limits: Limits) -> Iterator[tuple[int, np.ndarray]]:
    """Frames in memory one after the other, in the model's size."""
    as_they_are = video.shape[1:3] == (model.config.height, model.config.width)
    fit = fitting(model)
    for index in indices.tolist():
        yield index, video[index] if as_they_are else fitted(video[index : index + 1], fit, limits)[0]


def _filled(
    windows: np.ndarray, stamps: np.ndarray, pictures: Iterator[tuple[int, np.ndarray]]
) -> Iterator[tuple[Window, np.ndarray]]:
    """Every window with its pictures, which come in order, each once."""
    held: dict[int, np.ndarray] = {}
    for indices in windows:
        for index in [index for index in held if index < indices.min()]:
            del held[index]
        while indices.max() not in held:
            index, picture = next(pictures)
            held[index] = picture
        yield Window(indices, stamps[indices]), np.stack([held[index] for index in indices.tolist()])
