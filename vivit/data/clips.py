"""Loads a random clip of a training example: samples, decodes, transforms and crops its frames.

The caller's generator is the only source of randomness. loading.py makes batches; vivit/video/views.py loads the views
of an evaluation.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from vivit.data.sources import Example
from vivit.video.container import check_unchanged
from vivit.video.crops import crop_clips
from vivit.video.sampling import random_clip, segment
from vivit.video.spec import ClipSpec, cached_probe, load_frames

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Broken = Literal["skip", "fail"]  # reaction to a video that cannot be read


class BrokenVideoError(ValueError):
    """A video cannot be read. path: of the video. reason: one line."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason if path in reason else f"{path}: {reason}")
        self.path, self.reason = path, reason


class TrainingClip(NamedTuple):
    """video: uint8[frames height width 3]. frames_valid: the number of frames that are not padding."""

    video: np.ndarray
    frames_valid: int


def training_clip(
    spec: ClipSpec, example: Example, generator: np.random.Generator, transform: Transform | None = None
) -> TrainingClip:
    """Returns a random clip of the example, transformed and cropped.

    transform: function from uint8[frames tall wide 3] and a generator to uint8[frames height width 3]; a larger result
    is cropped to its centre. It receives uncropped frames if spec.resize is set, otherwise their centre crops.
    Raises BrokenVideoError if the video cannot be read; ValueError if the transform returns another shape or dtype.
    """
    try:
        with check_unchanged(example.path):
            video = cached_probe(spec, example.path)
            first, last = segment(video.stamps, example.start, example.end)
            clip = random_clip(spec.sampling, first, last, generator)
            crops = 1 if spec.resize is None else None
            frames = load_frames(spec, video, clip.indices, crops, stored=np.arange(first, last))
    except (ValueError, OSError) as error:
        raise BrokenVideoError(example.path, str(error)) from None
    if transform is not None:
        frames = transform(frames, generator)
        if frames.dtype != np.uint8 or frames.ndim != 4 or len(frames) != len(clip.indices) or frames.shape[3] != 3:
            shape = f"{frames.dtype}{list(frames.shape)}"
            raise ValueError(f"the transform returns {shape}: it must be uint8[{len(clip.indices)} height width 3]")
    rows = np.arange(len(frames))[np.newaxis]
    try:
        (cut,) = crop_clips(frames, rows, 1, height=spec.height, width=spec.width)
    except ValueError as error:
        raise BrokenVideoError(example.path, str(error)) from None
    return TrainingClip(cut, clip.valid)
