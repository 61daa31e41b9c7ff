"""Augmentation of single clips: random crops, flips, colors, RandAugment and erasing.

Random parameters are drawn once per clip and applied to all frames alike, so that no motion is added. `draw` returns
the parameters, and `apply` is a deterministic function of them and the pixels. Colors are in color.py, RandAugment is
in randaugment.py; mixing.py mixes clips and their labels.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from vivit.data.color import ColorChange, change_color, draw_color, to_grey
from vivit.data.randaugment import MAX_MAGNITUDE, Operation, distort, draw_operations
from vivit.reference.config import COLORS
from vivit.reference.values import quoted

ERASED_AREA = (0.02, 1 / 3)  # fraction of the frame; Zhong et al. 2020, section 3.2
ERASED_ASPECT = (0.3, 10 / 3)  # height / width


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The augmentations of a clip and their probabilities. The default is a centre crop only.

    scale: range of the factors by which frames are resized, drawn separately for height and width.
    random_crop: a random crop instead of the centre crop.
    flip, color, grey, erase: probabilities of a horizontal flip, of a change of brightness, saturation, contrast and
    hue, of conversion to grey, and of an erased rectangle.
    operations, magnitude: RandAugment's N, and its M from 0 to 30.

    Raises ValueError, naming the field and the requirement, if a field is invalid.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    random_crop: bool = False
    flip: float = 0.0
    color: float = 0.0
    grey: float = 0.0
    operations: int = 0
    magnitude: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        scale = self.scale
        if not isinstance(scale, (tuple, list)) or len(scale) != 2 or not all(map(_is_number, scale)):
            raise ValueError(f"scale is {quoted(scale)}: it must be two numbers (least, most)")
        object.__setattr__(self, "scale", tuple(scale))
        if not 0 < scale[0] <= scale[1] < math.inf:
            raise ValueError(f"scale is {quoted(scale)}: it must be two positive numbers, the smaller first")
        for field in ("flip", "color", "grey", "erase"):
            value = getattr(self, field)
            if not _is_number(value) or not 0 <= value <= 1:
                raise ValueError(f"{field} is {quoted(value)}: it must be a probability from 0 to 1")
        if type(self.random_crop) is not bool:
            raise ValueError(f"random_crop is {quoted(self.random_crop)}: it must be True or False")
        if type(self.operations) is not int or self.operations < 0:
            raise ValueError(f"operations is {quoted(self.operations)}: it must be an integer, 0 or more")
        if not _is_number(self.magnitude) or not 0 <= self.magnitude <= MAX_MAGNITUDE:
            raise ValueError(f"magnitude is {quoted(self.magnitude)}: it must be a number from 0 to {MAX_MAGNITUDE}")


# The published recipes, for frames whose shorter side is 256 (Something-Something: 288), cropped to 224 (256). The last
# two also use mixup, 0.3 and 0.1, and label smoothing, 0.3 and 0.2, in the training step.
KINETICS = Augmentation(scale=(0.9, 1.33), random_crop=True, flip=0.5, color=0.8, grey=0.1)
SOMETHING_SOMETHING = Augmentation(scale=(0.9, 1.33), random_crop=True, operations=2, magnitude=20)
EPIC_KITCHENS = Augmentation(scale=(0.9, 1.33), random_crop=True, flip=0.5, operations=2, magnitude=15)


class Erased(NamedTuple):
    """A rectangle of the cropped frame, and the color that replaces it."""

    top: int
    left: int
    height: int
    width: int
    color: tuple[int, int, int]


class Draw(NamedTuple):
    """The random parameters of one clip."""

    resized: tuple[int, int]  # (height, width) of the frame before the crop
    corner: tuple[int, int]  # (top, left) of the crop
    flip: bool
    operations: tuple[Operation, ...]
    color: ColorChange | None
    grey: bool
    erased: Erased | None


def augment(
    clip: np.ndarray, generator: np.random.Generator, options: Augmentation, *, height: int, width: int
) -> np.ndarray:
    """Returns a random augmentation of a clip, cropped to height x width: uint8[frames height width 3].

    clip: uint8[frames height width 3] of any size; not modified. Raises ValueError if clip is not such an array or a
    size is not positive.
    """
    if not isinstance(clip, np.ndarray) or clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[3] != COLORS:
        given = f"{clip.dtype}{list(clip.shape)}" if hasattr(clip, "shape") else f"a {type(clip).__name__}"
        raise ValueError(f"clip is {given}: it must be uint8[frames height width 3]")
    if not clip.size:
        raise ValueError(f"clip is uint8{list(clip.shape)}: it must have at least one frame and one pixel")
    for name, value in (("height", height), ("width", width)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {quoted(value)}: it must be a positive integer")
    _, *size, _ = clip.shape
    drawn = draw(generator, options, (size[0], size[1]), height=height, width=width)
    return apply(clip, drawn, height=height, width=width)


def draw(
    generator: np.random.Generator, options: Augmentation, size: tuple[int, int], *, height: int, width: int
) -> Draw:
    """Draws the parameters of a clip whose frames have this size (height, width), for a crop of height x width.

    An axis that would become smaller than the crop is resized to the size of the crop.
    """
    wanted = (height, width)
    factors = generator.uniform(*options.scale, size=2)
    resized = tuple(max(least, round(side * factor)) for side, factor, least in zip(size, factors, wanted, strict=True))
    spare = [side - least for side, least in zip(resized, wanted, strict=True)]
    corner = [int(generator.integers(most + 1)) for most in spare] if options.random_crop else [s // 2 for s in spare]
    flip, color, grey, erase = generator.random(4) < (options.flip, options.color, options.grey, options.erase)
    return Draw(
        resized=(resized[0], resized[1]),
        corner=(corner[0], corner[1]),
        flip=bool(flip),
        operations=draw_operations(generator, options.operations, options.magnitude),
        color=draw_color(generator) if color else None,
        grey=bool(grey),
        erased=_draw_erased(generator, height, width) if erase else None,
    )


def apply(clip: np.ndarray, drawn: Draw, *, height: int, width: int) -> np.ndarray:
    """Applies resizing, crop, flip, RandAugment, color, grey and erasing, in this order.

    clip: uint8[frames height width 3]; not modified. Returns uint8[frames height width 3] of the given size.
    """
    top, left = drawn.corner
    clip = resize(clip, *drawn.resized)[:, top : top + height, left : left + width]
    if drawn.flip:
        clip = clip[:, :, ::-1]
    clip = np.ascontiguousarray(clip)
    for operation in drawn.operations:
        clip = distort(clip, operation)
    if drawn.color is not None:
        clip = change_color(clip, drawn.color)
    if drawn.grey:
        clip = to_grey(clip)
    if drawn.erased is not None:
        clip = erase(clip, drawn.erased)
    return clip


def resize(clip: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes every frame bilinearly, with antialiasing where it shrinks."""
    if clip.shape[1:3] == (height, width):
        return clip
    frames = [Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR) for frame in clip]
    return np.stack([np.asarray(frame) for frame in frames])


def erase(clip: np.ndarray, erased: Erased) -> np.ndarray:
    """Returns the clip with one rectangle erased in all frames. Source: Zhong et al. 2020, random erasing."""
    clip = clip.copy()
    clip[:, erased.top : erased.top + erased.height, erased.left : erased.left + erased.width] = erased.color
    return clip


def _draw_erased(generator: np.random.Generator, height: int, width: int) -> Erased:
    """Draws a rectangle of random area, aspect, position and color, reduced to the size of the frame if larger."""
    area = generator.uniform(*ERASED_AREA) * height * width
    least, most = ERASED_ASPECT
    aspect = math.exp(generator.uniform(math.log(least), math.log(most)))  # tall as often as wide
    tall = min(height, max(1, round(math.sqrt(area * aspect))))
    wide = min(width, max(1, round(math.sqrt(area / aspect))))
    top, left = int(generator.integers(height - tall + 1)), int(generator.integers(width - wide + 1))
    red, green, blue = map(int, generator.integers(256, size=COLORS))
    return Erased(top, left, tall, wide, (red, green, blue))


# words that a horizontal flip changes; up, down, near and far stay the same
_DIRECTION = re.compile(
    r"(left|right)(wards?|most|hand|handed|side)?|(anti|counter)?clockwise|c?cw", re.IGNORECASE | re.ASCII
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # also in turn_left, TurnLeft and PAN-LEFT


def directions(labels: Iterable[str]) -> list[str]:
    """Returns the labels with a side or a sense of rotation, such as "Pushing something from left to right"."""
    return [label for label in labels if any(map(_DIRECTION.fullmatch, _WORD.findall(label)))]


def check_flips(options: Augmentation, labels: Iterable[str]) -> str | None:
    """Returns a one-line warning if clips are flipped although labels look like directions, otherwise None."""
    labels = list(labels)
    directional = directions(labels)
    if not options.flip or not directional:
        return None
    return (
        f"flip is {options.flip}, but {len(directional)} of {len(labels)} labels look like directions, such as "
        f"{quoted(directional[0])}: "
        "a flipped clip would keep the label of the other direction, so flip should be 0"
    )
