"""Computes the logits of the views of videos: threads decode the next views while the model computes.

Classification and evaluation share this stream; an explanation uses `clip_logits`.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from vivit import jitted
from vivit.inference.batches import BATCH, NotFinite, balanced_batch_size, map_batched
from vivit.model_data import ModelData
from vivit.notebook import progress_bar
from vivit.video.prefetch import map_in_threads
from vivit.video.views import VideoViews, View

Video = TypeVar("Video")
Forward = Callable[[np.ndarray, np.ndarray], jax.Array]


class ViewLogits(NamedTuple):
    """The logits of one view of a video, or the error of a video that could not be loaded.

    video: index of the video. views: all views of the video, or its error. view: index of this view. logits:
    float32[v] of all heads; NotFinite if they have NaN or infinity; None with an error.
    """

    video: int
    views: tuple[View, ...] | ValueError | OSError
    view: int
    logits: np.ndarray | NotFinite | None

    @property
    def last(self) -> bool:
        """Whether this is the last item of its video."""
        return isinstance(self.views, Exception) or self.view == len(self.views) - 1


def view_logits(
    forward: Forward,
    load: Callable[[Video], VideoViews],
    videos: Sequence[Video],
    *,
    views_per_video: int,
    batch: int,
    threads: int,
    start: tuple[int, int] = (0, 0),
) -> Generator[ViewLogits, None, None]:
    """Yields the logits of every view of every video, in order; one item with the error if `load` raises one.

    forward: function from clips [b frames height width 3] and their number of valid (not padded) frames int32[b] to
    logits [b v]. load: called in threads; may raise ValueError or OSError. views_per_video: the largest number; enough
    videos are decoded ahead to fill two batches. batch: clips per batch. start: (video, view) to begin with.
    """
    first, begin = start

    def attempt(video: Video) -> VideoViews | ValueError | OSError:
        try:
            return load(video)
        except (ValueError, OSError) as error:
            return error

    def clips(loaded: Generator[VideoViews | ValueError | OSError, None, None]):
        for number, video in enumerate(loaded, first):
            if isinstance(video, Exception):
                yield (number, video, 0), None
                continue
            for view in range(begin if number == first else 0, len(video.views)):
                valid = np.array(video.views[view].valid, np.int32)
                yield (number, video.views, view), (video.pixels[view], valid)

    ahead = max(threads, -(-2 * batch // views_per_video))
    with closing(map_in_threads(attempt, videos[first:], threads=threads, ahead=ahead)) as loaded:
        for key, logits in map_batched(forward, clips(loaded), batch):
            yield ViewLogits(*key, logits)


def clip_logits(
    model: ModelData, pixels: np.ndarray, name: str, *, batch: int = BATCH, dtype: str | None = None
) -> np.ndarray:
    """Returns the logits float64[n v] of clips, uint8 or float32[n frames height width 3], at most `batch` at a time.

    name: the video's, for errors. Raises ValueError, naming the first stage that is not finite, if logits are not.
    """
    forward = forward_of(model, dtype)
    rows, show = [], progress_bar("views")
    show(0, len(pixels))
    clips = ((None, (clip,)) for clip in pixels)
    for _, logits in map_batched(forward, clips, balanced_batch_size(len(pixels), batch)):
        rows.append(finite_logits(model, logits, name, dtype))
        show(len(rows), len(pixels))
    return np.stack(rows)


def forward_of(model: ModelData, dtype: str | None) -> Callable[..., jax.Array]:
    """Returns the function from a batch of clips to logits. It treats padded frames like the others."""
    return lambda pixels, *_: jitted.logits(model.params, model.preprocessed(pixels), config=model.config, dtype=dtype)


def finite_logits(model: ModelData, logits: np.ndarray | NotFinite | None, name: str, dtype: str | None) -> np.ndarray:
    """Returns the logits in float64. Raises ValueError, naming video and stage, if they are not finite."""
    if isinstance(logits, NotFinite):
        raise jitted.not_finite(model, logits.clip, name, dtype)
    return np.asarray(logits, np.float64)
