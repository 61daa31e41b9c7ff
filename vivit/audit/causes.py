"""Finds why another implementation departs: the reference is recomputed with each fault of faults.py, one at a time.

A fault explains a departure if, recomputed with it, the reference agrees with the other implementation at the stage
that departed. Of those that do, the one with which the most stages agree is the cause. Where a later stage departs even
so, the search goes on from there, with the cause kept: a port may have several faults.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from vivit.audit.faults import Fault, Faulty, Positions, faults, head_in_order_of
from vivit.audit.replay import chain, compute, last_stage, params_of, part_of, tree_of
from vivit.reference.params import leaves

MOST = 4  # causes that are looked for, one after the other

Stages = Mapping[str, np.ndarray]


class Limit(NamedTuple):
    """The bound of one stage, and the reference's largest value there."""

    bound: float
    largest: float


class Cause(NamedTuple):
    """A fault that explains a departure. stage: where. agree: stages from there on that agree with it, of `stages`."""

    stage: str
    fault: str
    agree: int
    stages: int


class _Walk(NamedTuple):
    """How far a model agrees. departs: the number of the first compared stage that departs, or how many there are.

    start, source: the part after the last compared stage that agrees and ends a part, and what it takes.
    """

    departs: int
    start: int
    source: np.ndarray


def causes(
    sound: Faulty, other: Stages, limits: Mapping[str, Limit], positions: Positions | None = None
) -> tuple[Cause, ...]:
    """Returns the causes of the departures, in order; () if the first one is explained by none of the faults.

    other: the stages of the other implementation. limits: those that are compared, in order. positions: as faults()
    takes them. What is not compared is not trusted: a fault may be in any part after the last stage that agrees.
    """
    found: list[Cause] = []
    model, order = sound, list(limits)
    reached = _walk(model, 0, model.pixels, other, limits)
    while reached.departs < len(order) and len(found) < MOST:
        best: tuple[_Walk, Fault, Faulty] | None = None
        for fault, changed in _possible(model, order[reached.departs], reached, other, positions):
            walked = _walk(changed, reached.start, reached.source if reached.start else changed.pixels, other, limits)
            if walked.departs > (reached if best is None else best[0]).departs:
                best = walked, fault, changed
        if best is None:
            break
        walked, fault, model = best
        total = len(order) - reached.departs
        found.append(Cause(order[reached.departs], fault.name, walked.departs - reached.departs, total))
        reached = walked
    return tuple(found)


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest absolute difference; infinity for another shape or a number that is not finite."""
    if actual.shape != expected.shape:
        return float("inf")
    error = float(np.abs(np.asarray(actual, np.float64) - expected).max())
    return error if np.isfinite(error) else float("inf")


def _possible(
    model: Faulty, departs: str, reached: _Walk, other: Stages, positions: Positions | None
) -> Iterator[tuple[Fault, Faulty]]:
    """Yields the faults that can be seen first between the last stage that agrees and the one that departs."""
    names = [part.name for part in chain(model.config)[reached.start :]]
    names = names[: 1 + names.index(part_of(departs))]
    for fault in faults(model, names[-1], positions):
        if any(re.fullmatch(fault.parts, name) for name in names):
            changed = fault.change(model)
            if _differs(changed, model, names):
                yield fault, changed
    if departs == "logits" and model.params.head is not None:
        value = reached.source
        for name in names:
            value = compute(name, value, params_of(name, model.params), model.config)
        fault = head_in_order_of(value, other[departs])
        if fault is not None:
            yield fault, fault.change(model)


def _differs(changed: Faulty, model: Faulty, names: list[str]) -> bool:
    """Whether a change is one of what these parts read."""
    if changed.config != model.config or changed.pixels is not model.pixels:
        return True
    for name in names:
        one, two = (dict(leaves(tree_of(name, each.params))) for each in (changed, model))
        if one.keys() != two.keys() or any(one[path] is not two[path] for path in one):
            return True
    return False


class _DepartsError(Exception):
    """Ends a walk."""


class _Checked(dict):
    """A capture dict that compares every stage with the other implementation's, and counts those that agree."""

    def __init__(self, other: Stages, limits: Mapping[str, Limit], agreed: int) -> None:
        super().__init__()
        self.other, self.limits, self.agreed = other, limits, agreed

    def __setitem__(self, stage: str, value: Any) -> None:
        super().__setitem__(stage, value)
        if stage not in self.limits:
            return
        limit = self.limits[stage]
        growth = float(np.abs(value).max()) / max(limit.largest, np.finfo(np.float64).tiny)
        if difference(self.other[stage], value) > limit.bound * max(1.0, growth):
            raise _DepartsError
        self.agreed += 1


def _walk(model: Faulty, start: int, source: np.ndarray, other: Stages, limits: Mapping[str, Limit]) -> _Walk:
    """Computes part by part, until a stage departs."""
    parts = chain(model.config)
    before = {last_stage(part.name) for part in parts[:start]}
    first = max((number + 1 for number, stage in enumerate(limits) if stage in before), default=0)
    stages = _Checked(other, limits, first)
    at, value = start, source
    for number, part in enumerate(parts[start:], start):
        try:
            value = compute(part.name, value, params_of(part.name, model.params), model.config, stages)
        except _DepartsError:
            break
        if last_stage(part.name) in limits:
            at, source = number + 1, value
        stages.clear()
    return _Walk(stages.agreed, at, source)
