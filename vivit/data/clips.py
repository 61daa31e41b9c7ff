"""One example as the clips that a batch is made of: probed, sampled, decoded or taken from the cache, cut, transformed.

Everything random comes from a generator that is given; nothing here knows of batches, orders or workers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from vivit.data.cache import Cache, cached_frames
from vivit.data.decoding import read_frames
from vivit.data.opening import Limits
from vivit.data.pictures import Fit
from vivit.data.probing import Video, probe
from vivit.data.sampling import Clip, Sampling, even_clips, frames_of, random_clip, segment, warn_of_loop
from vivit.data.sources import Example
from vivit.data.steady import State, state_of, steady
from vivit.data.views import cover, windows
from vivit.reference.values import quoted

VIDEOS_REMEMBERED = 4096

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """What the clips of a model are: how long, how large, made how.

    shorter_side: pictures are scaled to it before anything else, at least until they cover height x width; None: just
    so far, and training takes the centre. transform: from uint8[frames tall wide 3] and a generator to uint8[frames
    height width 3], or larger: then the centre is cut out. cache: where decoded frames are kept. limits: of a file.
    decoder_threads: of one video; 0: as many as there are cores. More than one help where few videos are decoded at
    once. refuse_damaged: whether a file is an error if damage is met in it, or shown as well as it can be, with a
    warning.
    Raises ValueError, naming the field and the requirement.
    """

    sampling: Sampling = field(default_factory=Sampling)
    height: int = 224
    width: int = 224
    shorter_side: int | None = None
    transform: Transform | None = None
    cache: Cache | None = None
    limits: Limits = field(default_factory=Limits)
    decoder_threads: int = 1
    refuse_damaged: bool = False

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name} is {quoted(getattr(self, name))}: it must be a positive integer")
        if type(self.decoder_threads) is not int or self.decoder_threads < 0:
            raise ValueError(f"decoder_threads is {quoted(self.decoder_threads)}: it must be a number, 0 for all")
        if self.shorter_side is not None and self.shorter_side < min(self.height, self.width):
            raise ValueError(f"shorter_side is {self.shorter_side}: it must be at least {min(self.height, self.width)}")


class BrokenVideoError(ValueError):
    """A video that cannot be used; `path` says which and `reason`, one line, why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason if path in reason else f"{path}: {reason}")
        self.path, self.reason = path, reason


class Clips(NamedTuple):
    """The clips of one example: uint8[views frames height width 3] and int32[views], how many frames are no padding."""

    video: np.ndarray
    frames_valid: np.ndarray


def training_clip(pixels: Pixels, example: Example, generator: np.random.Generator) -> Clips:
    """One clip from anywhere in the example, transformed.

    Raises BrokenVideoError, or ValueError if the transform returns what is no clip.
    """
    try:
        with steady(example.path):
            video, (first, last) = _found(pixels, example)
            clip = random_clip(pixels.sampling, first, last, generator)
            crops = 1 if pixels.shorter_side is None else None
            frames = _decoded(pixels, video, np.arange(first, last), clip.indices, crops)
    except (ValueError, OSError) as error:
        raise BrokenVideoError(example.path, str(error)) from None
    if pixels.transform is not None:
        frames = pixels.transform(frames, generator)
        if frames.dtype != np.uint8 or frames.ndim != 4 or len(frames) != len(clip.indices) or frames.shape[3] != 3:
            shape = f"{frames.dtype}{list(frames.shape)}"
            raise ValueError(f"the transform returns {shape}: it must be uint8[{len(clip.indices)} height width 3]")
    return _cut(pixels, frames, np.arange(len(frames))[np.newaxis], [clip], 1, example.path)


def evaluation_clips(pixels: Pixels, example: Example, views: int, spatial: int) -> Clips:
    """All views of the example, view by view the crops along the longer side; nothing is random, none transformed.

    Raises BrokenVideoError.
    """
    try:
        with steady(example.path):
            video, (first, last) = _found(pixels, example)
            warn_of_loop(example.path, pixels.sampling, last - first)
            clips = even_clips(pixels.sampling, first, last, views)
            needed, rows = frames_of(clips)
            frames = _decoded(pixels, video, needed, needed, spatial)
    except (ValueError, OSError) as error:
        raise BrokenVideoError(example.path, str(error)) from None
    return _cut(pixels, frames, rows, clips, spatial, example.path)


@lru_cache(VIDEOS_REMEMBERED)
def _probed(path: str, state: State | None, *, limits: Limits, threads: int) -> Video:
    """What is known of a file in this state."""
    return probe(path, limits=limits, threads=threads)


def _found(pixels: Pixels, example: Example) -> tuple[Video, tuple[int, int]]:
    video = _probed(example.path, state_of(example.path), limits=pixels.limits, threads=pixels.decoder_threads)
    return video, segment(video.stamps, example.start, example.end)


def _decoded(pixels: Pixels, video: Video, stored: np.ndarray, wanted: np.ndarray, crops: int | None) -> np.ndarray:
    """The wanted frames; a cache holds the stored ones."""
    fit: Fit = partial(cover, tall=pixels.height, wide=pixels.width, resize=pixels.shorter_side, crops=crops)
    decode = partial(
        read_frames,
        video,
        fit=fit,
        limits=pixels.limits,
        threads=pixels.decoder_threads,
        refuse_damaged=pixels.refuse_damaged,
    )
    if pixels.cache is None:
        return decode(wanted)
    placement = fit(video.height, video.width)
    return cached_frames(pixels.cache, video, stored, wanted, placement, decode, undamaged=pixels.refuse_damaged)


def _cut(pixels: Pixels, frames: np.ndarray, rows: np.ndarray, clips: Sequence[Clip], spatial: int, path: str) -> Clips:
    """rows: int[views n], which of the frames each view is made of."""
    try:
        video = windows(frames, rows, spatial, height=pixels.height, width=pixels.width)
    except ValueError as error:
        raise BrokenVideoError(path, str(error)) from None
    return Clips(video, np.repeat(np.array([clip.valid for clip in clips], np.int32), spatial))
