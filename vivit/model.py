"""A model that is ready for use: config, weights, class names and preprocessing, as a checkpoint holds them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vivit import models
from vivit.checkpoints.report import Report
from vivit.labels import Labels, check_labels
from vivit.preprocessing import PUBLISHED, Preprocessing, preprocessing_for
from vivit.reference.config import Config
from vivit.reference.params import Params, check
from vivit.video import read_clip


class Score(NamedTuple):
    """One class of one head, and its probability in that head."""

    label: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Model:
    """What `vivit.load` returns.

    labels: the names of each head's classes, or None if nothing said them.
    preprocessing: what uint8 video goes through; None: the published one for the config's size.
    report: where every leaf comes from.
    Raises ValueError if params or labels do not fit the config.
    """

    config: Config
    params: Params = field(repr=False)
    labels: Labels | None = field(default=None, repr=False)
    preprocessing: Preprocessing = None  # pyright: ignore[reportAssignmentType]  # filled in below
    report: Report = field(default=Report(), repr=False, compare=False)

    def __post_init__(self) -> None:
        check(self.params, self.config)
        if self.labels is not None:
            check_labels(self.labels, self.config)
        if self.preprocessing is None:
            object.__setattr__(self, "preprocessing", preprocessing_for(self.config.height, self.config.width))

    def logits(self, video: np.ndarray | jax.Array, **options: Any) -> jax.Array:
        """The logits of a batch of clips, float[b v].

        video: [b frames height width colors]; uint8 goes through this model's preprocessing, floats already have.
        options: as `vivit.forward`'s. Raises ValueError for what does not fit.
        """
        return models.forward(self.params, self.preprocessed(video), self.config, **options)

    def preprocessed(self, video: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
        """What `vivit.forward` is to be given for a video: uint8 in this model's range, floats as they are."""
        same = (self.preprocessing.rescale, self.preprocessing.offset, self.preprocessing.mean, self.preprocessing.std)
        published = (PUBLISHED.rescale, PUBLISHED.offset, PUBLISHED.mean, PUBLISHED.std)
        if getattr(video, "dtype", None) != np.uint8 or same == published:  # forward scales uint8 to −1…1 itself
            return video
        return self.preprocessing.normalise(np.asarray(video))

    def read(self, path: str | Path, *, stride: int = 2, start: int = 0) -> np.ndarray:
        """One clip of a video file as this model wants it: uint8[frames height width 3], resized and cropped.

        Raises ValueError, in one line that names the file, if it cannot be read or is too short.
        """
        config, crop = self.config, self.preprocessing.crop
        if crop not in (None, (config.height, config.width)):
            raise ValueError(f"crop is {crop}: the config has (height, width) {(config.height, config.width)}")
        sizes = dict(frames=config.frames, height=config.height, width=config.width)
        return read_clip(path, **sizes, stride=stride, start=start, resize=self.preprocessing.resize)

    def classify(
        self, video: str | Path | np.ndarray, *, top: int = 5, stride: int = 2, start: int = 0, **options: Any
    ) -> tuple[tuple[Score, ...], ...]:
        """The most probable classes of one clip, for each head the `top` best first.

        video: a file, of which the frames start, start + stride, … are taken, or a clip [frames height width 3].
        options: as `vivit.forward`'s. Raises ValueError if the model has no labels, or for what does not fit.
        """
        if self.labels is None:
            raise ValueError(
                "labels is None: the checkpoint does not name its classes, pass labels= to load (a file, "
                "kinetics400 or something_something_v2)"
            )
        if top < 1:
            raise ValueError(f"top is {top}: it must be at least 1")
        clip = self.read(video, stride=stride, start=start) if isinstance(video, (str, Path)) else video
        logits = np.asarray(self.logits(clip[np.newaxis], **options), np.float64)[0]
        heads = np.split(logits, np.cumsum(self.config.classes)[:-1])
        return tuple(_best(head, names, top) for head, names in zip(heads, self.labels, strict=True))


def _best(logits: np.ndarray, names: tuple[str, ...], top: int) -> tuple[Score, ...]:
    weights = np.exp(logits - logits.max())
    probabilities = weights / weights.sum()
    return tuple(Score(names[index], float(probabilities[index])) for index in np.argsort(-probabilities)[:top])
