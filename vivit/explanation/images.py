"""Encodes frames and maps as images for a page: JPEG for frames, PNG if it must be lossless.

A map is one color whose opacity is the map's value, over the frame in dark grey. The color has no blue and grey has
equal red and blue, so the difference of red and blue is proportional to the map. The color is lighter than all greys,
so larger values are also lighter.
"""

import base64
from fractions import Fraction
from typing import NamedTuple, cast

import av
import numpy as np

SMALL = 96  # pixels of the longer side; below, JPEG's blocks would be visible


def frame_url(picture: np.ndarray) -> str:
    """Returns the data: URL of a frame, uint8[height width 3], as JPEG, or as PNG if it is small."""
    if max(picture.shape[:2]) <= SMALL:
        return png_url(picture)
    return _url("jpeg", _encoded(picture, "mjpeg", "yuvj444p"))


def png_url(picture: np.ndarray) -> str:
    """Returns the data: URL of a lossless image, uint8[height width 3]."""
    return _url("png", _encoded(picture, "png", "rgb24"))


def _encoded(picture: np.ndarray, codec: str, pixels: str) -> bytes:
    encoder = cast(av.VideoCodecContext, av.CodecContext.create(codec, "w"))
    encoder.height, encoder.width = picture.shape[:2]
    encoder.pix_fmt, encoder.time_base = pixels, Fraction(1, 25)
    encoder.options = {"qmin": "2", "qmax": "2"} if codec == "mjpeg" else {}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24").reformat(format=pixels)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


COLOR = (255, 176, 0)  # without blue
LIGHT = 128  # the grey that replaces white
EVEN = 0.8  # a map is even if its minimum is at least this fraction of its maximum
SUM_ROUNDING = float(np.finfo(np.float32).eps)  # rounding error of a map that sums to 1, such as attention


class Strength(NamedTuple):
    """A map for display. parts: float64, its values divided by the maximum; 0 where transparent. least, most: range."""

    parts: np.ndarray
    least: float
    most: float
    floor: float

    @property
    def nothing(self) -> bool:
        """Whether all values may be rounding error."""
        return self.most <= self.floor

    @property
    def even(self) -> bool:
        """Whether minimum and maximum are close."""
        return not self.nothing and self.least >= EVEN * self.most


def strength(values: np.ndarray, floor: float) -> Strength:
    """Returns the Strength of a map of a whole clip, float[…]. floor: values up to it may be rounding error."""
    values = np.asarray(values, np.float64)
    result = Strength(np.zeros(values.shape), float(values.min()), float(values.max()), floor)
    if result.nothing or result.even:
        return result
    return result._replace(parts=np.where(values > floor, values, 0) / result.most)


def overlay(frame: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Draws parts, float[height width], over a grey frame, uint8[height width 3]. Returns float[height width 3] ≤ 1."""
    grey = frame @ np.array([0.3, 0.59, 0.11]) / 255 * (LIGHT / 255)  # weights as in CSS blending
    parts = parts[..., np.newaxis]
    return parts * np.array(COLOR) / 255 + (1 - parts) * grey[..., np.newaxis]
