"""Which frames of a video make a clip: anywhere in training, in the middle or evenly spread in evaluation.

Only numbers of frames are computed here; decoding.py fetches their pixels.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from vivit.reference.values import MOST, is_count, quoted

Short = Literal["loop", "pad"]

_log = logging.getLogger("vivit.data")
TOLERANCE = 1e-6  # seconds: stamps are multiples of a time base, annotations are decimal


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How clips are taken from a video.

    frames: of a clip. stride: from one to the next. short: what happens if a video ends before its clip does: "loop"
    starts again at its first frame, "pad" repeats its last one and says how many frames are valid.
    Raises ValueError, naming the field and the requirement.
    """

    frames: int = 32
    stride: int = 2
    short: Short = "loop"

    def __post_init__(self) -> None:
        for field in ("frames", "stride"):
            if not is_count(getattr(self, field)):
                raise ValueError(f"{field} is {quoted(getattr(self, field))}: it must be a positive integer, to {MOST}")
        if self.short not in get_args(Short):
            raise ValueError(f"short is {quoted(self.short)}: it must be one of {', '.join(get_args(Short))}")

    @property
    def span(self) -> int:
        """Frames of a video from a clip's first to its last."""
        return (self.frames - 1) * self.stride + 1


def warn_of_loop(name: str, sampling: Sampling, length: int) -> None:
    """Says that a video of so many frames has to start again, or stand still, to fill a clip."""
    if length < sampling.span:
        does = "it starts again" if sampling.short == "loop" else "its last frame stays"
        needed = f"a clip of {sampling.frames} at stride {sampling.stride} needs {sampling.span:,}"
        _log.warning("%s has %s: %s, %s", name, f"{length:,} frame{'s' * (length > 1)}", needed, does)


class Clip(NamedTuple):
    """The frames of one clip: int64[frames], of which the first `valid` are no padding."""

    indices: np.ndarray
    valid: int


def segment(stamps: np.ndarray, start: float | None = None, end: float | None = None) -> tuple[int, int]:
    """The numbers of the first frame shown at start or later and of the first shown at end or later.

    stamps: float64[n], seconds since the first frame. None: from the first frame, to the last.
    Raises ValueError if no frame is shown in between.
    """
    first = 0 if start is None else int(np.searchsorted(stamps, start - TOLERANCE))
    last = len(stamps) if end is None else int(np.searchsorted(stamps, end - TOLERANCE))
    if last <= first:
        shown = f"its {len(stamps)} frames are shown from 0 to {stamps[-1]:.3f} s"
        raise ValueError(f"no frame is shown from second {start} to {end}: {shown}")
    return first, last


def random_clip(sampling: Sampling, first: int, last: int, generator: np.random.Generator) -> Clip:
    """A clip from anywhere in the frames first … last − 1; every start that fits is equally likely."""
    room = last - first - sampling.span
    return _clip(sampling, first, last, int(generator.integers(room + 1)) if room > 0 else 0)


def even_clips(sampling: Sampling, first: int, last: int, views: int = 1) -> list[Clip]:
    """`views` clips from the frames first … last − 1, spread evenly from end to end; one is the middle.

    Source: Arnab et al. 2021, section 4.1, temporal views.
    """
    room = max(0, last - first - sampling.span)
    starts = [room // 2] if views == 1 else np.linspace(0, room, views).round().astype(int).tolist()
    return [_clip(sampling, first, last, start) for start in starts]


def frames_of(clips: Sequence[Clip]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the frames that clips are made of, int64[f], each once, and int64[clips n], where theirs are."""
    needed, rows = np.unique([clip.indices for clip in clips], return_inverse=True)
    return needed, rows.reshape(len(clips), -1)


def _clip(sampling: Sampling, first: int, last: int, start: int) -> Clip:
    length = last - first
    places = start + sampling.stride * np.arange(sampling.frames, dtype=np.int64)
    if sampling.short == "loop":
        return Clip(first + places % length, sampling.frames)
    return Clip(first + np.minimum(places, length - 1), int((places < length).sum()))
