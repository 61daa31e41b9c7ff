"""How far a result may be from the reference: a bound that is computed, never guessed.

The error may be at most twice that of the plain formulation (plain.py) in the same dtype, plus a small floor: the
rounding of the largest expected value to the tested dtype, and four units in the last place of float32, since two sums
of the same numbers in different orders differ by that much by chance, and one of them may hit the exact result. Both
errors are measured against the float64 reference on the same inputs, which are first rounded to the tested dtype.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


class Comparison(NamedTuple):
    """One result against the reference."""

    error: float  # largest absolute difference
    bound: float
    worst: tuple[int, ...]  # where it is
    actual: float
    expected: float

    @property
    def passed(self) -> bool:
        return self.error <= self.bound  # False for NaN

    def __str__(self) -> str:
        verdict = "within" if self.passed else "exceeds"
        return (
            f"error {self.error:.3g} {verdict} bound {self.bound:.3g}: "
            f"at {list(self.worst)} actual {self.actual!r}, expected {self.expected!r}"
        )


def compare(actual: Any, plain: Any, expected: np.ndarray, dtype: DTypeLike, *, condition: float = 1.0) -> Comparison:
    """Compares `actual` with the float64 `expected`, allowing for the error of `plain`; all three of one shape.

    condition: how much one relative rounding grows on its way to the result: 1, or for a softmax of large scores the
    largest score. A NaN or an infinity in `actual` that `expected` lacks never passes. Raises ValueError if the shapes
    differ.
    """
    actual, plain = (np.asarray(values).astype(np.float64) for values in (actual, plain))
    if not actual.shape == plain.shape == expected.shape:
        raise ValueError(f"shapes {actual.shape}, {plain.shape} and {expected.shape} differ: they must be the same")
    difference = np.abs(actual - expected)
    worst = np.unravel_index(np.argmax(difference), difference.shape)  # argmax takes a NaN for the largest
    return Comparison(
        float(difference[worst]),
        2 * float(np.abs(plain - expected).max()) + condition * floor(expected, dtype),
        tuple(int(index) for index in worst),
        float(actual[worst]),
        float(expected[worst]),
    )


def floor(expected: np.ndarray, dtype: DTypeLike) -> float:
    """Half a unit in the last place in `dtype`, and four in float32, of the largest expected value."""
    units = float(jnp.finfo(dtype).eps) / 2 + 4 * float(jnp.finfo(jnp.float32).eps)
    return units * float(np.abs(expected).max())
