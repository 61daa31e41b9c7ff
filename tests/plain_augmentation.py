"""The definition of augmentation, pixel by pixel in float64 loops. Clips are uint8[frames height width 3]."""

import colorsys
import math
from collections.abc import Callable

import numpy as np


def byte(value: float) -> int:
    """Clips to 0…255 and rounds half up."""
    return math.floor(min(max(value, 0), 255) + 0.5)


def each_pixel(clip: np.ndarray, change: Callable[[np.ndarray], list[int]]) -> np.ndarray:
    """Applies a function to every pixel, int[3]."""
    result = np.empty_like(clip)
    for place in np.ndindex(clip.shape[:3]):
        result[place] = change(clip[place].astype(int))
    return result


def luma(pixel: np.ndarray) -> float:
    """ITU-R BT.601"""
    return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]


def triangle(size: int, wanted: int) -> np.ndarray:
    """Returns float[wanted size]: the weight of each source pixel in each pixel of a resized line."""
    scale = size / wanted
    reach = max(scale, 1)
    weights = np.zeros((wanted, size))
    for out in range(wanted):
        for pixel in range(size):
            distance = (pixel + 0.5 - (out + 0.5) * scale) / reach
            weights[out, pixel] = max(0, 1 - abs(distance))
        weights[out] /= weights[out].sum()
    return weights


def resize(clip: np.ndarray, height: int, width: int) -> np.ndarray:
    """float[frames height width 3]"""
    tall, wide = triangle(clip.shape[1], height), triangle(clip.shape[2], width)
    return np.stack([np.einsum("yr,rcv,xc->yxv", tall, frame, wide) for frame in clip.astype(np.float64)])


def change_color(clip: np.ndarray, brightness: float, saturation: float, contrast: float, hue: float) -> np.ndarray:
    """float[frames height width 3], 0 to 255"""
    planes = np.clip(clip / 255 + brightness, 0, 1)
    for place in np.ndindex(clip.shape[:3]):
        h, s, v = colorsys.rgb_to_hsv(*planes[place])
        planes[place] = colorsys.hsv_to_rgb(h, min(s * saturation, 1), v)
    middle = planes.reshape(-1, 3).mean(axis=0)
    planes = np.clip(middle + (planes - middle) * contrast, 0, 1)
    for place in np.ndindex(clip.shape[:3]):
        h, s, v = colorsys.rgb_to_hsv(*planes[place])
        planes[place] = colorsys.hsv_to_rgb((h + hue) % 1, s, v)
    return planes * 255


def auto_contrast(clip: np.ndarray, amount: float) -> np.ndarray:
    low, high = clip.min(axis=(0, 1, 2)).astype(int), clip.max(axis=(0, 1, 2)).astype(int)
    return each_pixel(
        clip,
        lambda pixel: [
            byte((value - a) * 255 / (b - a)) if b > a else value for value, a, b in zip(pixel, low, high, strict=True)
        ],
    )


def equalize(clip: np.ndarray, amount: float) -> np.ndarray:
    """Maps a value to the number of smaller values in the clip, in steps of about 1/255 of all values."""
    result = clip.copy()
    for color in range(3):
        values = clip[..., color]
        step = int((values != values.max()).sum()) // 255
        if step:
            for place in np.ndindex(values.shape):
                below = int((values < values[place]).sum())
                result[(*place, color)] = min((below + step // 2) // step, 255)
    return result


def contrast(clip: np.ndarray, factor: float) -> np.ndarray:
    middle = np.mean([byte(luma(clip[place])) for place in np.ndindex(clip.shape[:3])])
    return each_pixel(clip, lambda pixel: [byte(middle + (value - middle) * factor) for value in pixel])


def sharpness(clip: np.ndarray, factor: float) -> np.ndarray:
    result = clip.copy()
    frames, height, width, _ = clip.shape
    for frame in range(frames):
        for y in range(1, height - 1):
            for x in range(1, width - 1):
                around = clip[frame, y - 1 : y + 2, x - 1 : x + 2].astype(float)
                smooth = (around.sum(axis=(0, 1)) + 4 * around[1, 1]) / 13
                result[frame, y, x] = [byte(value) for value in smooth + (around[1, 1] - smooth) * factor]
    return result


def moved(clip: np.ndarray, source: Callable[[float, float], tuple[float, float]]) -> np.ndarray:
    """Samples each pixel bilinearly at its source. x, y are relative to the centre; outside is 128."""
    frames, height, width, _ = clip.shape
    result = np.full(clip.shape, 128.0)
    for y in range(height):
        for x in range(width):
            across, down = source(x + 0.5 - width / 2, y + 0.5 - height / 2)
            across, down = across + width / 2, down + height / 2
            if not (0 <= across < width and 0 <= down < height):
                continue
            left, top = math.floor(across - 0.5), math.floor(down - 0.5)
            right_part, low_part = across - 0.5 - left, down - 0.5 - top
            columns = np.clip([left, left + 1], 0, width - 1)
            rows = np.clip([top, top + 1], 0, height - 1)
            for frame in range(frames):
                corners = clip[frame][np.ix_(rows, columns)].astype(float)
                lines = corners[:, 0] * (1 - right_part) + corners[:, 1] * right_part
                result[frame, y, x] = lines[0] * (1 - low_part) + lines[1] * low_part
    return result


def rotate(clip: np.ndarray, degrees: float) -> np.ndarray:
    """Rotates counter-clockwise with y downwards: the source of a pixel lies clockwise."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return moved(clip, lambda x, y: (cos * x - sin * y, sin * x + cos * y))


OPERATIONS = {
    "identity": lambda clip, amount: clip,
    "auto_contrast": auto_contrast,
    "equalize": equalize,
    "solarize": lambda clip, least: each_pixel(clip, lambda pixel: [v if v < least else 255 - v for v in pixel]),
    "posterize": lambda clip, bits: each_pixel(clip, lambda pixel: [v - v % 2 ** (8 - bits) for v in pixel]),
    "brightness": lambda clip, factor: each_pixel(clip, lambda pixel: [byte(v * factor) for v in pixel]),
    "contrast": contrast,
    "color": lambda clip, factor: each_pixel(
        clip, lambda pixel: [byte(luma(pixel) + (v - luma(pixel)) * factor) for v in pixel]
    ),
    "sharpness": sharpness,
    "rotate": rotate,
    "shear_x": lambda clip, amount: moved(clip, lambda x, y: (x + amount * y, y)),
    "shear_y": lambda clip, amount: moved(clip, lambda x, y: (x, y + amount * x)),
    "translate_x": lambda clip, part: moved(clip, lambda x, y: (x + part * clip.shape[2], y)),
    "translate_y": lambda clip, part: moved(clip, lambda x, y: (x, y + part * clip.shape[1])),
}
