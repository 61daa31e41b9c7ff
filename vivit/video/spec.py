"""ClipSpec: the sampling and size of a model's clips, and how their frames are read: with an index and a cache."""

from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np

from vivit.reference.values import quoted
from vivit.video.cache import Cache, cached_frames
from vivit.video.container import FileState, Limits, file_state
from vivit.video.crops import cover
from vivit.video.decode import read_frames
from vivit.video.frame import Fit
from vivit.video.index import Video, probe
from vivit.video.sampling import Sampling

CACHED_FILES = 4096


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """The sampling and size of clips, and how they are read.

    resize: length of the shorter side, or (height, width), increased if needed to cover height x width; None: the
    smallest size that covers it. cache: of decoded frames. limits: on the resources that a file may use. threads: of
    the decoder of one video; 0: one per core. More than one is useful if few videos are decoded at the same time.
    refuse_damaged: raise an error for damaged frames, instead of replacing them with a warning.
    Raises ValueError, naming the field and the requirement, if a field is invalid.
    """

    sampling: Sampling = field(default_factory=Sampling)
    height: int = 224
    width: int = 224
    resize: int | tuple[int, int] | None = None
    cache: Cache | None = None
    limits: Limits = field(default_factory=Limits)
    threads: int = 1
    refuse_damaged: bool = False

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name} is {quoted(getattr(self, name))}: it must be a positive integer")
        if type(self.threads) is not int or self.threads < 0:
            raise ValueError(f"threads is {quoted(self.threads)}: it must be a number, 0 for all")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def fit(self, crops: int | None = 1) -> Fit:
        """Returns the function that scales a frame and crops it to the region of `crops` crops; None: no cropping."""
        return partial(cover, tall=self.height, wide=self.width, resize=self.resize, crops=crops)


def cached_probe(spec: ClipSpec, path: str) -> Video:
    """Returns the index of a file, as index.probe does. A file that has not changed is not opened again."""
    return _probed(path, file_state(path), limits=spec.limits, threads=spec.threads)


@lru_cache(CACHED_FILES)
def _probed(path: str, state: FileState | None, *, limits: Limits, threads: int) -> Video:
    """Returns the index of a file in this state."""
    return probe(path, limits=limits, threads=threads)


def forget_files() -> None:
    """Frees the indices of files that `cached_probe` keeps."""
    _probed.cache_clear()


def load_frames(
    spec: ClipSpec, video: Video, wanted: np.ndarray, crops: int | None, *, stored: np.ndarray
) -> np.ndarray:
    """Returns the frames with the numbers `wanted`, uint8[f tall wide 3], scaled and cropped as `ClipSpec.fit` says.

    stored: int64[n], the frames that the cache stores; it contains `wanted`. Raises ValueError as read_frames.
    """
    fit = spec.fit(crops)
    decode = partial(
        read_frames, video, fit=fit, limits=spec.limits, threads=spec.threads, refuse_damaged=spec.refuse_damaged
    )
    if spec.cache is None:
        return decode(wanted)
    placement = fit(video.height, video.width)
    return cached_frames(spec.cache, video, stored, wanted, placement, decode, undamaged=spec.refuse_damaged)
