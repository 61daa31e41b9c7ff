"""Finds why another implementation gets other pixels of a video: which frames, how resized, which colors, what range.

The clip is made anew in each way that others make one, of up to MOST differences at once, until one gives the same
pixels as theirs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from vivit.audit.causes import difference
from vivit.model_data import ModelData
from vivit.reference.config import Config
from vivit.reference.positions import interpolation
from vivit.reference.tubelet import frame_indices
from vivit.video.container import Limits
from vivit.video.crops import as_stored, cover
from vivit.video.decode import read_frames
from vivit.video.frame import Placement
from vivit.video.index import probe
from vivit.video.preprocessing import HUGGING_FACE, PUBLISHED, Preprocessing
from vivit.video.sampling import Sampling, even_clips

MOST = 3  # differences at once
ENDS = [0, -1]
COLORS = {"": slice(None), "the colors are in the order blue, green, red": slice(None, None, -1)}
IMAGENET = Preprocessing(rescale=1 / 255, offset=0.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

Scale = Callable[[np.ndarray], np.ndarray]  # values of 0…255, float[… 3], to what a model sees
Resize = Callable[[np.ndarray], np.ndarray]  # frames in their own size to frames in the model's


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """Where a clip comes from: a model, and the video that is read for it."""

    model: ModelData
    video: str | Path
    limits: Limits

    @cached_property
    def stored(self) -> tuple[int, int]:
        """Height and width of the video's frames."""
        return self.frames([0]).shape[1:3]

    @property
    def placement(self) -> Placement:
        """How a frame of the video is scaled and cut."""
        return self._fit(*self.stored)

    @property
    def indices(self) -> np.ndarray:
        """The frames of the clip, int64[frames]."""
        return self.model.preprocessing.stride * np.arange(self.model.config.frames)

    def frames(self, indices: np.ndarray | list[int], *, fitted: bool = False) -> np.ndarray:
        """Frames of the video, uint8[n height width 3]: in their own size, or as the model takes them."""
        fit = self._fit if fitted else None
        return read_frames(self.video, indices, fit=fit, limits=self.limits)

    def _fit(self, height: int, width: int) -> Placement:
        config, resize = self.model.config, self.model.preprocessing.resize
        return cover(height, width, tall=config.height, wide=config.width, resize=resize)

    def is_resized(self) -> bool:
        """Whether frames are scaled, not only cut."""
        return (self.placement.height, self.placement.width) != self.stored


def pixel_cause(source: ClipSource, actual: np.ndarray, bound: float) -> str | None:
    """Returns what gives the pixels `actual`, float[1 frames height width 3], within the bound; None: nothing known."""
    samplings, resizings, scales = _samplings(source), _resizings(source), _scales(source)
    ways = list(product(samplings.items(), resizings.items(), COLORS.items(), scales.items()))
    screened: dict[tuple[str, str], np.ndarray] = {}  # the first and the last frame of each clip
    for count in range(1, MOST + 1):
        agree = []
        for sampling, resizing, color, scale in ways:
            names = [name for name, _ in (sampling, resizing, color, scale) if name]
            if len(names) != count:
                continue
            key = sampling[0], resizing[0]
            if key not in screened:
                screened[key] = _clip(source, sampling[1][ENDS], resizing[1])
            if _error(screened[key], actual[0, ENDS], color[1], scale[1]) <= bound:
                error = _error(_clip(source, sampling[1], resizing[1]), actual[0], color[1], scale[1])
                if error <= bound:
                    agree.append((error, "; ".join(names)))
        if agree:
            return min(agree)[1]
    return None


def _error(clip: np.ndarray, wanted: np.ndarray, color: slice, scale: "Scale") -> float:
    return difference(scale(clip[..., color].astype(np.float64)), wanted)


def _clip(source: ClipSource, indices: np.ndarray, resize: Resize | None) -> np.ndarray:
    return source.frames(indices, fitted=True) if resize is None else resize(source.frames(indices))


def _samplings(source: ClipSource) -> dict[str, np.ndarray]:
    """The frames of the clip, and what else is taken of a video; what the video is too short for is left out."""
    own, frames, stride = source.indices, source.model.config.frames, source.model.preprocessing.stride
    length = len(probe(source.video, limits=source.limits).stamps)
    every = np.linspace(0, length - 1, frames)
    ways = {
        **{
            f"every frame is {other} after the one before it, not {stride}": other * np.arange(frames)
            for other in (1, 2, 3, 4, 8)
            if other != stride
        },
        "from the middle of the video": even_clips(Sampling(frames=frames, stride=stride), 0, length)[0].indices,
        "over the whole video, rounded": every.round().astype(np.int64),
        "over the whole video, rounded down": every.astype(np.int64),
        "over the whole video, without its ends": frame_indices(length, frames),
        "over the whole video, the middle of equal parts": ((np.arange(frames) + 0.5) * length / frames).astype(
            np.int64
        ),
        "one frame later": own + 1,
        "in reverse": own[::-1],
    }
    found = {"": own}
    for name, indices in ways.items():
        if len(indices) == frames and indices.max() < length and not np.array_equal(indices, own):
            found[f"the frames are sampled differently: {name}"] = indices
    return found


def _resizings(source: ClipSource) -> dict[str, Resize | None]:
    """None is our own."""
    place, config = source.placement, source.model.config
    stored = source.stored
    if place == as_stored(*stored):
        return {"": None}
    filters = Image.Resampling
    covered = cover(*stored, tall=config.height, wide=config.width)
    squashed = as_stored(config.height, config.width)
    cut = _centred(*stored, config)
    ways: dict[str, Resize | None] = {
        "bicubic": partial(_pillow, place=place, by=filters.BICUBIC),
        "Lanczos": partial(_pillow, place=place, by=filters.LANCZOS),
        "nearest": partial(_pillow, place=place, by=filters.NEAREST),
        "linear without antialiasing": partial(_linear, place=place),
        "to the model's size, whatever the shape of the frame": partial(_pillow, place=squashed, by=filters.BILINEAR),
    }
    if isinstance(source.model.preprocessing.resize, int):
        shorter = source.model.preprocessing.resize / min(stored)
        tall, wide = (int(side * shorter + 1e-9) for side in stored)  # as transformers and torchvision do
        rounded_down = _centred(tall, wide, config)
        if rounded_down != place and min(rounded_down.top, rounded_down.left) >= 0:
            ways["the longer side is rounded down"] = partial(_pillow, place=rounded_down, by=filters.BILINEAR)
    if covered != place:
        ways["until it covers the model's size"] = partial(_pillow, place=covered, by=filters.BILINEAR)
    if min(cut.top, cut.left) >= 0 and cut != place:
        ways["not at all, only cut"] = partial(_pillow, place=cut, by=filters.BILINEAR)
    return {"": None} | {f"the frames are resized differently: {name}": way for name, way in ways.items()}


def _centred(height: int, width: int, config: Config) -> Placement:
    """A frame scaled to height x width, of which the centre is kept."""
    top, left = (height - config.height) // 2, (width - config.width) // 2
    return Placement(height, width, top, left, config.height, config.width)


def _pillow(frames: np.ndarray, place: Placement, by: Image.Resampling) -> np.ndarray:
    resized = np.stack([np.asarray(Image.fromarray(frame).resize((place.width, place.height), by)) for frame in frames])
    return _cut(resized, place)


def _linear(frames: np.ndarray, place: Placement) -> np.ndarray:
    down, along = interpolation(frames.shape[1], place.height), interpolation(frames.shape[2], place.width)
    resized = np.einsum("yr,xq,nrqc->nyxc", down, along, frames.astype(np.float64), optimize=True)
    return _cut(resized.round(), place)


def _cut(frames: np.ndarray, place: Placement) -> np.ndarray:
    return frames[:, place.top : place.top + place.tall, place.left : place.left + place.wide]


def _scales(source: ClipSource) -> dict[str, Scale]:
    own = source.model.preprocessing
    return {"": partial(scaled, own)} | dict(_other_scales(own))


def _other_scales(own: Preprocessing) -> Iterator[tuple[str, Scale]]:
    yield "the pixels are rescaled twice", lambda values: scaled(own, values * own.rescale)
    yield "the pixels are rescaled twice, first by 1/255", lambda values: scaled(own, values / 255)
    for name, other in (("-1…1", PUBLISHED), ("-3…1", HUGGING_FACE), ("ImageNet's mean and deviation", IMAGENET)):
        yield f"the pixels have another range: {name}, not {own.range}", partial(scaled, other)
    yield f"the pixels have another range: 0…1, not {own.range}", lambda values: values / 255
    yield f"the pixels have another range: 0…255, not {own.range}", lambda values: values


def scaled(one: Preprocessing, values: np.ndarray) -> np.ndarray:
    """Preprocessing.normalise in float64. values: float64[… 3] of 0…255."""
    return (values * one.rescale - one.offset - np.array(one.mean)) / np.array(one.std)
