"""Temporal attention.

Hint: it is spatial attention with time and space swapped.
"""

import numpy as np


def temporal(qkv: np.ndarray, heads: int) -> np.ndarray:
    """softmax(Q Kᵀ / √d) V in every head, among the tokens of one position.

    qkv: float32[b t s 3c]: query, key and value one after the other, the heads contiguous within each. Channel
    (i · heads + h) · d + j is channel j of head h of query (i = 0), key (1) or value (2). Returns float[b t s c].
    """
    raise NotImplementedError
