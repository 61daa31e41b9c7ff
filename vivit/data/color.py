"""Brightness, saturation, contrast, hue and grey: the published colour augmentation, the same for all frames of a clip.

Colours are numbers from 0 to 1 here and are cut to that range after every step. Saturation and hue are those of the HSV
hexcone. It leaves out RandAugment's own colour operations, which are others: randaugment.py.
"""

from typing import NamedTuple

import numpy as np

BRIGHTNESS = 32 / 255  # the most that is added or subtracted
SATURATION = (0.6, 1.4)
CONTRAST = (0.6, 1.4)
HUE = 0.2  # of a turn, either way

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of red, green and blue


class ColorChange(NamedTuple):
    """One change of colours, in the order of application."""

    brightness: float = 0.0  # added
    saturation: float = 1.0  # factor
    contrast: float = 1.0  # factor, about the mean of each colour
    hue: float = 0.0  # turns


def draw_color(generator: np.random.Generator) -> ColorChange:
    """All four at once, each uniform in its published range."""
    return ColorChange(
        brightness=generator.uniform(-BRIGHTNESS, BRIGHTNESS),
        saturation=generator.uniform(*SATURATION),
        contrast=generator.uniform(*CONTRAST),
        hue=generator.uniform(-HUE, HUE),
    )


def change_color(clip: np.ndarray, change: ColorChange) -> np.ndarray:
    """uint8[frames height width 3] -> the same, with brightness, saturation, contrast and hue changed in this order.

    Differs from the source: contrast is about the mean of the clip, not of each frame, so that equal pixels of two
    frames stay equal.
    """
    planes = np.empty((clip.shape[0], 3, *clip.shape[1:3]), np.float32)
    # frame by frame: the dozen temporaries of one frame stay in the cache
    for plane, frame in zip(planes, clip, strict=True):
        np.multiply(frame.transpose(2, 0, 1), np.float32(1 / 255), out=plane)
        plane += np.float32(change.brightness)
        np.clip(plane, 0, 1, out=plane)
        if change.saturation != 1:
            _saturate(plane, change.saturation)
    middle = planes.mean(axis=(0, 2, 3), dtype=np.float64).astype(np.float32)[:, np.newaxis, np.newaxis]
    result = np.empty_like(clip)
    for plane, frame in zip(planes, result, strict=True):
        plane -= middle
        plane *= np.float32(change.contrast)
        plane += middle
        np.clip(plane, 0, 1, out=plane)
        if change.hue:
            _turn_hue(plane, change.hue)
        frame[:] = (plane * np.float32(255) + np.float32(0.5)).transpose(1, 2, 0)  # the cast to uint8 rounds down
    return result


def to_grey(clip: np.ndarray) -> np.ndarray:
    """uint8[frames height width 3] -> the same, all three colours equal to the luma, rounded."""
    return np.repeat(luma(clip)[..., np.newaxis], 3, axis=-1)


def luma(clip: np.ndarray) -> np.ndarray:
    """uint8[… 3] -> uint8[…], the brightness that the eye sees."""
    # in thousandths, since integers leave no doubt about how a half is rounded
    red, green, blue = (np.uint32(round(1000 * weight)) for weight in LUMA)
    thousandths = red * clip[..., 0] + green * clip[..., 1] + blue * clip[..., 2] + np.uint32(500)
    return (thousandths // np.uint32(1000)).astype(np.uint8)


def _saturate(plane: np.ndarray, factor: float) -> None:
    """float32[3 height width], in place: HSV's saturation times the factor, at most 1; hue and value stay."""
    value = plane.max(axis=0)
    chroma = value - plane.min(axis=0)
    most = np.divide(value, chroma, out=np.ones_like(value), where=chroma > 0)  # makes the saturation 1
    plane -= value
    plane *= np.minimum(most, np.float32(factor))
    plane += value


def _turn_hue(plane: np.ndarray, turns: float) -> None:
    """float32[3 height width], in place: HSV's hue moved round by `turns`; saturation and value stay."""
    red, green, blue = plane
    value = plane.max(axis=0)
    chroma = value - plane.min(axis=0)
    inverse = np.divide(1, chroma, out=np.zeros_like(chroma), where=chroma > 0)
    sixths = np.where(
        value == red,
        (green - blue) * inverse,
        np.where(value == green, (blue - red) * inverse + np.float32(2), (red - green) * inverse + np.float32(4)),
    )
    sixths += np.float32(6 * (turns % 1) + 1)  # from 0 to 12, with the offset of blue below
    for color, offset in ((2, 0), (1, 2), (0, 4)):
        place = sixths + np.float32(offset)
        while (high := place >= 6).any():
            place -= np.float32(6) * high
        plane[color] = value - chroma * np.clip(np.minimum(place, np.float32(4) - place), 0, 1)
