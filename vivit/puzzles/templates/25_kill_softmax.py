"""Kill a mutant: a test of a softmax.

Hint: a test that compares floats exactly fails on a right function too. Allow for some roundings of float32.
"""

from collections.abc import Callable

import numpy as np


def mutant(scores: np.ndarray) -> np.ndarray:
    """Puzzle 5 with a fault: a test must find it."""
    exponentials = np.exp(scores)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def kill_softmax(softmax: Callable[[np.ndarray], np.ndarray]) -> None:
    """Tests a function as in puzzle 5: raises AssertionError for the mutant, and nothing for a right one.

    softmax: takes float64[... k], returns float64 or float32[... k].
    """
    raise NotImplementedError
