"""One model with its weights on one clip, stage by stage: what is run in production against the float64 reference.

Every stage that forward captures has a row in float32 and one in bfloat16, in the order of computation; the bound is
that of accuracy.py. The logits are those of the whole model as it is run without capturing, through the kernels on a
TPU; the stages before are XLA's there, since kernels keep no attention weights. Attention weights of long clips would
take gigabytes: they are never held, and are seen through the next stage, which is computed from them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vivit import baseline, compiled
from vivit.accuracy import compare, depth_of
from vivit.audit import DTYPES, LARGEST_STAGE
from vivit.model import Model
from vivit.reference import models as reference
from vivit.reference.config import Config
from vivit.reference.params import convert

LOGITS = "logits"
STEPS = 1 + 2 * len(DTYPES)  # how often audit_checkpoint reports progress


@dataclass(frozen=True, kw_only=True)
class Row:
    """One stage in one dtype. worst: where and by how much, "" if it passed."""

    dtype: str
    stage: str
    shape: tuple[int, ...]
    error: float
    bound: float
    passed: bool
    worst: str


class Best(NamedTuple):
    """The class with the largest logit of one head. label: None if the checkpoint names none."""

    number: int
    label: str | None
    logit: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What one head says, by the reference and in production, by dtype.

    lead: by how much the reference prefers its class to the next; None if there is no other.
    """

    head: int
    reference: Best
    lead: float | None
    production: dict[str, Best]

    @property
    def agrees(self) -> bool:
        """Whether production in every dtype has the reference's class."""
        return all(best.number == self.reference.number for best in self.production.values())


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Every row, the logits' last in each dtype; what each head says; and which stage each other is covered by."""

    rows: tuple[Row, ...]
    decisions: tuple[Decision, ...]
    covered: dict[str, str]

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows) and all(decision.agrees for decision in self.decisions)

    @property
    def departures(self) -> tuple[Row, ...]:
        """In each dtype the first row that does not pass."""
        first = {row.dtype: row for row in reversed(self.rows) if not row.passed}
        return tuple(first[dtype] for dtype in DTYPES if dtype in first)


def audit_checkpoint(
    model: Model, clip: np.ndarray, *, progress: Callable[[str], object] = lambda what: None
) -> Verdict:
    """Compares every stage of one clip. progress: called with what comes next, STEPS times.

    clip: uint8[frames height width 3], of the model's size; the reference is given the same numbers as production.
    Raises ValueError if it does not fit.
    """
    config = model.config
    video = np.asarray(model.preprocessed(clip[np.newaxis]))
    params = convert(model.params, jnp.asarray)
    names, covered = compared(config)
    progress("the float64 reference")
    expected: dict[str, np.ndarray] = _Kept(names)
    reference.forward(convert(model.params, np.asarray), video, config, capture=expected)
    rows: list[Row] = []
    logits: dict[str, np.ndarray] = {}
    for dtype in DTYPES:
        progress(f"production, {dtype}")
        inner = tuple(name for name in names if name != LOGITS)
        stages = compiled.stages(params, video, config=config, names=inner, dtype=dtype)
        stages[LOGITS] = compiled.logits(params, video, config=config, dtype=dtype)
        logits[dtype] = np.asarray(stages[LOGITS], np.float64)[0]
        progress(f"the yardstick of its bound, {dtype}")
        found = _Compared(partial(_row, dtype, depth_of(config), stages, expected), names)
        baseline.forward(params, video, config, dtype=dtype, capture=found)
        rows += [found[name] for name in names]  # one that is missing is an error, never a pass
    decisions = _decisions(model, expected[LOGITS][0], logits) if config.classes else ()
    return Verdict(rows=tuple(rows), decisions=decisions, covered=covered)


def compared(config: Config) -> tuple[tuple[str, ...], dict[str, str]]:
    """(the stages that are compared by themselves, in order; and of each other the one that it is compared through)."""
    shapes = compiled.stage_shapes(config)
    names = tuple(name for name, shape in shapes.items() if math.prod(shape) <= LARGEST_STAGE)
    order = list(shapes)
    covered = {
        name: next(later for later in order[index:] if later in names)
        for index, name in enumerate(order)
        if name not in names
    }
    return names, covered


class _Kept(dict):
    """Captured stages of these names; the others are let go as they come."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = frozenset(names)

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self.names:
            super().__setitem__(name, value)


class _Compared(_Kept):
    """In place of each captured stage its row, so that the yardstick's stages never exist all at once."""

    def __init__(self, row: Callable[[str, Any], Row], names: tuple[str, ...]) -> None:
        super().__init__(names)
        self.row = row

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self.names:
            super().__setitem__(name, self.row(name, value))


def _row(
    dtype: str, depth: int, stages: dict[str, Any], expected: dict[str, np.ndarray], stage: str, yardstick: Any
) -> Row:
    comparison = compare(stages.pop(stage), yardstick, expected[stage], dtype, depth=depth)
    return Row(
        dtype=dtype,
        stage=stage,
        shape=expected[stage].shape,
        error=comparison.error,
        bound=comparison.bound,
        passed=comparison.passed,
        worst="" if comparison.passed else str(comparison),
    )


def _decisions(model: Model, expected: np.ndarray, logits: dict[str, np.ndarray]) -> tuple[Decision, ...]:
    ends = np.cumsum(model.config.classes)
    found = []
    for head, (end, count) in enumerate(zip(ends, model.config.classes, strict=True)):
        place = slice(end - count, end)
        names = None if model.labels is None else model.labels[head]
        ranked = np.sort(expected[place])[::-1]
        found.append(
            Decision(
                head=head,
                reference=_best(expected[place], names),
                lead=float(ranked[0] - ranked[1]) if count > 1 else None,
                production={dtype: _best(values[place], names) for dtype, values in logits.items()},
            )
        )
    return tuple(found)


def _best(logits: np.ndarray, names: tuple[str, ...] | None) -> Best:
    number = int(np.argmax(logits))
    return Best(number, None if names is None else names[number], float(logits[number]))
