"""What an attention core and its vector-Jacobian product must satisfy: equality with the oracle, and invariants.

Equality is within the bound of vivit/audit/bound.py. An invariant compares the implementation with itself, on changed
inputs: both results may be off by that bound, so their difference by twice that. An invariant therefore finds what it
is named for, whatever else is wrong.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vivit.audit import baseline
from vivit.audit.bound import Comparison, compare
from vivit.conformance.cases import Case, Inputs, inputs
from vivit.conformance.implementation import Departure, Implementation, Unsupported, require
from vivit.conformance.quickly import QUICKLY
from vivit.reference import attention as reference
from vivit.reference import gradients, rounding

ENOUGH = 10**5  # values of which the mean error is taken
BIAS = 0.05  # of the root mean square


def accurate(implementation: Implementation, function: str, case: Case) -> None:
    """The result is as accurate as the baseline's, against the oracle."""
    problem = inputs(case)
    require(_compare(function, _result(implementation, function, problem, case.dtype), problem, case.dtype))


def masked_without_influence(implementation: Implementation, function: str, case: Case) -> None:
    """Other keys and values in masked tokens change no result."""
    problem = inputs(case)
    assert problem.mask is not None
    other = problem.qkv.copy()
    c = problem.out.shape[-1]
    other[~problem.mask, c:] = np.float32(3.0) - other[~problem.mask, c:]
    _require_same(implementation, function, problem, problem._replace(qkv=other), case.dtype)


def masked_not_read(implementation: Implementation, function: str, case: Case) -> None:
    """Masked tokens may hold NaN, infinity or huge numbers: the results of the others stay."""
    problem = inputs(case)
    assert problem.mask is not None
    seen = problem.mask
    problem = problem._replace(out=np.where(seen[..., np.newaxis], problem.out, np.float32(0.0)))
    other = problem.qkv.copy()
    fill = (np.nan, np.inf, -np.inf, 3e38)[case.seed % 4]
    other[~seen, 0 if not np.isfinite(fill) else case.shape[3] * case.shape[4] :] = fill  # finite queries are read
    _require_same(
        implementation, function, problem, problem._replace(qkv=other), case.dtype, among=seen[..., np.newaxis]
    )


def padding(implementation: Implementation, function: str, case: Case) -> None:
    """Masked tokens behind a sequence, in time and in space, change no result."""
    problem = inputs(case)
    b, t, s, heads, d = case.shape
    longer = inputs(case._replace(shape=(b, t + 1, s + 1, heads, d), seed=case.seed + 1))
    longer.qkv[:, :t, :s] = problem.qkv
    out, mask = np.zeros_like(longer.out), np.zeros(longer.out.shape[:3], bool)
    out[:, :t, :s], mask[:, :t, :s] = problem.out, True if problem.mask is None else problem.mask
    longer = longer._replace(out=out, mask=mask)
    _require_same(implementation, function, problem, longer, case.dtype, back=lambda x: x[:, :t, :s])


def permutations(implementation: Implementation, function: str, case: Case) -> None:
    """Permuted times and positions give the permuted result."""
    problem = inputs(case)
    if _core(function) == "joint":  # any order of all tokens
        problem = _each(lambda x: x.reshape(x.shape[0], 1, -1, *x.shape[3:]), problem)
    generator = np.random.default_rng(case.seed)
    time, space = map(generator.permutation, problem.qkv.shape[1:3])

    def moved(x: np.ndarray) -> np.ndarray:
        return x[:, time][:, :, space]

    def back(x: np.ndarray) -> np.ndarray:
        return x[:, np.argsort(time)][:, :, np.argsort(space)]

    _require_same(implementation, function, problem, _each(moved, problem), case.dtype, back=back)


def heads(implementation: Implementation, function: str, case: Case) -> None:
    """Permuted heads give the permuted result; of model 4, permuted within each half."""
    problem = inputs(case)
    count = problem.heads
    groups = 2 if _core(function) == "factorised_dot_product" else 1
    generator = np.random.default_rng(case.seed)
    size = count // groups
    order = np.concatenate([group * size + generator.permutation(size) for group in range(groups)])

    def moved(x: np.ndarray, order: np.ndarray = order) -> np.ndarray:
        parts = x.reshape(*x.shape[:3], -1, count, case.shape[4])
        return parts[..., order, :].reshape(x.shape)

    other = problem._replace(qkv=moved(problem.qkv), out=moved(problem.out))
    _require_same(implementation, function, problem, other, case.dtype, back=partial(moved, order=np.argsort(order)))


def examples(implementation: Implementation, function: str, case: Case) -> None:
    """An example gives the same alone as in a batch."""
    problem = inputs(case)
    alone = _each(lambda x: x[-1:], problem)
    whole = _result(implementation, function, problem, case.dtype)[-1:]
    actual = _result(implementation, function, alone, case.dtype)
    require(_difference(function, actual, whole, 2 * _bound(function, alone, case.dtype)))


def reductions(implementation: Implementation, function: str, case: Case) -> None:
    """One variant on the other's axes: space is joint in each frame, time is space transposed, model 4 is both."""
    problem = inputs(case)
    b, t, s, _, _ = case.shape
    suffix = "_vjp" * function.endswith("_vjp")

    def run(core: str, problem: Inputs) -> np.ndarray:
        return _result(implementation, core + suffix, problem, case.dtype)

    core = _core(function)
    if core == "joint":
        problem = _each(lambda x: x.reshape(b, 1, t * s, *x.shape[3:]), problem)
        expected = run("spatial", problem)
    elif core == "spatial":
        frames = run("joint", _each(lambda x: x.reshape(b * t, 1, s, *x.shape[3:]), problem))
        expected = frames.reshape(b, t, s, -1)
    elif core == "temporal":
        expected = run("spatial", _each(lambda x: x.swapaxes(1, 2), problem)).swapaxes(1, 2)
    else:
        sides = zip(("temporal", "spatial"), reference.halves(problem.qkv), np.split(problem.out, 2, -1), strict=True)
        parts = [run(name, Inputs(qkv, out, problem.mask, problem.heads // 2)) for name, qkv, out in sides]
        pieces = zip(*(np.split(part, 3 if suffix else 1, axis=-1) for part in parts), strict=True)
        expected = np.concatenate([part for pair in pieces for part in pair], axis=-1)
    actual = run(core, problem)
    require(_difference(function, actual, expected, 2 * _bound(function, problem, case.dtype)))


def still(implementation: Implementation, function: str, case: Case) -> None:
    """A still video gives what its one frame gives, at every time."""
    t = case.shape[1]
    frame = _each(lambda x: x[:, :1], inputs(case))
    video = _each(lambda x: np.repeat(x, t, axis=1), frame)
    expected = np.repeat(_result(implementation, function, frame, case.dtype), t, axis=1)
    actual = _result(implementation, function, video, case.dtype)
    require(_difference(function, actual, expected, 2 * _bound(function, video, case.dtype)))


def derived(implementation: Implementation, function: str, case: Case) -> None:
    """No element is further off than the rounding of its operations explains (reference/rounding.py)."""
    problem = inputs(case)
    actual = _flat(function, _result(implementation, function, problem, case.dtype))
    expected, bounds = oracle(function, problem), _derived_bounds(function, problem, case.dtype)
    require(_difference(function, actual, expected, bounds))


def unbiased(implementation: Implementation, function: str, case: Case) -> None:
    """The mean error over 10⁵ values is at most a twentieth of its root mean square: away from zero, and upwards."""
    problem = inputs(case)
    expected = oracle(function, problem)
    error = _flat(function, _result(implementation, function, problem, case.dtype)) - expected
    if expected.size < ENOUGH:
        raise Unsupported(f"{expected.size} values are too few for a mean error")
    size = float(np.sqrt(np.square(error).mean()))
    for mean, direction in ((error.mean(), "upwards"), ((error * np.sign(expected)).mean(), "away from zero")):
        if not abs(mean) <= BIAS * size:
            raise Departure(
                f"the mean error {direction} of {expected.size} values is {mean:.3g}: it must be at most {BIAS} of "
                f"their root mean square error {size:.3g}"
            )


def derived_bound_ratio(implementation: Implementation, function: str, case: Case) -> float:
    """Returns the median of bound ÷ error over the elements that are off at all: how tight the derived bound is."""
    problem = inputs(case)
    error = np.abs(_flat(function, _result(implementation, function, problem, case.dtype)) - oracle(function, problem))
    return float(np.median((_derived_bounds(function, problem, case.dtype)[error > 0]) / error[error > 0]))


def _core(function: str) -> str:
    return function.removesuffix("_vjp")


def _each(change: Callable[[np.ndarray], np.ndarray], problem: Inputs) -> Inputs:
    qkv, out, mask, count = problem
    return Inputs(change(qkv), change(out), None if mask is None else change(mask), count)


def _flat(function: str, array: Any) -> Any:
    """From [b t s ..] to the layout of the core: of joint [b n ..]."""
    b, t, s, *rest = array.shape
    return array.reshape(b, t * s, *rest) if _core(function) == "joint" else array


def _result(implementation: Implementation, function: str, problem: Inputs, dtype: str) -> np.ndarray:
    """Returns the implementation's result, float64[b t s ..]."""
    qkv, out, mask, count = problem
    arrays = (qkv, out) if function.endswith("_vjp") else (qkv,)
    arrays = tuple(_flat(function, array) for array in arrays)
    found = implementation.core(function, arrays, count, None if mask is None else _flat(function, mask), dtype)
    return found.reshape(*qkv.shape[:3], found.shape[-1])


def oracle(function: str, problem: Inputs) -> np.ndarray:
    """Returns the oracle's result in the core's layout."""
    qkv, out, mask, count = _each(partial(_flat, function), problem)
    qkv, out = np.float64(qkv), np.float64(out)
    if function.endswith("_vjp"):
        return getattr(gradients, function)(qkv, out, count, mask=mask)
    return getattr(reference, function)(qkv, count, mask=mask)


def _derived_bounds(function: str, problem: Inputs, dtype: str) -> np.ndarray:
    qkv, out, mask, count = _each(partial(_flat, function), problem)
    arrays = (np.float64(qkv), np.float64(out)) if function.endswith("_vjp") else (np.float64(qkv),)
    return getattr(rounding, function)(*arrays, count, dtype, mask=mask)


@cache
def _baseline(core: str, count: int) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """(qkv, out, mask) → (the baseline's core, its vector-Jacobian product), compiled once for each shape."""

    @partial(jax.jit, compiler_options=QUICKLY)
    def both(qkv: jax.Array, out: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, pull = jax.vjp(lambda qkv: getattr(baseline, core)(qkv, count, mask=mask), qkv)
        return value, pull(out)[0]

    return both


def _compare(function: str, actual: np.ndarray | None, problem: Inputs, dtype: str) -> Comparison:
    """Compares a result [b t s ..] with the oracle's. None: the oracle's own result, for the bound alone."""
    expected = oracle(function, problem)
    qkv, out, mask, count = _each(partial(_flat, function), problem)
    mask = np.ones(qkv.shape[:-1], bool) if mask is None else mask
    value, slope = _baseline(_core(function), count)(jnp.asarray(qkv, dtype), jnp.asarray(out, dtype), mask)
    found = expected if actual is None else _flat(function, actual)
    query, key, value_of_head = (
        part.reshape(-1, *part.shape[-2:]) for part in reference.split(qkv.astype(np.float64), count)
    )
    root = np.sqrt(query.shape[-1])
    condition = float(max(1.0, np.abs(np.einsum("qhd,khd->hqk", query, key)).max() / root))
    if not function.endswith("_vjp"):
        return compare(found, value, expected, dtype, depth=1, condition=condition)
    # the scores' cotangent is a difference of two numbers as large as this: of weights near 0 and 1 nothing is left
    cotangent = np.float64(out).reshape(query.shape)
    of_weights = np.abs(np.einsum("qhd,khd->hqk", cotangent, value_of_head)).max()
    terms = float(2 * of_weights * max(np.abs(query).max(), np.abs(key).max()) / root)
    return compare(found, slope, expected, dtype, depth=2, condition=condition, terms=terms)


def _bound(function: str, problem: Inputs, dtype: str) -> float:
    return _compare(function, None, problem, dtype).bound


def _difference(function: str, actual: np.ndarray, expected: np.ndarray, bound: float | np.ndarray) -> Comparison:
    """Compares two arrays; the worst element is the one that is furthest beyond its bound."""
    actual, expected = (_flat(function, x) if x.ndim == 4 else x for x in (actual, expected))
    error, bounds = np.abs(actual - expected), np.broadcast_to(bound, expected.shape)
    worst = np.unravel_index(np.argmax(error - bounds), error.shape)  # argmax returns a NaN first
    return Comparison(
        error=float(error[worst]),
        bound=float(bounds[worst]),
        worst=tuple(map(int, worst)),
        actual=float(actual[worst]),
        expected=float(expected[worst]),
        baseline_error=0.0,
        cap=0.0,
    )


def _require_same(
    implementation: Implementation,
    function: str,
    problem: Inputs,
    other: Inputs,
    dtype: str,
    *,
    back: Callable[[np.ndarray], np.ndarray] = lambda x: x,
    among: np.ndarray | bool = True,
) -> None:
    """Requires that `back` of the result of other inputs is that of the problem. among: the tokens that count."""
    actual = back(_result(implementation, function, other, dtype))
    expected = _result(implementation, function, problem, dtype)
    actual, expected = (np.where(among, x, 0.0) for x in (actual, expected))
    require(_difference(function, actual, expected, 2 * _bound(function, problem, dtype)))
