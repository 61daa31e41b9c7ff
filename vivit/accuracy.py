"""How far a result may be from the reference: a bound that is computed, never guessed.

The error may be at most twice that of the baseline (baseline.py) in the same dtype, plus a small floor: the rounding of
the largest expected value to the tested dtype, and four units in the last place of float32, since two sums of the same
numbers in different orders differ by that much by chance, and one of them may hit the exact result. Both errors are
measured against the float64 reference on the same inputs, which are first rounded to the tested dtype.

The baseline shares code with what it measures, so also mistakes. Its own error is therefore capped: CAP · √depth
roundings of the largest expected value, since the roundings of a row of layers add up as a random walk does. Beyond
that the baseline is refuted, and nothing passes.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vivit.reference.config import Config

CAP = {"float32": 48.0, "bfloat16": 4.0}  # of the dtype's ε; for three layers in float32 that makes 10⁻⁵


class Comparison(NamedTuple):
    """One result against the reference."""

    error: float  # largest absolute difference
    bound: float
    worst: tuple[int, ...]  # where it is
    actual: float
    expected: float
    baseline_error: float
    cap: float  # of the baseline's error

    @property
    def refuted(self) -> bool:
        """Whether the baseline itself is too far from the reference to be a measure of anything."""
        return not self.baseline_error <= self.cap  # True for NaN

    @property
    def passed(self) -> bool:
        return not self.refuted and self.error <= self.bound  # False for NaN

    def __str__(self) -> str:
        if self.refuted:
            return f"the baseline is refuted: its own error {self.baseline_error:.3g} exceeds its cap {self.cap:.3g}"
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
) -> Comparison:
    """Compares `actual` with the float64 `expected`, allowing for the error of `baseline`; all three of one shape.

    depth: how many layers the result has behind it, forward and backward, at least 1.
    condition: how much one relative rounding grows on its way to the result: 1, or for a softmax of large scores the
    largest score. terms: how large the terms are that nearly cancel in the result: it is their roundings that the
    baseline's cap allows for, if they are larger than the result. A NaN or an infinity in `actual` that `expected`
    lacks never passes. Raises ValueError if the shapes differ.
    """
    actual, baseline = (np.asarray(values).astype(np.float64) for values in (actual, baseline))
    if not actual.shape == baseline.shape == expected.shape:
        raise ValueError(f"shapes {actual.shape}, {baseline.shape} and {expected.shape} differ: they must be the same")
    difference = np.abs(actual - expected)
    worst = np.unravel_index(np.argmax(difference), difference.shape)  # argmax takes a NaN for the largest
    baseline_error = float(np.abs(baseline - expected).max())
    largest = max(float(np.abs(expected).max()), terms)
    return Comparison(
        error=float(difference[worst]),
        bound=2 * baseline_error + condition * floor(expected, dtype),
        worst=tuple(int(index) for index in worst),
        actual=float(actual[worst]),
        expected=float(expected[worst]),
        baseline_error=baseline_error,
        cap=CAP[np.dtype(dtype).name] * math.sqrt(depth) * condition * float(jnp.finfo(dtype).eps) * largest,
    )


def floor(expected: np.ndarray, dtype: DTypeLike) -> float:
    """Half a unit in the last place in `dtype`, and four in float32, of the largest expected value."""
    units = float(jnp.finfo(dtype).eps) / 2 + 4 * float(jnp.finfo(jnp.float32).eps)
    return units * float(np.abs(expected).max())


def depth_of(config: Config) -> int:
    """The layers that a model's logits have behind them, those of all its encoders."""
    return config.layers + (config.temporal_layers if config.model == "factorised_encoder" else 0)
