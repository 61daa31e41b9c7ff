"""Positions as sines and cosines.

Hint: np.outer of the positions and the frequencies gives all angles.
"""

import numpy as np


def sinusoidal_positions(n: int, channels: int) -> np.ndarray:
    """sin(position · ω) in even channels and cos(position · ω) in odd ones, ω = 10000^(−2i/channels) for pair i.

    Vaswani et al. 2017, section 3.5. channels is even. Returns float[n channels].
    """
    raise NotImplementedError
