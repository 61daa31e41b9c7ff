"""What pixels go through before a model sees them; it travels with a checkpoint."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vivit.reference.values import MOST, is_count, is_number, quoted

if TYPE_CHECKING:
    import jax

LARGEST = 1e30  # float32 holds it, and its differences
Colors = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Frames are resized, their centre is cropped, then a value u of 0…255 becomes (u · rescale − offset − mean) / std.

    resize: length of the short side, or (height, width) exactly; None: frames stay.
    crop: (height, width) that is cut from the centre; None: nothing is cut.
    mean, std: one number a color, red, green, blue. The default is the published code's: −1…1.
    stride: a clip takes every stride-th frame of a video; what classify, features, explain and evaluate do by default.
    Raises ValueError, naming the field and the requirement, for what is no such number.
    """

    resize: int | tuple[int, int] | None = 256
    crop: tuple[int, int] | None = (224, 224)
    rescale: float = 1 / 127.5
    offset: float = 1.0
    mean: Colors = (0.0, 0.0, 0.0)
    std: Colors = (1.0, 1.0, 1.0)
    stride: int = 2

    def __post_init__(self) -> None:
        for field in ("resize", "crop", "mean", "std"):
            if isinstance(getattr(self, field), list):
                object.__setattr__(self, field, tuple(getattr(self, field)))
        for field in ("resize", "crop"):
            value = getattr(self, field)
            sizes = (value,) if field == "resize" and type(value) is int else value
            fits = isinstance(sizes, tuple) and all(map(is_count, sizes))
            if value is not None and not (fits and len(sizes) == (1 if sizes == (value,) else 2)):
                raise ValueError(
                    f"{field} is {quoted(value)}: it must be positive integers (height, width), at most {MOST}, or None"
                )
        for field in ("mean", "std"):
            value = getattr(self, field)
            if not (isinstance(value, tuple) and len(value) == 3 and all(map(is_number, value))):
                raise ValueError(f"{field} is {quoted(value)}: it must be three numbers, one a color")
        for field in ("rescale", "offset"):
            if not is_number(getattr(self, field)):
                raise ValueError(f"{field} is {quoted(getattr(self, field))}: it must be a number")
        if not is_count(self.stride):
            raise ValueError(f"stride is {quoted(self.stride)}: it must be a positive integer, at most {MOST}")
        if self.rescale == 0 or 0 in self.std:
            raise ValueError(f"rescale is {self.rescale}, std is {self.std}: they must not be 0")
        ends = [
            (value * self.rescale - self.offset - mean) / std
            for value in (0, 255)
            for mean, std in zip(self.mean, self.std, strict=True)
        ]
        if max(map(abs, ends)) > LARGEST:
            stated = f"rescale {self.rescale}, offset {self.offset}, mean {self.mean}, std {self.std}"
            raise ValueError(f"preprocessing has {stated}: black and white must become numbers of at most {LARGEST:g}")
        for field in ("rescale", "offset"):  # 1 and 1.0 are the same, and are written alike
            object.__setattr__(self, field, float(getattr(self, field)))
        for field in ("mean", "std"):
            object.__setattr__(self, field, tuple(map(float, getattr(self, field))))

    def normalise(self, pixels: "np.ndarray | jax.Array") -> Any:
        """uint8[… 3] to the float32[… 3] that the model was trained on; NumPy's to NumPy's, JAX's to JAX's."""
        colors = (1,) * (pixels.ndim - 1) + (3,)
        scale = (self.rescale / np.array(self.std)).reshape(colors)
        shift = ((self.offset + np.array(self.mean)) / np.array(self.std)).reshape(colors)
        return pixels.astype(np.float32) * scale.astype(np.float32) - shift.astype(np.float32)

    def pixels(self, values: np.ndarray) -> np.ndarray:
        """The uint8[… 3] that `normalise` made these values of, to be looked at."""
        shown = (np.asarray(values, np.float64) * np.array(self.std) + np.array(self.mean) + self.offset) / self.rescale
        return np.clip(shown.round(), 0, 255).astype(np.uint8)

    def check_crop(self, height: int, width: int) -> None:
        """Raises ValueError unless what is cropped, if anything is, has a model's size."""
        if self.crop not in (None, (height, width)):
            raise ValueError(f"preprocessing crops {self.crop}: it must be the model's {(height, width)}")

    @property
    def range(self) -> str:
        """What black and white become, for messages: "-1…1"."""
        ends = self.normalise(np.array([[0, 0, 0], [255, 255, 255]], np.uint8))
        shown = ["/".join(dict.fromkeys(f"{value:.3g}" for value in color)) for color in ends]
        return "…".join(shown)

    def scaled(self, before: tuple[int, int], after: tuple[int, int]) -> "Preprocessing":
        """The same for a model of another (height, width): crop and resize grow or shrink with it."""
        if before == after:
            return self
        ratios = (after[0] / before[0], after[1] / before[1])
        resize = self.resize
        if isinstance(resize, tuple):
            resize = (round(resize[0] * ratios[0]), round(resize[1] * ratios[1]))
        elif resize is not None:
            resize = round(resize * max(ratios))
        return replace(self, resize=resize, crop=after if self.crop else None)


PUBLISHED = Preprocessing()
HUGGING_FACE = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
NAMED = {"published": PUBLISHED, "hugging_face": HUGGING_FACE}  # -1…1, and the port's default processor: -3…1


def preprocessing_for(height: int, width: int) -> Preprocessing:
    """The published preprocessing for a model of this size: resized by the published 256 to 224, then cropped."""
    return PUBLISHED.scaled((224, 224), (height, width))
