"""Model 4: half of the heads over time, half over space.

Hint: the first half of the heads is half of the query, half of the key and half of the value.
"""

import numpy as np


def factorised_dot_product(qkv: np.ndarray, heads: int) -> np.ndarray:
    """The first half of the heads attends over time, the second half over space.

    Arnab et al. 2021, section 3.3, model 4. heads is even.
    qkv: float32[b t s 3c]: query, key and value one after the other, the heads contiguous within each. Channel
    (i · heads + h) · d + j is channel j of head h of query (i = 0), key (1) or value (2). Returns float[b t s c].
    """
    raise NotImplementedError
