"""Clips that slide over a video of any length, from its first frame to its last.

Frames are decoded one by one; only the frames of the current clip are in memory.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vivit.memory import check_memory
from vivit.reference.values import check_count
from vivit.video.container import FAILURES, FileState, Limits, check_unchanged, file_state
from vivit.video.decode import wanted_frames
from vivit.video.frame import Fit, Placement, Reformatters, check_pictures, fill, upright_size
from vivit.video.index import Video
from vivit.video.inputs import video_name
from vivit.video.sampling import warn_if_short
from vivit.video.spec import ClipSpec, cached_probe
from vivit.video.views import check_frames, check_video, fit_frames


class ClipFrames(NamedTuple):
    """The frames of a clip. indices: int64[frames], frame numbers. stamps: float64[frames], seconds."""

    indices: np.ndarray
    stamps: np.ndarray


class SlidingClips(NamedTuple):
    """total: the number of clips. clips: pairs of a clip's frames and its pixels [frames height width 3]."""

    total: int
    clips: Iterator[tuple[ClipFrames, np.ndarray]]


def sliding_clips(spec: ClipSpec, video: str | Path | np.ndarray, *, clip_stride: int | None = None) -> SlidingClips:
    """Returns clips that start every `clip_stride` frames; the last clip ends with the video's last frame.

    video: a file (not a pipe), or frames as in views.load_views; timestamps of an array are frame numbers. clip_stride:
    None: frames · stride, so that clips are adjacent. A video that is shorter than a clip is repeated from its start.
    Raises ValueError as views.load_views.
    """
    check_clip_stride(clip_stride)
    check_video(video)
    if isinstance(video, np.ndarray):
        check_frames(spec, video)
        stamps = np.arange(len(video), dtype=np.float64)
        numbers = _frame_numbers(spec, len(video), clip_stride)
        clips = _assembled(numbers, stamps, _frames_of_array(spec, video, np.unique(numbers)))
    else:
        before = file_state(video)
        with check_unchanged(video, before):
            index = cached_probe(spec, str(video))
        stamps = index.stamps
        numbers = _frame_numbers(spec, len(stamps), clip_stride)
        frames = stream_frames(index, np.unique(numbers), fit=spec.fit(), limits=spec.limits, threads=spec.threads)
        clips = _while_unchanged(_assembled(numbers, stamps, frames), video, before)
    warn_if_short(video_name(video), spec.sampling, len(stamps))
    return SlidingClips(len(numbers), clips)


def check_clip_stride(clip_stride: int | None) -> None:
    """Raises ValueError unless clip_stride is a positive integer or None."""
    if clip_stride is not None:
        check_count("clip_stride", clip_stride)


def _frame_numbers(spec: ClipSpec, length: int, clip_stride: int | None) -> np.ndarray:
    """Returns the frame numbers of every clip, int64[m frames]."""
    frames, stride = spec.sampling.frames, spec.sampling.stride
    step = clip_stride or frames * stride
    room = length - spec.sampling.span
    starts = np.array([0])
    if room > 0:
        count = room // step + 2
        check_memory(f"the numbers of the frames of {count:,} clips", 2 * 8 * count * frames, spec.limits.memory)
        starts = np.unique([*range(0, room, step), room])
    return (starts[:, np.newaxis] + stride * np.arange(frames)) % length


def _while_unchanged(
    clips: Iterator[tuple[ClipFrames, np.ndarray]], path: str | Path, before: FileState | None
) -> Iterator[tuple[ClipFrames, np.ndarray]]:
    """Yields the clips of a file. Raises ValueError if the file has changed since `before`."""
    with check_unchanged(path, before):
        yield from clips


def _frames_of_array(spec: ClipSpec, video: np.ndarray, indices: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (frame number, frame in the spec's size) of an array."""
    same_size = video.shape[1:3] == spec.size
    for index in indices.tolist():
        yield index, video[index] if same_size else fit_frames(video[index : index + 1], spec.fit(), spec.limits)[0]


def _assembled(
    numbers: np.ndarray, stamps: np.ndarray, frames: Iterator[tuple[int, np.ndarray]]
) -> Iterator[tuple[ClipFrames, np.ndarray]]:
    """Yields every clip. numbers: int64[m frames]. frames: pairs of frame number and frame, in order, each once."""
    held: dict[int, np.ndarray] = {}
    for indices in numbers:
        for index in [index for index in held if index < indices.min()]:
            del held[index]
        while indices.max() not in held:
            index, frame = next(frames)
            held[index] = frame
        yield ClipFrames(indices, stamps[indices]), np.stack([held[index] for index in indices.tolist()])


def stream_frames(
    video: Video, indices: np.ndarray, *, fit: Fit, limits: Limits | None = None, threads: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (frame number, uint8[height width 3]) in order, decoding each frame on demand.

    indices: int[f], increasing. fit, limits, threads: as in decode.read_frames, which gives the same pixels and raises
    the same errors; here an error is raised when its frame is reached.
    """
    placement: Placement | None = None
    tables = Reformatters()
    next_row = 0  # wanted_frames repeats rows if a seek led to wrong timestamps
    for row, frame in wanted_frames(video.path, indices, video.table, limits, threads):
        if row < next_row:
            continue
        next_row = row + 1
        if placement is None:
            placement = fit(*upright_size(frame))
            check_pictures(video.path, placement, 1, limits or Limits())
        picture = np.empty((placement.tall, placement.wide, 3), np.uint8)
        try:
            fill(picture, frame, placement, tables)
        except FAILURES as error:
            raise ValueError(f"{video.path} has a picture that cannot be converted: {error}") from None
        yield int(indices[row]), picture
