"""An online softmax: keys in blocks, one pass.

Hint: when the largest score grows, what was summed before is too large by exp(new − old).
"""

import numpy as np


def online_softmax(
    out: np.ndarray, total: np.ndarray, largest: np.ndarray, query: np.ndarray, key: np.ndarray, value: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One step of softmax(Q Kᵀ / √d) V: takes a block of keys and values, and brings the sums up to date.

    Over all keys so far, out float32[q d] is Σ exp(score − largest) · value, total float32[q 1] is
    Σ exp(score − largest), and largest float32[q 1] is the largest score. They begin with 0, 0 and −∞. After the last
    block the grader divides out by total. query: float32[q d]. key, value: float32[k d]. Returns (out, total, largest).
    """
    raise NotImplementedError
