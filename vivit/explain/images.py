"""Pictures as bytes that a page can hold: JPEG for frames, PNG where every pixel matters."""

import base64
from fractions import Fraction
from typing import cast

import av
import numpy as np

SMALL = 96  # pixels of the longer side, below which a JPEG's blocks would show


def frame_url(picture: np.ndarray) -> str:
    """A data: URL of a frame, uint8[height width 3]: JPEG, or PNG if it is small."""
    if max(picture.shape[:2]) <= SMALL:
        return png_url(picture)
    return _url("jpeg", _encoded(picture, "mjpeg", "yuvj444p"))


def png_url(picture: np.ndarray) -> str:
    """A data: URL of a picture, uint8[height width 3], without loss."""
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
