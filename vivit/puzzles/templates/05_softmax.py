"""A softmax that survives large scores.

Hint: exp(1000) is infinite. A softmax stays the same when the same number is subtracted from all its scores.
"""

import numpy as np


def softmax(scores: np.ndarray) -> np.ndarray:
    """exp(scores) / Σ exp(scores) over the last axis, for scores of any size.

    scores: float32[b q k]. Returns float[b q k].
    """
    raise NotImplementedError
