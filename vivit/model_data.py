"""ModelData, the contents of a checkpoint: config, weights, class names, preprocessing, and a report of the sources.

Functions such as classify, features, explain, save and export take a ModelData; `vivit.Model` (pretrained.py) has them
as methods.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from vivit import models
from vivit.labels import Labels, check_heads, check_labels, default_heads
from vivit.notebook import table
from vivit.reference.config import Config
from vivit.reference.params import Params, check, parameters
from vivit.video.cache import Cache
from vivit.video.clip import read_clip
from vivit.video.container import Limits
from vivit.video.preprocessing import PUBLISHED, Preprocessing, preprocessing_for
from vivit.video.sampling import Sampling, Short
from vivit.video.spec import ClipSpec

AnyModel = TypeVar("AnyModel", bound="ModelData")


class Origin(NamedTuple):
    """One line of a report: the source of one leaf."""

    leaf: str  # "encoder/blocks/mlp/out/kernel"
    shape: tuple[int, ...]
    source: str  # names in the file; "" for fresh leaves
    change: str  # "unchanged", "transposed", "inflated over 2 frames", "fresh: zeros", …


class Report(NamedTuple):
    """The source of every leaf, and notes on format, preprocessing and unused arrays. Prints as a table."""

    origins: tuple[Origin, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [("leaf", "shape", "change", "from")]
        rows += [(one.leaf, "×".join(map(str, one.shape)), one.change, one.source or "-") for one in self.origins]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
        ]
        return "\n".join([*(lines if self.origins else []), *self.notes])

    def __repr__(self) -> str:
        return f"Report(where {len(self.origins)} leaves come from, {len(self.notes)} notes: print it)"

    def with_notes(self, *notes: str) -> "Report":
        """Returns this report with further notes."""
        return self._replace(notes=(*self.notes, *notes))


@dataclass(frozen=True, kw_only=True)
class ModelData:
    """A model with everything that its use requires.

    labels: class names of every head; None if unknown. heads: names of the heads, such as ("verb", "noun"), or None.
    preprocessing: of uint8 video; None: the published preprocessing for the config's size. report: the source of every
    leaf. Raises ValueError if params, labels or heads do not match the config.
    """

    config: Config
    params: Params = field(repr=False)
    labels: Labels | None = field(default=None, repr=False)
    heads: tuple[str, ...] | None = field(default=None, repr=False)
    preprocessing: Preprocessing = None  # pyright: ignore[reportAssignmentType]  # filled in below
    report: Report = field(default=Report(), repr=False, compare=False)

    def __post_init__(self) -> None:
        check(self.params, self.config)
        if self.labels is not None:
            check_labels(self.labels, self.config)
        if self.heads is not None:
            check_heads(self.heads, self.config)
        if self.preprocessing is None:
            object.__setattr__(self, "preprocessing", preprocessing_for(self.config.height, self.config.width))

    @property
    def head_names(self) -> tuple[str, ...]:
        """The names of the heads, or "head 1", "head 2", … if they have none."""
        return self.heads or default_heads(self.config)

    @property
    def outputs(self) -> int:
        """The number of logits of a clip, v; without a head the width of the prelogits."""
        return sum(self.config.classes) or self.config.representation or self.config.channels

    def _facts(self) -> dict[str, str]:
        one = self.config
        names = self.labels or [()] * len(one.classes)
        heads = (
            f"{count} ({', '.join(map(repr, labels[:2]))}, …)" if labels else str(count)
            for count, labels in zip(one.classes, names, strict=True)
        )
        return {
            "parameters": f"{parameters(one):,}",
            "layers": f"{one.layers} of {one.channels} channels and {one.heads} heads",
            "clips": f"{one.frames} frames of {one.width} × {one.height} pixels, stride {self.preprocessing.stride}",
            "classes": " and ".join(heads) or "none",
        }

    def __repr__(self) -> str:
        lines = (f"  {name}: {value}" for name, value in self._facts().items())
        return "\n".join([f"Model: {self.config.model}", *lines])

    def _repr_html_(self) -> str:
        """Returns the same as a table, for notebooks."""
        return table(f"Model: {self.config.model}", self._facts().items())

    def logits(self, video: np.ndarray | jax.Array, **options: Any) -> jax.Array:
        """Returns the logits of a batch of clips, float[b v].

        video: [b frames height width colors], uint8, or preprocessed floats; may be traced. options: those of
        `vivit.forward`. Raises ValueError if an argument is invalid.
        """
        return models.forward(self.params, self.preprocessed(video), self.config, **options)

    def preprocessed(self, video: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
        """Scales uint8 video to this model's range, for `vivit.forward`. Returns floats unchanged."""
        same = (self.preprocessing.rescale, self.preprocessing.offset, self.preprocessing.mean, self.preprocessing.std)
        published = (PUBLISHED.rescale, PUBLISHED.offset, PUBLISHED.mean, PUBLISHED.std)
        if getattr(video, "dtype", None) != np.uint8 or same == published:  # forward scales uint8 to −1…1 itself
            return video
        return self.preprocessing.normalise(video)

    def read(self, path: str | Path, *, stride: int | None = None, start: int = 0) -> np.ndarray:
        """Returns one clip of a video file, resized and cropped for this model: uint8[frames height width 3].

        stride: frames from one sampled frame to the next; None: the model's. start: number of the first frame.
        Raises a one-line ValueError that names the file if it cannot be read or is too short.
        """
        config, crop = self.config, self.preprocessing.crop
        if crop not in (None, (config.height, config.width)):
            raise ValueError(f"crop is {crop}: the config has (height, width) {(config.height, config.width)}")
        return read_clip(
            path,
            frames=config.frames,
            height=config.height,
            width=config.width,
            stride=self.preprocessing.stride if stride is None else stride,
            start=start,
            resize=self.preprocessing.resize,
        )


def with_stride(model: AnyModel, stride: int | None) -> AnyModel:
    """Returns the model whose clips have this stride; None: the model itself. Raises ValueError if it is invalid."""
    return model if stride is None else replace(model, preprocessing=replace(model.preprocessing, stride=stride))


def clip_spec(
    model: ModelData,
    video: str | Path | np.ndarray | None = None,
    *,
    stride: int | None = None,
    short: Short = "loop",
    resize: int | None = None,
    cache: Cache | None = None,
    limits: Limits | None = None,
    threads: int = 1,
) -> ClipSpec:
    """Returns the ClipSpec of a model for a video; None: for files.

    stride: frames from one sampled frame to the next; None: the model's for a file, 1 for an array. short: as in
    Sampling. resize: length of the shorter side; None: the model's preprocessing. cache, limits, threads: as in
    ClipSpec. Raises ValueError if the preprocessing crops to another size than the config's, or stride is invalid.
    """
    config, preprocessing = model.config, model.preprocessing
    preprocessing.check_crop(config.height, config.width)
    if stride is None:
        stride = 1 if isinstance(video, np.ndarray) else preprocessing.stride
    return ClipSpec(
        sampling=Sampling(frames=config.frames, stride=stride, short=short),
        height=config.height,
        width=config.width,
        resize=preprocessing.resize if resize is None else resize,
        cache=cache,
        limits=limits or Limits(),
        threads=threads,
    )
