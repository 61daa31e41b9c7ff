"""What a puzzle is, and the two kinds of properties that most have: those of the kit, and equality with an oracle."""

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import compress, product
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from vivit.audit.bound import compare
from vivit.audit.variants import rounded
from vivit.conformance import attention
from vivit.conformance.cases import Case, Shape, inputs
from vivit.conformance.implementation import Implementation, require
from vivit.conformance.properties import Property, invariants, of_core

TEMPLATES = Path(__file__).parent / "templates"
DTYPE = "float32"
SIZES, COMPILED_SIZES = 3, 2  # how many sizes a puzzle is tried on; fewer where each is compiled
SEEDS = st.integers(0, 2**32 - 1)

Call = Callable[..., list[np.ndarray]]  # a solution: from its arguments to the arrays that it returns
Axes = dict[str, Sequence[int]]  # the sizes that an axis may have


@dataclass(frozen=True, kw_only=True)
class Puzzle:
    """One function to write.

    name: of the function. number: begins the name of the file. points: for a solution. ours: the functions that solve
    it here. properties: from a seed to what a solution must satisfy, on sizes drawn from the seed. expected: from a
    case to the result, to be drawn. rules: of runner.traced; None: a solution takes NumPy arrays. adapt: from the
    student's function to the one that the properties call.
    """

    name: str
    number: int
    points: int
    ours: str
    properties: Callable[[int], list[Property]]
    expected: Callable[[Any], np.ndarray] | None = None
    rules: dict[str, Any] | None = None
    adapt: Callable[[Call], Callable[..., Any]] = lambda call: partial(joined, call)

    @property
    def file(self) -> str:
        """The name of the file in a student's folder."""
        return file_name(self.number, self.name)

    @property
    def template(self) -> Path:
        """The file that a student gets."""
        return TEMPLATES / self.file

    @cached_property
    def title(self) -> str:
        """The first line of the template."""
        return (ast.get_docstring(ast.parse(self.template.read_text("utf-8"))) or "").splitlines()[0].rstrip(".")


class Trial(NamedTuple):
    """Arguments to be drawn: names and sizes of the axes, a factor of the values, and the seed of the values."""

    axes: tuple[str, ...]
    sizes: tuple[int, ...]
    scale: float
    seed: int

    def __str__(self) -> str:
        sizes = ", ".join(f"{axis} {size}" for axis, size in zip(self.axes, self.sizes, strict=True))
        return f"{sizes}{'' if self.scale == 1 else f', values times {self.scale:g}'}, seed {self.seed}"

    def values(self, *shapes: tuple[int, ...]) -> list[np.ndarray]:
        """Arrays of these shapes: float32, exact in bfloat16, of the trial's scale."""
        generator = np.random.default_rng(self.seed)
        return [np.float32(self.scale) * rounded(generator.standard_normal(shape)) for shape in shapes]


def file_name(number: int, name: str) -> str:
    """The name of a puzzle's file."""
    return f"{number:02}_{name}.py"


def joined(call: Call, *arguments: Any) -> np.ndarray:
    """The result of a solution, several arrays along their last axis. Raises TypeError if they do not fit."""
    found = call(*arguments)
    if not found:
        raise TypeError("it returns None: it must return an array")
    try:
        return np.concatenate(found, axis=-1) if len(found) > 1 else found[0]
    except ValueError:
        shapes = ", ".join(str(list(array.shape)) for array in found)
        raise TypeError(f"it returns arrays of shapes {shapes}: they must differ in the last axis alone") from None


def drawn_sizes(axes: Axes, seed: int, count: int = SIZES) -> list[tuple[int, ...]]:
    """A few choices of sizes, smallest first, from a seed.

    Of the axes that vary, no two have the same size, and none the same size in all choices.
    """
    vary = [len(candidates) > 1 for candidates in axes.values()]
    possible = [sizes for sizes in product(*axes.values()) if len({*compress(sizes, vary)}) == sum(vary)]
    generator = np.random.default_rng(seed)
    while True:
        drawn = generator.choice(len(possible), min(count**2, len(possible)), replace=False)
        ordered = sorted((possible[i] for i in drawn), key=lambda sizes: (prod(sizes), sizes))
        chosen = ordered[:: -(-len(ordered) // count)]  # small ones too
        if all(len(set(sizes)) > 1 for sizes in compress(zip(*chosen, strict=True), vary)):
            return chosen


def against(
    oracle: Callable[..., np.ndarray],
    arguments: Callable[[Trial], Sequence[Any]],
    axes: Axes,
    *,
    scales: Sequence[float] = (1.0,),
    depth: int = 1,
    condition: Callable[..., float] = lambda *_: 1.0,
    **of_puzzle: Any,
) -> Puzzle:
    """A puzzle whose solution equals an oracle in float64, by the bound of vivit/audit/bound.py.

    The baseline of the bound is the oracle itself in float32. condition: of compare, from the arguments.
    """

    def exact(given: Sequence[Any]) -> list[Any]:
        return [np.float64(x) if isinstance(x, np.ndarray) and x.dtype == np.float32 else x for x in given]

    def expected(trial: Trial) -> np.ndarray:
        return np.asarray(oracle(*exact(arguments(trial))))

    def check(implementation: Implementation, function: str, trial: Trial) -> None:
        given = arguments(trial)
        wanted = expected(trial)
        dtype = {"i": "int64", "b": "bool"}.get(wanted.dtype.kind, DTYPE)
        found = implementation.call(function, *given, shape=wanted.shape, dtype=dtype)
        with np.errstate(all="ignore"):
            baseline = np.asarray(oracle(*given), wanted.dtype if wanted.dtype.kind != "f" else np.float32)
        wanted = wanted.astype(np.float64)
        require(compare(found, baseline, wanted, DTYPE, depth=depth, condition=condition(*exact(given))))

    def properties(seed: int) -> list[Property]:
        count = COMPILED_SIZES if of_puzzle.get("rules") else SIZES
        sizes = st.sampled_from(drawn_sizes(axes, seed, count))
        trials = st.builds(Trial, st.just(tuple(axes)), sizes, st.sampled_from(tuple(scales)), SEEDS)
        return [Property(of_puzzle["name"], "equality with the oracle", DTYPE, check, lambda _: trials)]

    return Puzzle(properties=properties, expected=expected, **of_puzzle)


def of_kit(function: str, wanted: Sequence[str], axes: Axes, **of_puzzle: Any) -> Puzzle:
    """A puzzle whose solution has properties of the kit, by their names. axes: of cases.Shape, b t s heads d."""

    def properties(seed: int) -> list[Property]:
        shapes: tuple[Shape, ...] = tuple(drawn_sizes(axes, seed, COMPILED_SIZES))  # pyright: ignore[reportAssignmentType]
        every = [*of_core(function, DTYPE, shapes), *invariants(function, DTYPE, shapes[-1:])]
        return [next(each for each in every if each.name == name) for name in wanted]

    def expected(case: Case) -> np.ndarray:
        return attention.oracle(function, inputs(case))

    return Puzzle(properties=properties, expected=expected, **of_puzzle)


def template_function(file: str, name: str) -> Callable[..., Any]:
    """A function that a template shows: a kernel or a mutant with a fault."""
    module: dict[str, Any] = {"__name__": name}
    exec(compile((TEMPLATES / file).read_bytes(), file, "exec"), module)
    return module[name]
