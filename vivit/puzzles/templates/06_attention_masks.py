"""Spatial and temporal attention as masks.

Hint: write down time and position of each token first. Compare each with itself, as a column and as a row.
"""

import numpy as np


def attention_masks(t: int, s: int) -> tuple[np.ndarray, np.ndarray]:
    """Which token attends to which among the n = t · s tokens of a clip.

    Token i has the time i // s and the position i % s. Spatial attention is among tokens of one time, temporal
    attention among those of one position. Returns (spatial, temporal), bool[n n] each: row query, column key.
    """
    raise NotImplementedError
