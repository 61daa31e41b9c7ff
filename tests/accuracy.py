"""Assertions of equality: within the error bound of vivit/audit/bound.py, or tight ones between float64 results."""

from typing import Any

import numpy as np

from vivit.audit.bound import compare


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
    """Asserts that `actual` is within the bound of vivit.audit.bound.compare, with `plain` as the baseline.

    expected: float64. depth, condition, terms: as in compare.
    """
    comparison = compare(actual, plain, expected, dtype, depth=depth, **conditioning)
    assert comparison.passed, f"{what}: {comparison}"


def assert_same(actual: Any, expected: Any, relative: float = 1e-12) -> None:
    """Asserts equality up to `relative` of the largest expected value; default: a few thousand float64 roundings."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    difference = np.abs(actual - expected)
    scale = max(np.abs(expected).max(initial=0.0), np.finfo(np.float64).tiny)
    worst = np.unravel_index(np.argmax(difference), difference.shape)
    assert difference[worst] <= relative * scale, f"at {worst} actual {actual[worst]!r}, expected {expected[worst]!r}"
