"""The gradient of attention.

Hint: with weights W, dV = Wᵀ dO, dW = dO Vᵀ and dS = W ∘ (dW − Σ_k dW ∘ W); then back through Q Kᵀ / √d.
"""

import numpy as np


def attention_vjp(qkv: np.ndarray, out_cotangent: np.ndarray, heads: int) -> np.ndarray:
    """The cotangent of qkv, given that of the result of puzzle 7, spatial attention.

    qkv: float32[b t s 3c]. out_cotangent: float32[b t s c]. Returns float[b t s 3c], laid out as qkv.
    """
    raise NotImplementedError
