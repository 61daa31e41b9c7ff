"""The views of one video that a model looks at: clips spread evenly in time, crops along the longer side of each.

Source: Arnab et al. 2021, section 4.1: 4 temporal views of 3 spatial crops, whose logits are averaged.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from vivit.data.decoding import read_frames
from vivit.data.opening import Limits
from vivit.data.pictures import Fit, Tables, check_pictures, fill
from vivit.data.probing import probe
from vivit.data.sampling import Clip, Sampling, even_clips, frames_of, warn_of_loop
from vivit.data.steady import steady
from vivit.data.views import VIEWS, cover, windows
from vivit.inference.videos import called, seekable
from vivit.memory import check_views
from vivit.model import Model
from vivit.paths import as_path
from vivit.reference.values import is_count, quoted


class View(NamedTuple):
    """Where a view is taken. stamps: float64[frames], seconds, of an array the numbers of its frames.

    crop: along the longer side, from left or top; 0 of 1 is the centre. crops: how many there are.
    """

    stamps: np.ndarray
    crop: int
    crops: int


class Views(NamedTuple):
    """uint8 or float32[n frames height width 3], and where each of the n comes from."""

    pixels: np.ndarray
    views: tuple[View, ...]


def taken(
    model: Model,
    video: str | Path | np.ndarray,
    *,
    views: tuple[int, int] = VIEWS,
    stride: int | None = None,
    limits: Limits | None = None,
    threads: int = 0,
) -> Views:
    """The views of one video, in the size of the model's clips: those of the first clip in time first.

    video: a file, "-" (standard input), or frames [n height width 3]: uint8, resized as a file's are unless they have
    the model's size already, or float32 of the model's size, already preprocessed.
    views: clips in time and crops of each; those that would be the same clip are taken once. stride: frames from one
    to the next; None: the model's for a file, 1 for an array. A video that is shorter than a clip starts again.
    limits: what a file may ask of this machine. threads: of the decoder, 0: all cores; the pixels do not depend on
    them.
    Raises ValueError, in one line that names the video, for what cannot be read or does not fit.
    """
    check_video(video)
    views, limits = checked_views(views), limits or Limits()
    check_views(model.config, views, limits.memory)
    if isinstance(video, np.ndarray):
        return _of_array(model, video, views, 1 if stride is None else stride, limits)
    stride = model.preprocessing.stride if stride is None else stride
    with seekable(str(video)) as path, steady(path):
        probed = probe(path, limits=limits, threads=threads)
        clips = _clips(model, stride, len(probed.stamps), views[0], called(video))
        needed, rows = frames_of(clips)
        frames = read_frames(probed, needed, fit=fitting(model, views[1]), limits=limits, threads=threads)
    return _cut(model, frames, rows, probed.stamps[needed], views[1])


def fitting(model: Model, crops: int = 1) -> Fit:
    """How a picture is scaled for a model, and cut to what so many crops need.

    Raises ValueError if the model's preprocessing crops to another size than the config's.
    """
    height, width = model.config.height, model.config.width
    model.preprocessing.check_crop(height, width)
    return partial(cover, tall=height, wide=width, resize=model.preprocessing.resize, crops=crops)


def fitted(frames: np.ndarray, fit: Fit, limits: Limits) -> np.ndarray:
    """Pictures in memory scaled and cut as those of a file: uint8[n tall wide 3] from uint8[n height width 3]."""
    placement, tables = fit(*frames.shape[1:3]), Tables()
    check_pictures("an array", placement, len(frames), limits)
    pictures = np.empty((len(frames), placement.tall, placement.wide, 3), np.uint8)
    for picture, frame in zip(pictures, frames, strict=True):
        stored = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
        fill(picture, stored, placement, tables)
    return pictures


def check_frames(model: Model, frames: np.ndarray) -> None:
    """Raises ValueError unless an array is a video, uint8, or float32 or bfloat16 of the model's size."""
    size = (model.config.height, model.config.width)
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"video has shape {list(frames.shape)}: it must be [frames height width 3], of one video")
    if frames.dtype == np.uint8:
        return
    if frames.dtype.name not in ("float32", "bfloat16"):
        raise ValueError(f"video has dtype {frames.dtype}: it must be uint8 (0 to 255), float32 or bfloat16")
    if frames.shape[1:3] != size:
        raise ValueError(f"video has pictures of {frames.shape[1:3]}: floats are not resized, they must be {size}")


def checked_views(views: tuple[int, int]) -> tuple[int, int]:
    """(clips in time, crops of each). Raises ValueError for anything else."""
    if not isinstance(views, (tuple, list)) or len(views) != 2 or not all(map(is_count, views)):
        raise ValueError(f"views is {quoted(views)}: it must be (clips in time, crops of each), such as (4, 3)")
    return views[0], views[1]


def check_video(video: object) -> None:
    """Raises ValueError unless this is a name or an array; what an array must hold is check_frames' question."""
    if isinstance(video, (str, Path)):
        as_path(video)
    elif not isinstance(video, np.ndarray):
        kind = type(video).__name__
        raise ValueError(f"video is of type {kind}: it must be the name of a file, or an array [frames height width 3]")


def _of_array(model: Model, video: np.ndarray, views: tuple[int, int], stride: int, limits: Limits) -> Views:
    check_frames(model, video)
    clips = _clips(model, stride, len(video), views[0], called(video))
    needed, rows = frames_of(clips)
    frames = video[needed]
    if frames.shape[1:3] != (model.config.height, model.config.width):
        frames = fitted(frames, fitting(model, views[1]), limits)
    return _cut(model, frames, rows, needed.astype(np.float64), views[1])


def _clips(model: Model, stride: int, length: int, count: int, name: str) -> list[Clip]:
    """Clips spread evenly; where there is no room for several, one."""
    sampling = Sampling(frames=model.config.frames, stride=stride)
    warn_of_loop(name, sampling, length)
    clips = even_clips(sampling, 0, length, count)
    return list({clip.indices.tobytes(): clip for clip in clips}.values())


def _cut(model: Model, frames: np.ndarray, rows: np.ndarray, stamps: np.ndarray, count: int) -> Views:
    """Frames [f tall wide 3] as clips, int[m n] of them, cut into crops: one where there is no side to cut along."""
    height, width = model.config.height, model.config.width
    if frames.shape[1:3] == (height, width):
        count = 1
    pixels = windows(frames, rows, count, height=height, width=width)
    return Views(pixels, tuple(View(each, crop, count) for each in stamps[rows] for crop in range(count)))
