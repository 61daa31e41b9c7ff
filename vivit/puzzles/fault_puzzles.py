"""Break it: the smallest input that shows a fault of a kernel, and tests that find a mutant and pass on the truth."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from vivit.audit.bound import compare
from vivit.conformance.implementation import Departure, Implementation
from vivit.conformance.properties import Property
from vivit.puzzles.process import SolutionError
from vivit.puzzles.puzzle import DTYPE, Call, Puzzle, file_name, template_function
from vivit.reference import attention, layers, tubelet
from vivit.reference.params import LayerNorm

LARGEST_SIZE, LARGEST = 64, 1e6  # of an axis, of a number
EPSILON = 1e-6  # of the layer norm with a fault
TRUTH, ROUNDED, MUTANT = "the right function", "the right function in float32", "the mutant"


def _smallest(
    name: str,
    number: int,
    points: int,
    fault: str,
    oracle: Callable[..., np.ndarray],
    shapes: Sequence[str],
    smallest: int,
    ours: str,
    condition: Callable[..., float] = lambda *_: 1.0,
) -> Puzzle:
    """A puzzle that asks for the smallest input that shows a fault.

    fault: the name of the wrong function in the template. shapes: of its arguments, such as "q d". smallest: how many
    numbers show it. condition: of compare, from the arguments.
    """

    def check(implementation: Implementation, function: str, case: str) -> None:
        given = implementation.functions[function]()
        sizes = _sizes(given, shapes)
        faulty = template_function(file_name(number, name), fault)
        try:
            with np.errstate(all="ignore"):
                expected = oracle(*(array.astype(np.float64) for array in given))
                baseline = oracle(*given)
                found = np.asarray(faulty(*given))
        except ValueError as error:
            raise Departure(f"{sizes}: {error}") from None
        comparison = compare(found, baseline, expected, DTYPE, depth=1, condition=condition(*given))
        text = f"the input of sizes {sizes}"
        if not np.isfinite(expected).all() or comparison.baseline_over_cap:
            raise Departure(f"{text} is too large in value: float32 has no accurate result even without the fault")
        if comparison.passed:
            raise Departure(f"{text} does not show the fault: {comparison}")
        if (count := sum(array.size for array in given)) > smallest:
            raise Departure(f"{text} shows the fault, with {count} numbers: fewer show it too")

    return Puzzle(
        name=name,
        number=number,
        points=points,
        ours=ours,
        properties=lambda _: [Property(name, "the smallest input", DTYPE, check, lambda _: st.just("its one call"))],
        adapt=_arrays,
    )


def _arrays(call: Call) -> Callable[[], list[np.ndarray]]:
    return lambda: call()


def _sizes(given: list[np.ndarray], shapes: Sequence[str]) -> str:
    """The sizes of a student's arrays, as text. Raises Departure unless they have these axes and no large number."""
    if len(given) != len(shapes):
        raise Departure(f"it returns {len(given)} arrays: it must return a tuple of {len(shapes)}")
    sizes: dict[str, int] = {}
    for array, axes in zip(given, shapes, strict=True):
        fits = array.ndim == len(axes.split()) and array.dtype == np.float32
        for axis, size in zip(axes.split(), array.shape if fits else (), strict=False):
            fits &= 1 <= size <= LARGEST_SIZE and sizes.setdefault(axis, size) == size
        if not fits or not (np.abs(array) <= LARGEST).all():
            rule = f"floats [{axes}] of at most a million, with axes of 1 to {LARGEST_SIZE}"
            raise Departure(f"it returns {array.dtype.name}{list(array.shape)}: it must be {rule}, {', '.join(shapes)}")
    return ", ".join(f"{axis} {size}" for axis, size in sizes.items())


def _kill(name: str, number: int, points: int, oracle: Callable[..., np.ndarray], mutant: str, ours: str) -> Puzzle:
    """A puzzle that asks for a test. mutant: the name of the wrong function in the template."""

    def subject(case: str) -> Callable[..., np.ndarray]:
        if case == MUTANT:
            return template_function(file_name(number, name), mutant)
        return oracle if case == TRUTH else partial(_rounded, oracle)

    def check(implementation: Implementation, function: str, case: str) -> None:
        test = implementation.functions[function]
        try:
            test(subject(case))
        except SolutionError as error:
            if type(error).__name__ != AssertionError.__name__:
                raise Departure(f"it raises {type(error).__name__}: {error}: a test fails by an assert") from None
            if case != MUTANT:
                raise Departure(f"it fails on {case}: {error or 'an assert'}") from None
            return
        if case == MUTANT:
            raise Departure("it passes on the mutant: it must fail")

    cases = st.sampled_from((TRUTH, ROUNDED, MUTANT))
    return Puzzle(
        name=name,
        number=number,
        points=points,
        ours=ours,
        properties=lambda _: [Property(name, "a test that finds the mutant", DTYPE, check, lambda _: cases)],
        adapt=lambda call: lambda function: call(function),
    )


def _rounded(oracle: Callable[..., np.ndarray], *arguments: Any) -> np.ndarray:
    """The oracle's result, as float32 has it: a test with a tolerance passes."""
    found = oracle(*arguments)
    return found.astype(np.float32) if found.dtype.kind == "f" else found


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """softmax(Q Kᵀ/√d) V, float[q d]."""
    return attention.attend(query, key, value)[0]


def largest_score(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> float:
    """The largest score, at least 1."""
    return max(1.0, float(np.abs(query @ key.T).max() / np.sqrt(key.shape[1])))


def normal(x: np.ndarray) -> np.ndarray:
    """The layer norm without scale and bias, float[n c]."""
    c = x.shape[-1]
    return layers.layer_norm(x, LayerNorm(np.ones(c, x.dtype), np.zeros(c, x.dtype)), EPSILON)


PUZZLES = (
    _smallest(
        "break_online_softmax",
        22,
        2,
        "attend",
        attend,
        ("q d", "k d", "k d"),
        9,
        "vivit.kernels.flash.forward",
        largest_score,
    ),
    _smallest("break_layer_norm", 23, 2, "layer_norm", normal, ("n c",), 2, "vivit.kernels.dense.norm_dense"),
    _kill("kill_frame_indices", 24, 2, tubelet.frame_indices, "mutant", "vivit.reference.tubelet.frame_indices"),
    _kill("kill_softmax", 25, 2, layers.softmax, "mutant", "vivit.reference.layers.softmax"),
)
