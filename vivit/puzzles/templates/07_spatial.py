"""Spatial attention.

Hint: reshape the channels to [3 heads d], and move the heads before the tokens. Scores may be large.
"""

import numpy as np


def spatial(qkv: np.ndarray, heads: int) -> np.ndarray:
    """softmax(Q Kᵀ / √d) V in every head, among the tokens of one time.

    qkv: float32[b t s 3c]: query, key and value one after the other, the heads contiguous within each. Channel
    (i · heads + h) · d + j is channel j of head h of query (i = 0), key (1) or value (2). Returns float[b t s c].
    """
    raise NotImplementedError
