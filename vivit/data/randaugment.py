"""RandAugment: a few operations drawn from a list, all at one magnitude, the same for all frames of a clip.

Source: Cubuk et al. 2020, RandAugment; the ranges are AutoAugment's (Cubuk et al. 2019, table 6). Histograms, means and
extremes are those of the whole clip, so that equal pixels of two frames stay equal.
Differs from the published code: there 10 is the end of AutoAugment's ranges and 20 lies far beyond them, the enhancing
factors run from 0.1 up, and posterize and solarize grow weaker with the magnitude. Here 30 is the end of all ranges,
and 0 changes nothing.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from vivit.data.color import luma

MOST = 30  # the magnitude at which every range ends
DEGREES, SHEAR, SHIFT, ENHANCE, BITS = 30.0, 0.3, 0.45, 0.9, 4
OUTSIDE = (128, 128, 128)  # what comes in from outside the frame

VALUES = np.arange(256)


class Operation(NamedTuple):
    """One operation and how strong it is, in its own unit; see AMOUNTS."""

    name: str
    amount: float


def draw_operations(generator: np.random.Generator, count: int, magnitude: float) -> tuple[Operation, ...]:
    """`count` operations, each any of the list with equal chance, with a random sign where both directions exist."""
    names = tuple(AMOUNTS)
    drawn = []
    for index in generator.integers(len(names), size=count):
        sign = 1 if generator.random() < 0.5 else -1
        drawn.append(Operation(names[index], AMOUNTS[names[index]](magnitude / MOST, sign)))
    return tuple(drawn)


def distort(clip: np.ndarray, operation: Operation) -> np.ndarray:
    """uint8[frames height width 3] -> the same shape, all frames distorted alike. A name is a key of AMOUNTS."""
    return _OPERATIONS[operation.name](clip, operation.amount)


def _identity(clip: np.ndarray, amount: float) -> np.ndarray:
    return clip


def _auto_contrast(clip: np.ndarray, amount: float) -> np.ndarray:
    """Each colour stretched linearly until it goes from 0 to 255."""
    tables = []
    for counts in _histograms(clip):
        present = np.flatnonzero(counts)
        low, high = present[0], present[-1]
        tables.append(_rounded((VALUES - low) * 255 / (high - low)) if high > low else VALUES)
    return _look_up(clip, tables)


def _equalize(clip: np.ndarray, amount: float) -> np.ndarray:
    """Each colour mapped so that its values are about equally frequent."""
    tables = []
    for counts in _histograms(clip):
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        below = np.cumsum(counts) - counts
        tables.append(np.minimum((below + step // 2) // step, 255) if step else VALUES)
    return _look_up(clip, tables)


def _solarize(clip: np.ndarray, threshold: float) -> np.ndarray:
    """Values from the threshold on are inverted."""
    return _look_up(clip, [np.where(threshold > VALUES, VALUES, 255 - VALUES)] * 3)


def _posterize(clip: np.ndarray, bits: float) -> np.ndarray:
    """Only the highest bits are kept."""
    return clip & np.uint8(256 - 2 ** (8 - int(bits)))


def _brightness(clip: np.ndarray, factor: float) -> np.ndarray:
    return _look_up(clip, [_rounded(VALUES * factor)] * 3)


def _contrast(clip: np.ndarray, factor: float) -> np.ndarray:
    """About the mean luma of the clip."""
    middle = luma(clip).mean()
    return _look_up(clip, [_rounded(middle + (VALUES - middle) * factor)] * 3)


def _color(clip: np.ndarray, factor: float) -> np.ndarray:
    """About each pixel's own luma: 0 is grey, 1 as it was."""
    return _frame_by_frame(clip, lambda frame: _away_from(luma(frame)[..., np.newaxis], frame, factor))


def _sharpness(clip: np.ndarray, factor: float) -> np.ndarray:
    """About the smoothed frame, in which a pixel counts 5 and its eight neighbours 1; the outermost pixels stay."""

    def sharpen(frame: np.ndarray) -> np.ndarray:
        if min(frame.shape[:2]) < 3:
            return frame
        wide = frame.astype(np.uint16)
        rows = wide[:-2] + wide[1:-1] + wide[2:]
        smooth = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + np.uint16(4) * wide[1:-1, 1:-1]
        result = frame.copy()
        result[1:-1, 1:-1] = _away_from(smooth * np.float32(1 / 13), frame[1:-1, 1:-1], factor)
        return result

    return _frame_by_frame(clip, sharpen)


def _rotate(clip: np.ndarray, degrees: float) -> np.ndarray:
    """About the centre, counter-clockwise as it is seen."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _move(clip, ((cos, -sin), (sin, cos)))


def _shear_x(clip: np.ndarray, amount: float) -> np.ndarray:
    """Rows shifted in proportion to their distance from the middle row."""
    return _move(clip, ((1, amount), (0, 1)))


def _shear_y(clip: np.ndarray, amount: float) -> np.ndarray:
    return _move(clip, ((1, 0), (amount, 1)))


def _translate_x(clip: np.ndarray, part: float) -> np.ndarray:
    """Every pixel shows what was this part of the width further right."""
    return _move(clip, ((1, 0), (0, 1)), (part * clip.shape[2], 0))


def _translate_y(clip: np.ndarray, part: float) -> np.ndarray:
    return _move(clip, ((1, 0), (0, 1)), (0, part * clip.shape[1]))


_OPERATIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "identity": _identity,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "solarize": _solarize,
    "posterize": _posterize,
    "brightness": _brightness,
    "contrast": _contrast,
    "color": _color,
    "sharpness": _sharpness,
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}

# from the strength, 0 to 1, and the sign to the operation's own unit
AMOUNTS: dict[str, Callable[[float, int], float]] = {
    "identity": lambda strength, sign: 0.0,
    "auto_contrast": lambda strength, sign: 0.0,
    "equalize": lambda strength, sign: 0.0,
    "solarize": lambda strength, sign: 256 * (1 - strength),  # the least value that is inverted
    "posterize": lambda strength, sign: 8 - round(BITS * strength),  # bits kept
    "brightness": lambda strength, sign: 1 + sign * ENHANCE * strength,  # these four are factors
    "contrast": lambda strength, sign: 1 + sign * ENHANCE * strength,
    "color": lambda strength, sign: 1 + sign * ENHANCE * strength,
    "sharpness": lambda strength, sign: 1 + sign * ENHANCE * strength,
    "rotate": lambda strength, sign: sign * DEGREES * strength,
    "shear_x": lambda strength, sign: sign * SHEAR * strength,  # pixels a pixel
    "shear_y": lambda strength, sign: sign * SHEAR * strength,
    "translate_x": lambda strength, sign: sign * SHIFT * strength,  # of the width
    "translate_y": lambda strength, sign: sign * SHIFT * strength,  # of the height
}


def _histograms(clip: np.ndarray) -> list[np.ndarray]:
    """How often each value occurs in the whole clip, int[256] for each colour."""
    return [np.bincount(clip[..., color].ravel(), minlength=256) for color in range(3)]


def _look_up(clip: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    """Each colour's values replaced by those of its own table, int[256] from 0 to 255."""
    frames, height, width, _ = clip.shape
    tall = Image.fromarray(clip.reshape(frames * height, width, 3))  # one picture: one table for all frames
    return np.asarray(tall.point(np.concatenate(tables).tolist())).reshape(clip.shape)


def _rounded(values: np.ndarray) -> np.ndarray:
    """Cut to 0…255 and rounded, halves up."""
    return np.floor(np.clip(values, 0, 255) + 0.5).astype(np.int64)


def _away_from(neutral: np.ndarray, frame: np.ndarray, factor: float) -> np.ndarray:
    """neutral + (frame − neutral)·factor, rounded, as uint8."""
    wide = frame.astype(np.float32)
    wide -= neutral
    wide *= np.float32(factor)
    wide += neutral
    return (np.clip(wide, 0, 255, out=wide) + np.float32(0.5)).astype(np.uint8)


def _frame_by_frame(clip: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The temporaries of one frame stay in the cache."""
    return np.stack([change(frame) for frame in clip])


def _move(clip: np.ndarray, matrix: tuple, offset: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Each pixel takes what is at matrix · (x, y) + offset, x and y from the frame's centre, bilinear; else OUTSIDE."""
    _, height, width, _ = clip.shape
    (a, b), (d, e) = matrix
    c = width / 2 - a * width / 2 - b * height / 2 + offset[0]
    f = height / 2 - d * width / 2 - e * height / 2 + offset[1]
    method, data = Image.Transform.AFFINE, (a, b, c, d, e, f)
    bilinear = Image.Resampling.BILINEAR
    return _frame_by_frame(
        clip,
        lambda frame: np.asarray(
            Image.fromarray(frame).transform((width, height), method, data, bilinear, fillcolor=OUTSIDE)
        ),
    )
