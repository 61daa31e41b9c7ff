"""Assertions of equality: the project's own bound (vivit/accuracy.py), and tight ones for float64 against float64."""

from typing import Any

import numpy as np

from vivit.accuracy import compare


def assert_as_accurate(
    actual: Any,
    plain: Any,
    expected: np.ndarray,
    dtype: str,
    what: str = "result",
    *,
    depth: int,
    **conditioning: float,
) -> None:
    """`actual` is at most twice as far from the float64 `expected` as `plain` is, which is not far, plus a small floor.

    depth, condition, terms: as vivit.accuracy.compare's.
    """
    comparison = compare(actual, plain, expected, dtype, depth=depth, **conditioning)
    assert comparison.passed, f"{what}: {comparison}"


def assert_same(actual: Any, expected: Any, relative: float = 1e-12) -> None:
    """Equal up to `relative` of the largest expected value; for float64 that leaves some thousand roundings."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    difference = np.abs(actual - expected)
    scale = max(np.abs(expected).max(initial=0.0), np.finfo(np.float64).tiny)
    worst = np.unravel_index(np.argmax(difference), difference.shape)
    assert difference[worst] <= relative * scale, f"at {worst} actual {actual[worst]!r}, expected {expected[worst]!r}"
