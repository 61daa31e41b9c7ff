"""Samples the frame numbers of clips: at random for training, evenly spaced for evaluation.

Only frame numbers are computed here; decode.py decodes the frames.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from vivit.reference.values import MAX_COUNT, is_count, quoted

Short = Literal["loop", "pad"]

_log = logging.getLogger("vivit.data")
TOLERANCE = 1e-6  # seconds: timestamps are multiples of a time base, annotations are decimal


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How clips are sampled from a video.

    frames: per clip. stride: frames from one sampled frame to the next. short: for a video that is shorter than a clip,
    "loop" starts again at its first frame; "pad" repeats its last frame and sets the number of valid frames.
    Raises ValueError, naming the field and the requirement, if a field is invalid.
    """

    frames: int = 32
    stride: int = 2
    short: Short = "loop"

    def __post_init__(self) -> None:
        for field in ("frames", "stride"):
            value = getattr(self, field)
            if not is_count(value):
                raise ValueError(f"{field} is {quoted(value)}: it must be a positive integer, to {MAX_COUNT}")
        if self.short not in get_args(Short):
            raise ValueError(f"short is {quoted(self.short)}: it must be one of {', '.join(get_args(Short))}")

    @property
    def span(self) -> int:
        """The number of video frames from the first to the last frame of a clip."""
        return (self.frames - 1) * self.stride + 1


def warn_if_short(name: str, sampling: Sampling, length: int) -> None:
    """Warns if a video of `length` frames is shorter than a clip."""
    if length < sampling.span:
        does = "it starts again" if sampling.short == "loop" else "its last frame stays"
        needed = f"a clip of {sampling.frames} at stride {sampling.stride} needs {sampling.span:,}"
        _log.warning("%s has %s: %s, %s", name, f"{length:,} frame{'s' * (length > 1)}", needed, does)


class Clip(NamedTuple):
    """A clip. indices: int64[frames], frame numbers, of which the first `valid` are not padding."""

    indices: np.ndarray
    valid: int


def segment(stamps: np.ndarray, start: float | None = None, end: float | None = None) -> tuple[int, int]:
    """Returns the frame numbers (first, last) with start ≤ stamp < end for first ≤ number < last.

    stamps: float64[n], seconds since the first frame. start, end: None: from the first frame, to the last.
    Raises ValueError if there is no such frame.
    """
    first = 0 if start is None else int(np.searchsorted(stamps, start - TOLERANCE))
    last = len(stamps) if end is None else int(np.searchsorted(stamps, end - TOLERANCE))
    if last <= first:
        shown = f"its {len(stamps)} frames are shown from 0 to {stamps[-1]:.3f} s"
        raise ValueError(f"no frame is shown from second {start} to {end}: {shown}")
    return first, last


def random_clip(sampling: Sampling, first: int, last: int, generator: np.random.Generator) -> Clip:
    """Returns a random clip of the frames first … last − 1; every possible start is equally likely."""
    room = last - first - sampling.span
    return _clip(sampling, first, last, int(generator.integers(room + 1)) if room > 0 else 0)


def even_clips(sampling: Sampling, first: int, last: int, views: int = 1) -> list[Clip]:
    """Returns `views` clips of the frames first … last − 1, spaced evenly from end to end; one clip is the middle.

    Source: Arnab et al. 2021, section 4.1, temporal views.
    """
    room = max(0, last - first - sampling.span)
    starts = [room // 2] if views == 1 else np.linspace(0, room, views).round().astype(int).tolist()
    return [_clip(sampling, first, last, start) for start in starts]


def frames_of(clips: Sequence[Clip]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the different frame numbers of clips, int64[f], and each clip's indices into them, int64[clips n]."""
    needed, rows = np.unique([clip.indices for clip in clips], return_inverse=True)
    return needed, rows.reshape(len(clips), -1)


def _clip(sampling: Sampling, first: int, last: int, start: int) -> Clip:
    length = last - first
    offsets = start + sampling.stride * np.arange(sampling.frames, dtype=np.int64)
    if sampling.short == "loop":
        return Clip(first + offsets % length, sampling.frames)
    return Clip(first + np.minimum(offsets, length - 1), int((offsets < length).sum()))
