"""The allowed error of a result against the reference, computed from the error of a baseline.

The error may be at most twice the error of the baseline (baseline.py) in the same dtype, plus a floor: half a unit in
the last place of the tested dtype and four of float32, at the largest expected value. The floor is needed because sums
of the same numbers in two orders differ by that much, and the baseline may be exact by chance. Both errors are measured
against the float64 reference on the same inputs, rounded to the tested dtype before.

A mean over tokens is held to the bound of the tokens that it averages. Its error is never larger than theirs, but may
be much smaller by chance: the order of a sum gives all tokens a similar error in one implementation, not in another.

The baseline shares code with production and therefore its mistakes, so its own error is capped too: CAP · √depth
roundings of the largest expected value (√depth because the roundings of successive layers add like a random walk). If
the baseline exceeds its cap, the comparison fails.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vivit.reference.config import Config

CAP = {"float32": 48.0, "bfloat16": 4.0}  # in units of the dtype's ε; three layers in float32 give 10⁻⁵


class Comparison(NamedTuple):
    """The error of one result against the reference, and its bound."""

    error: float  # largest absolute difference
    bound: float
    worst: tuple[int, ...]  # index of the largest difference
    actual: float
    expected: float
    baseline_error: float
    cap: float  # of the baseline's error

    @property
    def baseline_over_cap(self) -> bool:
        """Whether the baseline's own error is above its cap, so that it gives no valid bound."""
        return not self.baseline_error <= self.cap  # True for NaN

    @property
    def passed(self) -> bool:
        """Whether the error is within the bound and the baseline within its cap."""
        return not self.baseline_over_cap and self.error <= self.bound  # False for NaN

    def __str__(self) -> str:
        if self.baseline_over_cap:
            return f"the baseline's own error {self.baseline_error:.3g} exceeds its cap {self.cap:.3g}"
        verdict = "within" if self.passed else "exceeds"
        return (
            f"error {self.error:.3g} {verdict} bound {self.bound:.3g}: "
            f"at {list(self.worst)} actual {self.actual!r}, expected {self.expected!r}"
        )


def compare(
    actual: Any,
    baseline: Any,
    expected: np.ndarray,
    dtype: DTypeLike,
    *,
    depth: int,
    condition: float = 1.0,
    terms: float = 0.0,
    least_error: float = 0.0,
) -> Comparison:
    """Compares `actual` with the float64 `expected`, with a bound from the error of `baseline`. All have one shape.

    depth: number of layers that the result passed through, forward and backward, at least 1.
    condition: factor by which one relative rounding grows on its way to the result: 1, or the largest score for a
    softmax of large scores. terms: size of terms that nearly cancel in the result, if larger than the result; the
    baseline's cap then allows for their roundings. least_error: the bound doubles it if the baseline's own error is
    smaller; for a mean over tokens, the baseline's error in these tokens. A NaN or infinity in `actual` that `expected`
    lacks never passes.
    Raises ValueError if the shapes differ.
    """
    actual, baseline = (np.asarray(values).astype(np.float64) for values in (actual, baseline))
    if not actual.shape == baseline.shape == expected.shape:
        raise ValueError(f"shapes {actual.shape}, {baseline.shape} and {expected.shape} differ: they must be the same")
    difference = np.abs(actual - expected)
    worst = np.unravel_index(np.argmax(difference), difference.shape)  # argmax returns a NaN first
    baseline_error = float(np.abs(baseline - expected).max())
    largest = max(float(np.abs(expected).max()), terms)
    return Comparison(
        error=float(difference[worst]),
        bound=2 * max(baseline_error, least_error) + condition * floor(expected, dtype),
        worst=tuple(int(index) for index in worst),
        actual=float(actual[worst]),
        expected=float(expected[worst]),
        baseline_error=baseline_error,
        cap=CAP[np.dtype(dtype).name] * math.sqrt(depth) * condition * float(jnp.finfo(dtype).eps) * largest,
    )


def floor(expected: np.ndarray, dtype: DTypeLike) -> float:
    """Returns half a unit in the last place of `dtype` plus four of float32, at the largest expected value."""
    units = float(jnp.finfo(dtype).eps) / 2 + 4 * float(jnp.finfo(jnp.float32).eps)
    return units * float(np.abs(expected).max())


def depth_of(config: Config) -> int:
    """Returns the number of layers before a model's logits, over all its encoders."""
    return config.layers + (config.temporal_layers if config.model == "factorised_encoder" else 0)
