"""The preprocessing of pixels for a model; checkpoints store it."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vivit.reference.values import MAX_COUNT, is_count, is_number, quoted

if TYPE_CHECKING:
    import jax

MAX_VALUE = 1e30  # float32 can hold it, and differences of such values
Colors = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Frames are resized, cropped to their centre, and a value u of 0…255 becomes (u · rescale − offset − mean) / std.

    resize: length of the shorter side, or (height, width); None: not resized.
    crop: (height, width) of the centre crop; None: not cropped.
    mean, std: one number per color: red, green, blue. The default is that of the published code, −1…1.
    stride: frames from one sampled frame to the next; the default of classify, features, explain and evaluate.
    Raises ValueError, naming the field and the requirement, if a field is invalid.
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
                    f"{field} is {quoted(value)}: it must be positive integers (height, width) to {MAX_COUNT}, or None"
                )
        for field in ("mean", "std"):
            value = getattr(self, field)
            if not (isinstance(value, tuple) and len(value) == 3 and all(map(is_number, value))):
                raise ValueError(f"{field} is {quoted(value)}: it must be three numbers, one per color")
        for field in ("rescale", "offset"):
            if not is_number(getattr(self, field)):
                raise ValueError(f"{field} is {quoted(getattr(self, field))}: it must be a number")
        if not is_count(self.stride):
            raise ValueError(f"stride is {quoted(self.stride)}: it must be a positive integer, at most {MAX_COUNT}")
        if self.rescale == 0 or 0 in self.std:
            raise ValueError(f"rescale is {self.rescale}, std is {self.std}: they must not be 0")
        ends = [
            (value * self.rescale - self.offset - mean) / std
            for value in (0, 255)
            for mean, std in zip(self.mean, self.std, strict=True)
        ]
        if max(map(abs, ends)) > MAX_VALUE:
            stated = f"rescale {self.rescale}, offset {self.offset}, mean {self.mean}, std {self.std}"
            raise ValueError(
                f"preprocessing has {stated}: black and white must become numbers of at most {MAX_VALUE:g}"
            )
        for field in ("rescale", "offset"):  # so that 1 and 1.0 are written alike
            object.__setattr__(self, field, float(getattr(self, field)))
        for field in ("mean", "std"):
            object.__setattr__(self, field, tuple(map(float, getattr(self, field))))

    def normalise(self, pixels: "np.ndarray | jax.Array") -> Any:
        """Converts uint8[… 3] to the model's input, float32[… 3]. NumPy arrays stay NumPy's, JAX arrays JAX's."""
        colors = (1,) * (pixels.ndim - 1) + (3,)
        scale = (self.rescale / np.array(self.std)).reshape(colors)
        shift = ((self.offset + np.array(self.mean)) / np.array(self.std)).reshape(colors)
        return pixels.astype(np.float32) * scale.astype(np.float32) - shift.astype(np.float32)

    def pixels(self, values: np.ndarray) -> np.ndarray:
        """Inverts `normalise`: returns uint8[… 3] for display, clipped to 0…255."""
        shown = (np.asarray(values, np.float64) * np.array(self.std) + np.array(self.mean) + self.offset) / self.rescale
        return np.clip(shown.round(), 0, 255).astype(np.uint8)

    def check_crop(self, height: int, width: int) -> None:
        """Raises ValueError if frames are cropped to another size than the model's."""
        if self.crop not in (None, (height, width)):
            raise ValueError(f"preprocessing crops {self.crop}: it must be the model's {(height, width)}")

    @property
    def range(self) -> str:
        """Returns the values of black and white as text, such as "-1…1"."""
        ends = self.normalise(np.array([[0, 0, 0], [255, 255, 255]], np.uint8))
        shown = ["/".join(dict.fromkeys(f"{value:.3g}" for value in color)) for color in ends]
        return "…".join(shown)

    def scaled(self, before: tuple[int, int], after: tuple[int, int]) -> "Preprocessing":
        """Returns the preprocessing for a model of another (height, width), with crop and resize scaled alike."""
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
    """Returns the published preprocessing, which resizes to 256 and crops to 224, scaled to this size."""
    return PUBLISHED.scaled((224, 224), (height, width))
