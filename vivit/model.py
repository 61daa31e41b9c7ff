"""A model that is ready for use: config, weights, class names and preprocessing, as a checkpoint holds them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from vivit import models
from vivit.checkpoints.report import Report
from vivit.data.opening import Limits
from vivit.data.views import VIEWS
from vivit.inference.batches import BATCH
from vivit.labels import Labels, check_heads, check_labels, numbered_heads
from vivit.preprocessing import PUBLISHED, Preprocessing, preprocessing_for
from vivit.reference.config import Config
from vivit.reference.params import Params, check, parameters
from vivit.video import read_clip

if TYPE_CHECKING:
    from vivit.explain.explanation import Explanation


class Score(NamedTuple):
    """One class of one head, and its probability in that head."""

    label: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Model:
    """What `vivit.load` returns.

    labels: the names of each head's classes, or None if nothing said them. heads: what the heads are called, such as
    ("verb", "noun"), or None.
    preprocessing: what uint8 video goes through; None: the published one for the config's size.
    report: where every leaf comes from.
    Raises ValueError if params, labels or heads do not fit the config.
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
        """What the heads are called: as the checkpoint says, or "head 1" and so on."""
        return self.heads or numbered_heads(self.config)

    def __repr__(self) -> str:
        one = self.config
        names = self.labels or [()] * len(one.classes)
        heads = (
            f"{count} ({', '.join(map(repr, labels[:2]))}, …)" if labels else str(count)
            for count, labels in zip(one.classes, names, strict=True)
        )
        lines = (
            f"Model of {parameters(one):,} parameters: {one.model}",
            f"  {one.layers} layers of {one.channels} channels and {one.heads} heads",
            f"  clips of {one.frames} frames of {one.width} × {one.height} pixels, stride {self.preprocessing.stride}",
            f"  classes: {' and '.join(heads) or 'none'}",
        )
        return "\n".join(lines)

    def logits(self, video: np.ndarray | jax.Array, **options: Any) -> jax.Array:
        """The logits of a batch of clips, float[b v].

        video: [b frames height width colors]; uint8 goes through this model's preprocessing, floats already have. It
        may be traced. options: as `vivit.forward`'s. Raises ValueError for what does not fit.
        """
        return models.forward(self.params, self.preprocessed(video), self.config, **options)

    def preprocessed(self, video: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
        """What `vivit.forward` is to be given for a video: uint8 in this model's range, floats as they are."""
        same = (self.preprocessing.rescale, self.preprocessing.offset, self.preprocessing.mean, self.preprocessing.std)
        published = (PUBLISHED.rescale, PUBLISHED.offset, PUBLISHED.mean, PUBLISHED.std)
        if getattr(video, "dtype", None) != np.uint8 or same == published:  # forward scales uint8 to −1…1 itself
            return video
        return self.preprocessing.normalise(video)

    def read(self, path: str | Path, *, stride: int | None = None, start: int = 0) -> np.ndarray:
        """One clip of a video file as this model wants it: uint8[frames height width 3], resized and cropped.

        stride: frames from one to the next; None: the model's. start: number of the first.
        Raises ValueError, in one line that names the file, if it cannot be read or is too short.
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

    def classify(
        self,
        video: str | Path | np.ndarray,
        *,
        top: int = 5,
        views: tuple[int, int] = VIEWS,
        stride: int | None = None,
        batch: int = BATCH,
        dtype: str | None = None,
        limits: Limits | None = None,
    ) -> tuple[tuple[Score, ...], ...]:
        """The most probable classes of one video, for each head the `top` best first.

        video: a file, "-" (standard input), or frames [n height width 3]: uint8 of any size, or float32 of the model's
        size, already preprocessed.
        views: clips in time and crops of each, as the paper tests; their logits are averaged.
        stride: frames from one to the next; None: the model's for a file, 1 for an array. batch: clips at once.
        dtype: "float32" or "bfloat16", of the matmuls' operands. limits: what a file may ask of this machine.
        Classes are called by their numbers, "class 0", where the checkpoint does not name them.
        Raises ValueError if the model has no head, or for what does not fit.
        """
        from vivit.inference.classification import classify  # which needs this file

        (found,) = classify(self, [video], views=views, top=top, stride=stride, batch=batch, dtype=dtype, limits=limits)
        if isinstance(found, ValueError):
            raise found
        return found.heads

    def features(
        self,
        video: str | Path | np.ndarray,
        *,
        stages: Sequence[str] = ("prelogits", "frames"),
        stride: int | None = None,
        hop: int | None = None,
        batch: int = BATCH,
        dtype: str | None = None,
        limits: Limits | None = None,
    ) -> dict[str, np.ndarray]:
        """Stages of clips that slide over a video by `hop` frames, stacked: float32[m …] by name.

        Beside them stand "index", int64[m frames], the numbers of the clips' frames, and "seconds", float64[m frames].
        Arguments as vivit.inference.features.features, which gives clip after clip instead. Raises ValueError as that.
        """
        from vivit.inference.features import features  # which needs this file

        found = features(self, video, stages=stages, stride=stride, hop=hop, batch=batch, dtype=dtype, limits=limits)
        rows = [dict(index=window.indices, seconds=window.stamps, **arrays) for window, arrays in found.clips]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def explain(
        self,
        video: str | Path | np.ndarray,
        *,
        target: str | None = None,
        view: int | None = None,
        views: tuple[int, int] = VIEWS,
        stride: int | None = None,
        batch: int = BATCH,
        limits: Limits | None = None,
    ) -> "Explanation":
        """What the model looked at in a video: attention of every layer and head, rollout, relevance of a class.

        The result's save("report.html") writes a page, save("picture.png") a picture.
        target: the name of the class whose relevance is shown first; None: the first head's best. view: which one is
        shown, from 1; None: the one that is surest of the target. The rest as for classify. Raises ValueError as that,
        and for a class or view that there is not.
        """
        from vivit.explain.compute import explain  # which needs this file

        return explain(self, video, target=target, view=view, views=views, stride=stride, batch=batch, limits=limits)
