"""An image model's kernel, inflated over time.

Hint: a still video must have the tokens that its one frame has in the image model.
"""

import numpy as np


def inflate(image_kernel: np.ndarray, time: int) -> np.ndarray:
    """Filter inflation: the image's kernel at every time, divided by the number of times.

    Arnab et al. 2021, equation 8. image_kernel: float32[height width 3 c]. Returns float[time height width 3 c].
    """
    raise NotImplementedError
