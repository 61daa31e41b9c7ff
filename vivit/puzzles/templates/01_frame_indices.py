"""Which frames uniform sampling takes.

Hint: of 8 frames, 3 are taken at 2, 4 and 6. Python's round() rounds halves to even; integers avoid its surprises.
"""

import numpy as np


def frame_indices(frames: int, sampled_frames: int) -> np.ndarray:
    """The numbers of the frames that are taken: k · frames / (sampled_frames + 1) for k = 1 … sampled_frames.

    Halves are rounded to even, and no number is above frames − 1. All frames are taken if there are not more than
    sampled_frames. Arnab et al. 2021, section 3.2. Returns int[n].
    """
    raise NotImplementedError
