"""Grades the solutions in a folder: each in a process of its own, on arguments drawn from a seed."""

import ast
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vivit.conformance.examine import FAILED, PASSED, Verdict, examine_property
from vivit.conformance.implementation import Departure, Implementation, Unsupported
from vivit.conformance.plan import Plan
from vivit.conformance.properties import Property
from vivit.files.atomic import atomic_dir
from vivit.files.paths import is_file
from vivit.puzzles.catalogue import PUZZLES
from vivit.puzzles.drawing import drawn
from vivit.puzzles.process import Ended, Solution, SolutionError
from vivit.puzzles.puzzle import DTYPE, Call, Puzzle
from vivit.reference.values import one_line

SOLVED, UNSOLVED, COPIED, EMPTY, MISSING = "solved", "unsolved", "copied", "not begun", "missing"
CASES = 10  # of each property
SECONDS = 60.0  # that a solution may take


@dataclass(frozen=True, kw_only=True)
class Grade:
    """One puzzle of one folder. outcome: solved, unsolved, copied, not begun or missing.

    ours: the name of our own solution. points: of `possible`. reason: why it is not solved. case: the smallest that
    fails. worst: the index of the worst element; actual, expected, error, bound: there. printed: the end of what the
    solution printed. drawing: lines. seconds: that it took.
    """

    puzzle: str
    title: str
    ours: str
    outcome: str
    points: int
    possible: int
    reason: str = ""
    case: str | None = None
    worst: tuple[int, ...] | None = None
    actual: float | None = None
    expected: float | None = None
    error: float | None = None
    bound: float | None = None
    printed: str = ""
    drawing: list[str] = field(default_factory=list)
    seconds: float = 0.0


def start(folder: Path) -> None:
    """Writes all puzzles into a new or empty folder. Raises ValueError if it is not."""
    with atomic_dir(folder) as temporary:
        for puzzle in PUZZLES:
            (temporary / puzzle.file).write_bytes(puzzle.template.read_bytes())


def check(folder: Path, seed: int, puzzles: Sequence[Puzzle] = PUZZLES, seconds: float = SECONDS) -> Iterator[Grade]:
    """Yields the grade of every puzzle. seconds: that each solution may take."""
    for puzzle in puzzles:
        begin = time.monotonic()
        found = _of_file(folder / puzzle.file, puzzle, seed, seconds)
        points = puzzle.points if found["outcome"] == SOLVED else 0
        yield Grade(
            puzzle=puzzle.name,
            title=puzzle.title,
            ours=puzzle.ours,
            points=points,
            possible=puzzle.points,
            seconds=round(time.monotonic() - begin, 3),
            **found,
        )


def _of_file(path: Path, puzzle: Puzzle, seed: int, seconds: float) -> dict[str, Any]:
    if not is_file(path):
        return dict(outcome=MISSING, reason=f"{path.name} is not there")
    source = path.read_bytes()
    if source == puzzle.template.read_bytes():
        return dict(outcome=EMPTY)
    try:
        imported = _imported(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        return dict(outcome=UNSOLVED, reason=one_line(f"{type(error).__name__}: {text}{line}"))
    if imported:
        return dict(outcome=COPIED, reason=f"it imports {imported}")
    with Solution(path, puzzle.name, puzzle.rules, seconds) as solution:
        try:
            found = grade(puzzle, solution, seed)
        except Ended as ended:
            found = dict(outcome=UNSOLVED, reason=str(ended))
        if used := solution.copied():
            return dict(outcome=COPIED, reason=f"it {used}")
        return found if found["outcome"] == SOLVED else found | {"printed": solution.printed()}


def _imported(source: bytes) -> str | None:
    """What a file imports of ours, wherever the statement stands. Raises what ast.parse raises."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            if name.partition(".")[0] == "vivit":
                return name
    return None


def grade(puzzle: Puzzle, call: Call, seed: int) -> dict[str, Any]:
    """Grades a function: the fields of Grade. Stops at the first property that it lacks. Raises what Ended says."""
    last: list[np.ndarray] = []

    def remembered(*arguments: Any) -> list[np.ndarray]:
        last[:] = call(*arguments)
        return [*last]

    function = puzzle.adapt(remembered)
    failed: list[tuple[Any, list[np.ndarray]]] = []
    for each in puzzle.properties(seed):

        def tried(implementation: Implementation, name: str, case: Any, each: Property = each) -> None:
            try:
                each.check(implementation, name, case)
            except NotImplementedError as error:
                raise Unsupported(str(error)) from None
            except Departure:
                failed.append((case, [*last]))
                raise
            except SolutionError as error:
                failed.append((case, []))
                raise Departure(f"{puzzle.name} raises {type(error).__name__}: {one_line(str(error))}") from None

        implementation = Implementation(puzzle.file, {each.function: function}, (DTYPE,))
        verdict = examine_property(implementation, each._replace(check=tried), Plan(seed=seed, examples=CASES))
        if verdict.outcome == FAILED:
            return _failure(puzzle, verdict, *failed[-1])
        if verdict.outcome != PASSED:
            return dict(outcome=EMPTY, reason=verdict.reason)
    return dict(outcome=SOLVED)


def _failure(puzzle: Puzzle, verdict: Verdict, case: Any, last: list[np.ndarray]) -> dict[str, Any]:
    numbers = {name: getattr(verdict, name) for name in ("case", "worst", "actual", "expected", "error", "bound")}
    drawing: list[str] = []
    if verdict.worst is not None and puzzle.expected is not None and last:
        expected, actual = puzzle.expected(case), np.concatenate(last, axis=-1) if len(last) > 1 else last[0]
        same = actual.shape == expected.shape and _is(actual[verdict.worst], verdict.actual)
        if same:  # a property other than equality compares other arrays
            drawing = drawn(actual, expected, verdict.worst)
    reason = verdict.reason.replace(f"{verdict.function} ", f"{puzzle.name} ", 1)
    return dict(outcome=UNSOLVED, reason=f"{verdict.name}: {reason}", drawing=drawing, **numbers)


def _is(one: Any, other: Any) -> bool:
    return one == other or (one != one and other != other)  # both NaN
