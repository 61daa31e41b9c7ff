"""Kill a mutant: a test of frame sampling.

Hint: where does it matter how halves are rounded?
"""

from collections.abc import Callable

import numpy as np


def mutant(frames: int, sampled_frames: int) -> np.ndarray:
    """Puzzle 1 with a fault: a test must find it."""
    if sampled_frames >= frames:
        return np.arange(frames)
    k = np.arange(1, sampled_frames + 1)
    return np.minimum((2 * k * frames + sampled_frames + 1) // (2 * (sampled_frames + 1)), frames - 1)


def kill_frame_indices(frame_indices: Callable[[int, int], np.ndarray]) -> None:
    """Tests a function as in puzzle 1: raises AssertionError for the mutant, and nothing for a right one.

    frame_indices: takes integers, returns int[n].
    """
    raise NotImplementedError
