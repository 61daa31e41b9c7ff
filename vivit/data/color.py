"""The published color augmentation: brightness, saturation, contrast, hue and grey, equal for all frames of a clip.

Colors are numbers from 0 to 1, clipped to that range after every step. Saturation and hue are those of the HSV hexcone,
in floats: Pillow's HSV has bytes, and converting there and back changes a color by up to 7 levels. RandAugment's color
operations are different; they are in randaugment.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

BRIGHTNESS = 32 / 255  # largest change in either direction
SATURATION = (0.6, 1.4)
CONTRAST = (0.6, 1.4)
HUE = 0.2  # turns, largest change in either direction


class ColorChange(NamedTuple):
    """The parameters of a color change, in the order of application."""

    brightness: float = 0.0  # added
    saturation: float = 1.0  # factor
    contrast: float = 1.0  # factor, relative to the mean of each color
    hue: float = 0.0  # turns


def draw_color(generator: np.random.Generator) -> ColorChange:
    """Draws all four parameters uniformly from their published ranges."""
    return ColorChange(
        brightness=generator.uniform(-BRIGHTNESS, BRIGHTNESS),
        saturation=generator.uniform(*SATURATION),
        contrast=generator.uniform(*CONTRAST),
        hue=generator.uniform(-HUE, HUE),
    )


def change_color(clip: np.ndarray, change: ColorChange) -> np.ndarray:
    """Changes brightness, saturation, contrast and hue, in this order. uint8[frames height width 3] to the same shape.

    Differs from the source: contrast is relative to the mean of the clip, not of each frame, so that equal pixels of
    two frames stay equal.
    """
    planes = np.empty((clip.shape[0], 3, *clip.shape[1:3]), np.float32)
    # frame by frame, so that temporary arrays fit in the processor's cache
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
    """Sets all three colors to the rounded luma (ITU-R BT.601). uint8[frames height width 3] to the same shape."""
    return change_pixels(clip, lambda picture: picture.convert("L").convert("RGB"))


def change_pixels(clip: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Applies `change` to all frames, stacked vertically to one image, so that histograms and means are the clip's.

    clip: uint8[frames height width 3]; returns the same shape. change: must treat every pixel separately, because
    neighbouring rows may be of different frames.
    """
    frames, height, width, colors = clip.shape
    tall = Image.fromarray(clip.reshape(frames * height, width, colors))
    return np.asarray(change(tall)).reshape(clip.shape)


def _saturate(plane: np.ndarray, factor: float) -> None:
    """Multiplies HSV's saturation by the factor, to at most 1. plane: float32[3 height width], changed in place."""
    value = plane.max(axis=0)
    chroma = value - plane.min(axis=0)
    most = np.divide(value, chroma, out=np.ones_like(value), where=chroma > 0)  # factor that makes the saturation 1
    plane -= value
    plane *= np.minimum(most, np.float32(factor))
    plane += value


def _turn_hue(plane: np.ndarray, turns: float) -> None:
    """Rotates HSV's hue by `turns`. plane: float32[3 height width], changed in place."""
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
        position = sixths + np.float32(offset)
        while (high := position >= 6).any():
            position -= np.float32(6) * high
        plane[color] = value - chroma * np.clip(np.minimum(position, np.float32(4) - position), 0, 1)
