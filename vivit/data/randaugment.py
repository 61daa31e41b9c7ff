"""RandAugment: random operations of one magnitude, equal for all frames of a clip.

Source: Cubuk et al. 2020, RandAugment, with the ranges of AutoAugment (Cubuk et al. 2019, table 6) and Pillow's
operations, as there. Histograms, means and extremes are of the whole clip, so that equal pixels of two frames stay
equal.
Differs from the published code: there, magnitude 10 is the end of AutoAugment's ranges, so that 20 is far outside;
enhancement factors begin at 0.1; posterize and solarize become weaker with the magnitude. Here magnitude 30 is the end
of all ranges, and 0 changes nothing.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vivit.data.color import change_pixels

MAX_MAGNITUDE = 30  # the end of every range
DEGREES, SHEAR, SHIFT, ENHANCE, BITS = 30.0, 0.3, 0.45, 0.9, 4
FILL = (128, 128, 128)  # color outside the frame

Change = Callable[[Image.Image, float], Image.Image]


class Operation(NamedTuple):
    """An operation and its amount, in the unit that AMOUNTS gives."""

    name: str
    amount: float


def draw_operations(generator: np.random.Generator, count: int, magnitude: float) -> tuple[Operation, ...]:
    """Draws `count` operations uniformly from the list, with a random sign for operations with two directions."""
    names = tuple(AMOUNTS)
    drawn = []
    for index in generator.integers(len(names), size=count):
        sign = 1 if generator.random() < 0.5 else -1
        drawn.append(Operation(names[index], AMOUNTS[names[index]](magnitude / MAX_MAGNITUDE, sign)))
    return tuple(drawn)


def distort(clip: np.ndarray, operation: Operation) -> np.ndarray:
    """Applies an operation to all frames. clip: uint8[frames height width 3]; returns the same shape."""
    return _OPERATIONS[operation.name](clip, operation.amount)


def _by_pixel(change: Change) -> Callable[[np.ndarray, float], np.ndarray]:
    return lambda clip, amount: change_pixels(clip, lambda picture: change(picture, amount))


def _by_frame(change: Change) -> Callable[[np.ndarray, float], np.ndarray]:
    return lambda clip, amount: np.stack([np.asarray(change(Image.fromarray(frame), amount)) for frame in clip])


def _sharpness(clip: np.ndarray, factor: float) -> np.ndarray:
    """Extrapolates from the smoothed frame (weight 5 for a pixel, 1 for its eight neighbours); keeps the border.

    ImageEnhance.Sharpness agrees within one level, but takes four times as long.
    """
    result = clip.copy()
    for frame, changed in zip(clip, result, strict=True):  # frame by frame, for the processor's cache
        wide = frame.astype(np.uint16)
        middle, rows = wide[1:-1, 1:-1], wide[:-2] + wide[1:-1] + wide[2:]
        smooth = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + np.uint16(4) * middle) * np.float32(1 / 13)
        smooth += (middle - smooth) * np.float32(factor)
        changed[1:-1, 1:-1] = np.clip(smooth, 0, 255, out=smooth) + np.float32(0.5)  # the cast to uint8 rounds down
    return result


def _rotate(picture: Image.Image, degrees: float) -> Image.Image:
    """Rotates counter-clockwise about the centre."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _move(picture, ((cos, -sin), (sin, cos)))


def _move(picture: Image.Image, matrix: tuple = ((1, 0), (0, 1)), shift: tuple[float, float] = (0, 0)) -> Image.Image:
    """Samples every pixel (x, y) at matrix · (x, y) + shift, bilinearly; FILL outside the frame.

    x and y are relative to the centre. shift: in widths and heights of the frame.
    """
    width, height = picture.size
    (a, b), (d, e) = matrix
    c = width / 2 - a * width / 2 - b * height / 2 + shift[0] * width
    f = height / 2 - d * width / 2 - e * height / 2 + shift[1] * height
    data, bilinear = (a, b, c, d, e, f), Image.Resampling.BILINEAR
    return picture.transform(picture.size, Image.Transform.AFFINE, data, bilinear, fillcolor=FILL)


_OPERATIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "identity": lambda clip, amount: clip,
    "auto_contrast": _by_pixel(lambda picture, amount: ImageOps.autocontrast(picture)),
    "equalize": _by_pixel(lambda picture, amount: ImageOps.equalize(picture)),
    "solarize": _by_pixel(lambda picture, least: ImageOps.solarize(picture, math.ceil(least))),
    "posterize": lambda clip, bits: clip & np.uint8(256 - 2 ** (8 - int(bits))),  # a tenth of ImageOps.posterize's time
    "brightness": _by_pixel(lambda picture, factor: picture.point(lambda value: value * factor)),
    "contrast": _by_pixel(lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor)),
    "color": _by_pixel(lambda picture, factor: ImageEnhance.Color(picture).enhance(factor)),
    "sharpness": _sharpness,
    "rotate": _by_frame(_rotate),
    "shear_x": _by_frame(lambda picture, amount: _move(picture, ((1, amount), (0, 1)))),  # relative to the middle row
    "shear_y": _by_frame(lambda picture, amount: _move(picture, ((1, 0), (amount, 1)))),
    "translate_x": _by_frame(lambda picture, part: _move(picture, shift=(part, 0))),  # moves the contents to the left
    "translate_y": _by_frame(lambda picture, part: _move(picture, shift=(0, part))),
}

# functions from the strength, 0 to 1, and the sign to the amount of an operation
AMOUNTS: dict[str, Callable[[float, int], float]] = {
    "identity": lambda strength, sign: 0.0,
    "auto_contrast": lambda strength, sign: 0.0,
    "equalize": lambda strength, sign: 0.0,
    "solarize": lambda strength, sign: 256 * (1 - strength),  # smallest value that is inverted
    "posterize": lambda strength, sign: 8 - round(BITS * strength),  # bits kept
    "brightness": lambda strength, sign: 1 + sign * ENHANCE * strength,  # factors, for these four
    "contrast": lambda strength, sign: 1 + sign * ENHANCE * strength,
    "color": lambda strength, sign: 1 + sign * ENHANCE * strength,
    "sharpness": lambda strength, sign: 1 + sign * ENHANCE * strength,
    "rotate": lambda strength, sign: sign * DEGREES * strength,
    "shear_x": lambda strength, sign: sign * SHEAR * strength,  # columns per row
    "shear_y": lambda strength, sign: sign * SHEAR * strength,
    "translate_x": lambda strength, sign: sign * SHIFT * strength,  # fraction of the width
    "translate_y": lambda strength, sign: sign * SHIFT * strength,  # fraction of the height
}
