"""The gradient of a layer norm.

Hint: with x̂ the normalised x and g = out_cotangent · scale, two means over the channels are subtracted from g.
"""

import numpy as np


def layer_norm_vjp(x: np.ndarray, scale: np.ndarray, epsilon: float, out_cotangent: np.ndarray) -> np.ndarray:
    """The cotangent of x, given that of y = (x − mean) / √(variance + epsilon) · scale, over the last axis.

    x, out_cotangent: float32[b n c]. scale: float32[c]. Returns float[b n c].
    """
    raise NotImplementedError
