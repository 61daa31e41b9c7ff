"""Loads the views of a video: clips spaced evenly in time, and spatial crops along the longer side of each.

Source: Arnab et al. 2021, section 4.1: 4 temporal views of 3 spatial crops, whose logits are averaged.
"""

from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from vivit.files.paths import as_path
from vivit.memory import check_views
from vivit.reference.values import is_count, quoted
from vivit.video.container import Limits, check_unchanged
from vivit.video.crops import VIEWS, crop_clips
from vivit.video.frame import Fit, Reformatters, check_pictures, fill
from vivit.video.inputs import seekable, video_name
from vivit.video.sampling import Clip, even_clips, frames_of, segment, warn_if_short
from vivit.video.spec import ClipSpec, cached_probe, load_frames


class View(NamedTuple):
    """The position of a view. stamps: float64[frames], seconds; frame numbers if the video is an array.

    valid: the number of frames that are not padding. crop: index of the crop along the longer side, from left or top.
    crops: the number of crops; a single one is the centre.
    """

    stamps: np.ndarray
    valid: int
    crop: int
    crops: int


class VideoViews(NamedTuple):
    """pixels: uint8 or float32[n frames height width 3]. views: the position of each of the n views."""

    pixels: np.ndarray
    views: tuple[View, ...]


def load_views(
    spec: ClipSpec,
    video: str | Path | np.ndarray,
    views: tuple[int, int] = VIEWS,
    *,
    start: float | None = None,
    end: float | None = None,
) -> VideoViews:
    """Returns the views of a video, ordered by clip, then by crop.

    video: a file, "-" (standard input), or frames [n height width 3]: uint8, resized like a file's frames unless they
    have the spec's size, or preprocessed float32 of the spec's size.
    views: (temporal clips, spatial crops of each). Equal clips are returned once, and frames of the spec's size have
    one crop. start, end: seconds of the file's segment; None: from its first frame, to its last.
    Raises a one-line ValueError that names the video if it cannot be read or an argument is invalid.
    """
    check_video(video)
    views = checked_views(views)
    check_views(spec.sampling.frames, spec.height, spec.width, views, spec.limits.memory)
    if isinstance(video, np.ndarray):
        return _views_of_array(spec, video, views)
    with seekable(str(video)) as path, check_unchanged(path):
        index = cached_probe(spec, path)
        first, last = segment(index.stamps, start, end)
        clips = _clips(spec, first, last, views[0], video_name(video))
        needed, rows = frames_of(clips)
        frames = load_frames(spec, index, needed, views[1], stored=needed)
    return _cropped(spec, frames, clips, rows, index.stamps[needed], views[1])


def fit_frames(frames: np.ndarray, fit: Fit, limits: Limits) -> np.ndarray:
    """Scales and crops frames in memory like those of a file: uint8[n height width 3] to uint8[n tall wide 3]."""
    placement, tables = fit(*frames.shape[1:3]), Reformatters()
    check_pictures("an array", placement, len(frames), limits)
    pictures = np.empty((len(frames), placement.tall, placement.wide, 3), np.uint8)
    for picture, frame in zip(pictures, frames, strict=True):
        stored = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
        fill(picture, stored, placement, tables)
    return pictures


def check_frames(spec: ClipSpec, frames: np.ndarray) -> None:
    """Raises ValueError unless frames are [n height width 3], uint8, or float32 or bfloat16 of the spec's size."""
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"video has shape {list(frames.shape)}: it must be [frames height width 3], of one video")
    if frames.dtype == np.uint8:
        return
    if frames.dtype.name not in ("float32", "bfloat16"):
        raise ValueError(f"video has dtype {frames.dtype}: it must be uint8 (0 to 255), float32 or bfloat16")
    if frames.shape[1:3] != spec.size:
        raise ValueError(f"video has pictures of {frames.shape[1:3]}: floats are not resized, they must be {spec.size}")


def checked_views(views: tuple[int, int]) -> tuple[int, int]:
    """Returns the views as a tuple (temporal clips, spatial crops). Raises ValueError for other values."""
    if not isinstance(views, (tuple, list)) or len(views) != 2 or not all(map(is_count, views)):
        raise ValueError(f"views is {quoted(views)}: it must be (clips in time, crops of each), such as (4, 3)")
    return views[0], views[1]


def check_video(video: object) -> None:
    """Raises ValueError unless video is a path or an array. `check_frames` checks the array."""
    if isinstance(video, (str, Path)):
        as_path(video)
    elif not isinstance(video, np.ndarray):
        kind = type(video).__name__
        raise ValueError(f"video is of type {kind}: it must be the name of a file, or an array [frames height width 3]")


def _views_of_array(spec: ClipSpec, video: np.ndarray, views: tuple[int, int]) -> VideoViews:
    check_frames(spec, video)
    clips = _clips(spec, 0, len(video), views[0], video_name(video))
    needed, rows = frames_of(clips)
    frames = video[needed]
    if frames.shape[1:3] != spec.size:
        frames = fit_frames(frames, spec.fit(views[1]), spec.limits)
    return _cropped(spec, frames, clips, rows, needed.astype(np.float64), views[1])


def _clips(spec: ClipSpec, first: int, last: int, count: int, name: str) -> list[Clip]:
    """Returns the different ones of `count` clips spaced evenly over the frames first … last − 1."""
    warn_if_short(name, spec.sampling, last - first)
    clips = even_clips(spec.sampling, first, last, count)
    return list({clip.indices.tobytes(): clip for clip in clips}.values())


def _cropped(
    spec: ClipSpec, frames: np.ndarray, clips: list[Clip], rows: np.ndarray, stamps: np.ndarray, crops: int
) -> VideoViews:
    """Returns the crops of clips. frames: [f tall wide 3]. rows: int[m n], indices of each clip's frames."""
    if frames.shape[1:3] == spec.size:
        crops = 1
    pixels = crop_clips(frames, rows, crops, height=spec.height, width=spec.width)
    views = (
        View(stamps[row], clip.valid, crop, crops)
        for clip, row in zip(clips, rows, strict=True)
        for crop in range(crops)
    )
    return VideoViews(pixels, tuple(views))
