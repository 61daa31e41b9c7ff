"""Tubelets of pixels become tokens.

Hint: one reshape that splits frames, height and width each in two, one transpose, one reshape, one product.
"""

import numpy as np


def tubelet_embed(video: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Cuts a video into tubelets that do not overlap and projects the pixels of each to a token.

    Arnab et al. 2021, section 3.2. video: float32[b frames height width 3]. kernel: float32[time h w 3 c], of one
    tubelet. bias: float32[c]. Returns float[b t s c]: t = frames / time, and s = (height / h) · (width / w) in rows.
    """
    raise NotImplementedError
