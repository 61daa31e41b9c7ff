"""The derived bounds of rounding: never exceeded by right results, tight at ViViT-B's sizes, and exceeded by faults."""

import itertools
import math

import numpy as np
import pytest
from students import Student

from vivit.conformance.adapters import pallas, xla
from vivit.conformance.attention import derived, derived_bound_ratio, unbiased
from vivit.conformance.cases import BASE, Case
from vivit.conformance.implementation import CORES, DTYPES, Departure, examined
from vivit.reference import attention, gradients, rounding

XLA, PALLAS = examined(xla, "xla"), examined(pallas, "pallas")
RATIO = 30.0  # median of bound ÷ error, at most


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", [*CORES, *(f"{core}_vjp" for core in CORES)])
def test_at_vivit_bs_sizes_the_median_of_bound_over_error_is_at_most_thirty(function, dtype):
    case = Case(BASE[function.removesuffix("_vjp")][0], dtype, seed=3)
    assert 1 < derived_bound_ratio(XLA, function, case) <= RATIO


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_the_kernels_too(dtype):
    assert 1 < derived_bound_ratio(PALLAS, "spatial", Case(BASE["spatial"][1], dtype, seed=3)) <= RATIO


class InBfloat16(Student):
    """Sums in bfloat16, term by term."""

    def product(self, left, right):
        total = np.zeros((*left.shape[:-1], right.shape[-1]), "bfloat16")
        for i in range(left.shape[-1]):
            total = total + (left[..., i, np.newaxis] * right[..., i, np.newaxis, :]).astype("bfloat16")
        return total.astype(left.dtype)


class NoLargestSubtracted(Student):
    def exponentials(self, scores):
        return np.exp(scores)


class RoughExponential(Student):
    """Right to 12 bits, as a fast approximation is."""

    def exponentials(self, scores):
        right = super().exponentials(scores)
        return right * (1 + 2.0**-12 * np.sin(1e4 * scores)).astype(right.dtype)


class Bfloat16(Student):
    """A right student who computes in float32, and takes and returns bfloat16."""

    DTYPES = DTYPES

    def attend(self, axis, qkv, heads, mask):
        return super().attend(axis, qkv.astype(np.float32), heads, mask).astype(qkv.dtype)


class SumsInBfloat16(InBfloat16, Bfloat16):
    pass


class TowardsZero(Bfloat16):
    """Cuts digits off instead of rounding."""

    def attend(self, axis, qkv, heads, mask):
        out = Student.attend(self, axis, qkv.astype(np.float32), heads, mask)
        return (out.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).astype(qkv.dtype)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("fault", "dtype", "scale"),
    [
        (InBfloat16, "float32", 1.0),
        (SumsInBfloat16, "bfloat16", 1.0),
        (NoLargestSubtracted, "float32", 100.0),
        (RoughExponential, "float32", 1.0),
    ],
)
def test_faults_of_precision_exceed_the_derived_bound_and_the_right_student_does_not(fault, dtype, scale):
    case = Case((1, 1, 197, 2, 64), dtype, scale=scale, seed=1)
    derived(examined(Bfloat16(), "right"), "spatial", case)
    with pytest.raises(Departure, match="exceeds bound"):
        derived(examined(fault(), "wrong"), "spatial", case)


@pytest.mark.fast
def test_rounding_towards_zero_is_found_by_its_mean_and_rounding_to_nearest_is_not():
    case = Case(BASE["spatial"][1], "bfloat16", seed=1)
    unbiased(examined(Bfloat16(), "right"), "spatial", case)
    with pytest.raises(Departure, match="the mean error away from zero of 151296 values is -"):
        unbiased(examined(TowardsZero(), "wrong"), "spatial", case)


@pytest.mark.fast
@pytest.mark.parametrize("terms", [1, 5, 64])
def test_the_expected_squares_of_partial_sums_are_those_of_all_orders(terms):
    generator = np.random.default_rng(terms)
    values = generator.standard_normal(terms)
    orders = np.array([generator.permutation(values) for _ in range(20000)])
    expected = np.square(np.cumsum(orders, axis=1)).sum(axis=1).mean()
    found = rounding._sum(values.sum(), np.square(values).sum(), terms, "bfloat16")
    assert found == pytest.approx(expected, rel=0.03)


def in_every_order(terms, rounded):
    """The variance of a sum, in roundings of size 1: of each addition, over all orders, and of products that round."""
    orders = list(itertools.permutations(terms))
    additions = sum(part**2 for order in orders for part in itertools.accumulate(order)) / len(orders)
    return additions + (sum(term**2 for term in terms) if rounded else 0)


def looped(query, key, value, out, dtype, mask):
    """The bounds of attend and of attend_vjp as docs/correctness.md derives them, one number after the other."""
    (q, d), k, rounded = query.shape, len(key), dtype == "float32"
    unit, operand = (2**-24, 0.0) if rounded else (2**-8, (2**-8 / 2**-24) ** 2)  # operand: in float32's roundings
    weights, theta = np.zeros((q, k)), np.zeros((q, k))
    for i in range(q):
        scores = {j: query[i] @ key[j] / math.sqrt(d) for j in range(k) if mask[j]}
        largest = max(scores.values())
        for j, score in scores.items():
            weights[i, j] = math.exp(score - largest) / sum(math.exp(other - largest) for other in scores.values())
            theta[i, j] = in_every_order(query[i] * key[j], rounded) / d + 2 * score**2 + 3 * (score - largest) ** 2 + 4
    growth = np.exp(5.5 * np.sqrt(theta.max(1) * 2**-48 / 3))
    total = [in_every_order(weights[i], False) + 2 for i in range(q)]

    def bound(exact, variance, growth, lost):
        return 5.5 * growth * math.sqrt(variance * 2**-48 / 3) + unit * abs(exact) + max(q, k) * 2**-126 * lost

    forward, of_query, of_key, of_value = (np.zeros(x.shape) for x in (query, query, key, value))
    for i, lane in np.ndindex(forward.shape):
        w, v = weights[i], value[:, lane]
        exact = w @ v
        variance = w**2 @ (theta[i] * (v - exact) ** 2) + in_every_order(w * v, rounded) + 2 * w**2 @ v**2
        variance += (2 + total[i]) * exact**2 + operand * max(w**2 @ v**2, w**2 @ (v - exact) ** 2)
        forward[i, lane] = bound(exact, variance, growth[i], abs(v).max())
    products = out @ value.T
    scores, own, mean_variance = np.zeros((q, k)), np.zeros((q, k)), np.zeros(q)
    for i in range(q):
        w, p = weights[i], products[i]
        of_products = [in_every_order(out[i] * value[j], rounded) + operand * p[j] ** 2 for j in range(k)]
        apart = p - w @ p
        scores[i] = w * apart
        own[i] = w**2 * (theta[i] * apart**2 + of_products) + (3 + operand) * scores[i] ** 2
        mean_variance[i] = w**2 @ (of_products + theta[i] * apart**2) + in_every_order(w * p, True) + 2 * w**2 @ p**2
        mean_variance[i] += total[i] * (w @ p) ** 2
        total[i] += w**2 @ theta[i]
    lost = 1 + 2 * abs(products).max()
    for i, lane in np.ndindex(query.shape):
        terms = scores[i] * key[:, lane] / math.sqrt(d)
        common = mean_variance[i] * (weights[i] @ key[:, lane]) ** 2 / d + (total[i] + 2) * terms.sum() ** 2
        variance = common + own[i] @ key[:, lane] ** 2 / d + in_every_order(terms, rounded)
        of_query[i, lane] = bound(terms.sum(), variance, growth[i], lost * abs(key).max())
    for j, lane in np.ndindex(key.shape):
        terms = scores[:, j] * query[:, lane] / math.sqrt(d)
        each = own[:, j] + weights[:, j] ** 2 * mean_variance + total * scores[:, j] ** 2
        variance = each @ query[:, lane] ** 2 / d + in_every_order(terms, rounded) + 2 * terms.sum() ** 2
        of_key[j, lane] = bound(terms.sum(), variance, growth.max(), lost * abs(query).max())
        terms = weights[:, j] * out[:, lane]
        each = theta[:, j] + total + 3 + operand
        variance = terms**2 @ each + in_every_order(terms, rounded)
        of_value[j, lane] = bound(terms.sum(), variance, growth.max(), abs(out).max())
    return forward, of_query, of_key, of_value


@pytest.mark.fast
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_every_bound_is_the_derivation_written_out(dtype, size):
    generator = np.random.default_rng(3)
    query, key, value, out = (size * generator.standard_normal(shape) for shape in ((2, 3), (4, 3), (4, 3), (2, 3)))
    mask = np.array([True, True, False, True])
    found = rounding.attend(query, key, value, dtype, mask=mask)
    found_vjp = rounding.attend_vjp(query, key, value, out, dtype, mask=mask)
    for ours, expected in zip((found, *found_vjp), looped(query, key, value, out, dtype, mask), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bounds_of_many_rows_are_those_of_each(dtype):
    generator = np.random.default_rng(4)
    arrays = [generator.standard_normal((2, 5, n, 3)) for n in (2, 4, 4, 2)]
    mask = np.array([True, True, False, True])

    def bounds(query, key, value, out):
        forward = rounding.attend(query, key, value, dtype, mask=mask)
        return forward, *rounding.attend_vjp(query, key, value, out, dtype, mask=mask)

    each = [bounds(*(x[i] for x in arrays)) for i in np.ndindex(2, 5)]
    for together, *one in zip(bounds(*arrays), *each, strict=True):  # but for what is too small for float32
        np.testing.assert_allclose(together.reshape(10, *together.shape[2:]), np.stack(one), rtol=1e-12, atol=1e-35)
    assert [x.shape for x in bounds(*(x[:0] for x in arrays))] == [(0, 5, n, 3) for n in (2, 2, 4, 4)]


@pytest.mark.fast
def test_what_is_too_small_for_float32_is_part_of_the_bounds():
    query, key, value, out = (np.array(x) for x in ([[1.0]], [[0.0], [-1000.0]], [[0.0], [5.0]], [[3.0]]))
    two_terms = 2 * 2.0**-126  # of two keys, the second with a weight of e⁻¹⁰⁰⁰
    assert rounding.attend(query, key, value, "float32") == two_terms * 5
    of_query, of_key, of_value = rounding.attend_vjp(query, key, value, out, "float32")
    assert of_query == two_terms * (1 + 2 * 15) * 1000
    assert of_key[1] == two_terms * (1 + 2 * 15) * 1
    assert of_value[1] == two_terms * 3


@pytest.mark.fast
def test_where_nothing_is_summed_the_bound_is_the_rounding_of_the_result_and_what_masks_leave_is_exact():
    qkv = np.random.default_rng(0).standard_normal((1, 1, 3, 6))
    hidden = np.zeros((1, 1, 3), bool)
    assert rounding.spatial(qkv, 1, "float32", mask=hidden).max() < 1e-36
    assert rounding.spatial_vjp(qkv, qkv[..., :2], 1, "float32", mask=hidden)[..., 2:].max() == 0
    one = rounding.temporal(qkv, 1, "bfloat16")
    ulp = rounding.UNIT["bfloat16"] * np.abs(qkv[..., 4:])
    assert np.all((ulp <= one) & (one < 5 * ulp))


@pytest.mark.fast
@pytest.mark.parametrize("core", CORES)
def test_an_error_of_several_bounds_in_any_element_is_found(core):
    shape = (2, 15) if core == "joint" else (2, 3, 5)
    generator = np.random.default_rng(1)
    qkv, out = generator.standard_normal((*shape, 48)), generator.standard_normal((*shape, 16))
    for bounds, exact in (
        (getattr(rounding, core)(qkv, 4, "float32"), getattr(attention, core)(qkv, 4)),
        (getattr(rounding, f"{core}_vjp")(qkv, out, 4, "float32"), getattr(gradients, f"{core}_vjp")(qkv, out, 4)),
    ):
        assert bounds.shape == exact.shape
        assert np.all((bounds > 0) & (bounds < 1e-4))


@pytest.mark.fast
def test_the_bounds_of_model_4_are_those_of_its_two_axes_under_a_mask():
    generator = np.random.default_rng(2)
    qkv, out = generator.standard_normal((1, 2, 3, 24)), generator.standard_normal((1, 2, 3, 8))
    mask = np.array([[[True, False, True], [False, True, True]]])
    over_time, over_space = (qkv.reshape(1, 2, 3, 3, 2, 4)[..., half, :].reshape(1, 2, 3, 12) for half in (0, 1))
    halves = (
        rounding.temporal(over_time, 1, "float32", mask=mask),
        rounding.spatial(over_space, 1, "float32", mask=mask),
    )
    found = rounding.factorised_dot_product(qkv, 2, "float32", mask=mask)
    assert np.array_equal(found, np.concatenate(halves, axis=-1))
    halves = (
        rounding.temporal_vjp(over_time, out[..., :4], 1, "float32", mask=mask),
        rounding.spatial_vjp(over_space, out[..., 4:], 1, "float32", mask=mask),
    )
    found = rounding.factorised_dot_product_vjp(qkv, out, 2, "float32", mask=mask).reshape(1, 2, 3, 3, 2, 4)
    for half, expected in enumerate(halves):
        assert np.array_equal(found[..., half, :].reshape(1, 2, 3, 12), expected)
