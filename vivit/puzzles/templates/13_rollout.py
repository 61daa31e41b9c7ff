"""Attention rollout.

Hint: start with the identity, and multiply from the left, the first layer first.
"""

import numpy as np


def rollout(weights: np.ndarray) -> np.ndarray:
    """R = Â_L ⋯ Â₁ with Â = (mean of A over the heads + I) / 2: how much of each input token is in each output token.

    Abnar & Zuidema 2020. weights: float32[l h n n], the attention weights of l layers. Returns float[n n].
    """
    raise NotImplementedError
