"""How far rounding may take an attention core from its exact value: bounds that are derived, for given inputs.

A core computes float32 sums of products of operands in its dtype, exponentials, and one division. Each operation rounds
once. A rounding is modelled as independent and uniform within half a unit in the last place of its result, so its
variance is at most (u x)² / 3, with u the unit of the format. To first order the error of the result is a sum of such
terms with known factors, and the variances add. A uniform variable is sub-Gaussian with its own variance, and so is
their sum: it exceeds FACTOR deviations with a probability of at most 2 exp(−FACTOR² / 2), 5·10⁻⁷. Source: Higham & Mary
2019, "A new approach to probabilistic rounding error analysis". docs/correctness.md derives every term in words.

The names are those of attention.py and gradients.py. A function takes their arguments and the dtype, and returns the
bound of each element of the result. Inputs must be exact in the dtype.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from vivit.reference.attention import halves, merge_heads, readable, split
from vivit.reference.layers import softmax

UNIT = {"float32": 2.0**-24, "bfloat16": 2.0**-8}  # half a unit in the last place of 1
FACTOR = 5.5  # standard deviations
EXPONENTIAL = 2.0  # roundings of float32 that the exponential function may be wrong by
TINY = 2.0**-126  # float32 has nothing smaller; processors may take it for zero
ROUNDING = UNIT["float32"] ** 2 / 3  # variance of one rounding of a float32 result of size 1


class Weights(NamedTuple):
    """Attention weights and what their computation adds to the errors."""

    weights: np.ndarray  # [... q k]
    variance: np.ndarray  # of the relative error of each exponential, [... q k]
    total: np.ndarray  # variance of the relative error of each row's sum, [... q 1]
    growth: np.ndarray  # factor for what first order leaves out, [... q 1]


def attend(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, dtype: str, *, mask: np.ndarray | None = None
) -> np.ndarray:
    """Returns the bound of attention.attend's result, float64[... q d]. Arguments as there, without dropout."""
    weights, variance, total, growth = _weights(query, key, mask, dtype)
    k = key.shape[-2]
    out, squares = weights @ value, weights**2 @ value**2
    both = _spread(weights**2 * variance, value, out)  # an exponential is a term of both sums
    sums = ROUNDING * (_sum(out, squares, k, dtype) + 2 * squares + 2 * out**2) + total * out**2
    operands = _operand(dtype) * np.maximum(squares, _spread(weights**2, value, out))
    deviation = growth * np.sqrt(both + sums + operands)
    lost = k * TINY * np.abs(value).max(axis=-2, keepdims=True, initial=0.0)
    return FACTOR * deviation + UNIT[dtype] * np.abs(out) + lost


def attend_vjp(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    out_cotangent: np.ndarray,
    dtype: str,
    *,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the bounds of gradients.attend_vjp's three results. Arguments as there, without dropout."""
    weights, variance, total, growth = _weights(query, key, mask, dtype)
    q, d, k = *query.shape[-2:], key.shape[-2]
    scale, operand = 1 / math.sqrt(d), _operand(dtype)
    products = out_cotangent @ value.swapaxes(-1, -2)
    product_squares = out_cotangent**2 @ (value**2).swapaxes(-1, -2)
    product_variance = ROUNDING * _sum(products, product_squares, d, dtype) + operand * products**2
    mean = (weights * products).sum(axis=-1, keepdims=True)
    mean_terms = weights**2 * (product_variance + variance * (products - mean) ** 2)
    mean_squares = ((weights * products) ** 2).sum(axis=-1, keepdims=True)
    mean_sums = ROUNDING * (_sum(mean, mean_squares, k, "float32") + 2 * mean_squares) + total * mean**2
    mean_variance = mean_terms.sum(axis=-1, keepdims=True) + mean_sums
    total = total + (weights**2 * variance).sum(axis=-1, keepdims=True)
    scores = weights * (products - mean)  # the scores' cotangent
    own = weights**2 * (variance * (products - mean) ** 2 + product_variance) + (3 * ROUNDING + operand) * scores**2

    largest = np.abs(products).max(initial=0.0)

    def bound(exact: np.ndarray, deviation: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """lost: what a term is multiplied with whose weight is too small for float32."""
        return FACTOR * deviation + UNIT[dtype] * np.abs(exact) + max(q, k) * TINY * np.abs(lost).max(initial=0.0)

    exact = scores @ key * scale
    of_row = mean_variance * (weights @ key) ** 2 * scale**2 + total * exact**2  # common to a row's terms
    squares = scores**2 @ key**2 * scale**2
    of_query = of_row + own @ key**2 * scale**2 + ROUNDING * (_sum(exact, squares, k, dtype) + 2 * exact**2)
    query_bound = bound(exact, growth * np.sqrt(of_query), (1 + 2 * largest) * key)

    growth = growth.max(axis=-2, keepdims=True)
    exact = scores.swapaxes(-1, -2) @ query * scale
    own = (own + weights**2 * mean_variance + total * scores**2).swapaxes(-1, -2)
    squares = (scores**2).swapaxes(-1, -2) @ query**2 * scale**2
    of_key = own @ query**2 * scale**2 + ROUNDING * (_sum(exact, squares, q, dtype) + 2 * exact**2)
    key_bound = bound(exact, growth * np.sqrt(of_key), (1 + 2 * largest) * query)

    exact = weights.swapaxes(-1, -2) @ out_cotangent
    own = (weights**2 * (variance + total + 3 * ROUNDING + operand)).swapaxes(-1, -2) @ out_cotangent**2
    squares = (weights**2).swapaxes(-1, -2) @ out_cotangent**2
    of_value = own + ROUNDING * _sum(exact, squares, q, dtype)
    return query_bound, key_bound, bound(exact, growth * np.sqrt(of_value), out_cotangent)


def _weights(query: np.ndarray, key: np.ndarray, mask: np.ndarray | None, dtype: str) -> Weights:
    d, k = key.shape[-1], key.shape[-2]
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(d)
    squares = query**2 @ (key**2).swapaxes(-1, -2) / d
    weights = softmax(scores, mask)
    allowed = np.broadcast_to(True if mask is None else mask, scores.shape)
    largest = np.where(allowed, scores, -np.inf).max(axis=-1, keepdims=True)
    below = np.where(allowed, scores - np.where(np.isfinite(largest), largest, 0.0), 0.0)
    # the sum over d and its scale; the difference, its scale and a change of base; the exponential
    variance = ROUNDING * (_sum(scores, squares, d, dtype) + 2 * scores**2 + 3 * below**2 + EXPONENTIAL**2)
    variance = np.where(allowed, variance, 0.0)
    total = ROUNDING * (_sum(1.0, (weights**2).sum(axis=-1, keepdims=True), k, "bfloat16") + 2)
    return Weights(weights, variance, total, np.exp(FACTOR * np.sqrt(variance.max(axis=-1, keepdims=True))))


def _sum(total: np.ndarray | float, squares: np.ndarray, terms: int, dtype: str) -> np.ndarray:
    """Returns the variance of a float32 sum of products, in units of ROUNDING. squares: Σ of the squared terms.

    The partial sums of n terms in random order have the expected square (n + 1) (2 S² + Q) / 6, all taken together.
    Products of two bfloat16 numbers are exact in float32; those of two float32 numbers round.
    """
    products = squares if dtype == "float32" else 0.0
    return (terms + 1) * (2 * np.square(total) + squares) / 6 + products


def _spread(factors: np.ndarray, value: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Σ_k factor (value − out)²: [... q k], [... k d], [... q d] to [... q d]."""
    moments = factors @ value**2 - 2 * out * (factors @ value) + out**2 * factors.sum(axis=-1, keepdims=True)
    return np.maximum(moments, 0.0)


def _operand(dtype: str) -> float:
    """Returns the variance of rounding an operand of size 1 to the dtype; float32 operands are not rounded again."""
    return UNIT[dtype] ** 2 / 3 if dtype != "float32" else 0.0


def _core(
    qkv: np.ndarray, heads: int, dtype: str, *, heads_first: tuple[int, ...], mask: np.ndarray | None = None
) -> np.ndarray:
    """Applies attend between the transposes of a core, as gradients.py does."""
    parts, mask, _ = _rows(qkv, heads, heads_first, mask)
    query, key, value = parts
    return merge_heads(attend(query, key, value, dtype, mask=mask).transpose(np.argsort(heads_first)))


def _core_vjp(
    qkv: np.ndarray,
    out_cotangent: np.ndarray,
    heads: int,
    dtype: str,
    *,
    heads_first: tuple[int, ...],
    mask: np.ndarray | None = None,
) -> np.ndarray:
    parts, mask, read = _rows(qkv, heads, heads_first, mask)
    out = out_cotangent.reshape(*out_cotangent.shape[:-1], heads, -1).transpose(heads_first)
    query, key, value = parts
    bounds = attend_vjp(query, key, value, out, dtype, mask=mask)
    back = np.argsort(heads_first)
    return np.where(read, np.concatenate([merge_heads(part.transpose(back)) for part in bounds], axis=-1), 0.0)


def _rows(qkv: np.ndarray, heads: int, heads_first: tuple[int, ...], mask: np.ndarray | None):
    """Returns query, key and value [... h n d], the mask [... 1 1 n], and which numbers are read."""
    read = readable(qkv, mask)
    if mask is not None:
        mask = mask[..., np.newaxis, np.newaxis].transpose(heads_first).swapaxes(-1, -2)
    return [part.transpose(heads_first) for part in split(np.where(read, qkv, 0.0), heads)], mask, read


Bound = Callable[..., np.ndarray]
joint: Bound = partial(_core, heads_first=(0, 2, 1, 3))
spatial: Bound = partial(_core, heads_first=(0, 1, 3, 2, 4))
temporal: Bound = partial(_core, heads_first=(0, 2, 3, 1, 4))
joint_vjp: Bound = partial(_core_vjp, heads_first=(0, 2, 1, 3))
spatial_vjp: Bound = partial(_core_vjp, heads_first=(0, 1, 3, 2, 4))
temporal_vjp: Bound = partial(_core_vjp, heads_first=(0, 2, 3, 1, 4))


def factorised_dot_product(qkv: np.ndarray, heads: int, dtype: str, *, mask: np.ndarray | None = None) -> np.ndarray:
    """The bounds over time of the first half of the heads, and over space of the second."""
    over_time, over_space = halves(qkv)
    bounds = [temporal(over_time, heads // 2, dtype, mask=mask), spatial(over_space, heads // 2, dtype, mask=mask)]
    return np.concatenate(bounds, axis=-1)


def factorised_dot_product_vjp(
    qkv: np.ndarray, out_cotangent: np.ndarray, heads: int, dtype: str, *, mask: np.ndarray | None = None
) -> np.ndarray:
    """As factorised_dot_product, for the vector-Jacobian product."""
    outs = np.split(out_cotangent, 2, axis=-1)
    bounds = [
        np.split(bound(half, out, heads // 2, dtype, mask=mask), 3, axis=-1)
        for bound, half, out in zip((temporal_vjp, spatial_vjp), halves(qkv), outs, strict=True)
    ]
    return np.concatenate([part for pair in zip(*bounds, strict=True) for part in pair], axis=-1)
