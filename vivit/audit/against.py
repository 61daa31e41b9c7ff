"""Compares another implementation with the reference, from the pixels on: what departs first, by how much, and why.

The pixels are a stage of their own. The model's stages are then computed from the other implementation's own pixels, if
it gave them, so that a mistake in the preprocessing does not hide one in the model. Every stage must be within SLACK
times the bound that production has in float32 (bound.py): other libraries sum in another order. Pixels may differ by
rounding; where frames are resized, by the two of 255 levels by which our resizing may differ from Pillow's
(vivit/video/scale.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vivit.audit import baseline
from vivit.audit.bound import compare, depth_of, floor
from vivit.audit.causes import Cause, Limit, causes
from vivit.audit.checkpoint import ComparedStages, SelectedStages, StageComparison, compared_stages
from vivit.audit.faults import Faulty, Positions
from vivit.audit.others import Other
from vivit.audit.pixel_causes import ClipSource, pixel_cause, scaled
from vivit.audit.replay import PIXELS
from vivit.reference import models as reference
from vivit.reference.params import convert

DTYPE = "float32"
SLACK = 2.0
LEVELS = 2  # of 255, by which a resized frame may differ
STEPS = 3  # number of calls of audit_against's `progress`


@dataclass(frozen=True, kw_only=True)
class OtherAudit:
    """The result. rows: the stages that the other implementation gave, in order. not_given: the others.

    pixel_cause: why the pixels depart; None if they do not, or nobody knows. causes: why the model departs.
    """

    name: str
    rows: tuple[StageComparison, ...]
    not_given: tuple[str, ...]
    pixel_cause: str | None
    causes: tuple[Cause, ...]

    @property
    def passed(self) -> bool:
        """Whether every stage is within its bound."""
        return all(row.passed for row in self.rows)

    @property
    def departures(self) -> tuple[StageComparison, ...]:
        """The pixels, if they depart, and the first stage of the model that departs."""
        failed = [row for row in self.rows if not row.passed]
        pixels = [row for row in failed if row.stage == PIXELS]
        return (*pixels, *[row for row in failed if row.stage != PIXELS][:1])


class _Compared(NamedTuple):
    row: StageComparison
    limit: Limit


def audit_against(
    source: ClipSource,
    clip: np.ndarray,
    other: Other,
    *,
    positions: Positions | None = None,
    progress: Callable[[str], object] = lambda what: None,
) -> OtherAudit:
    """Compares the stages of another implementation. progress: called with the next step's name, STEPS times.

    clip: uint8[frames height width 3], what our own reader makes of the frames. positions: the checkpoint's learned
    positions, if they were resized to the model's size.
    """
    model = source.model
    progress(f"the pixels of {other.name}")
    expected = scaled(model.preprocessing, clip[np.newaxis].astype(np.float64))
    rows, why = [], None
    if PIXELS in other.stages:
        row = _pixels_row(source, other.stages[PIXELS], expected)
        rows.append(row)
        if not row.passed and other.stages[PIXELS].shape == expected.shape:
            why = pixel_cause(source, other.stages[PIXELS], row.bound)
    given = other.stages.get(PIXELS)
    video = given if given is not None and given.shape == expected.shape else expected
    progress("the reference, on these pixels")
    compared = _compare(source, video.astype(np.float32), other)
    rows += [one.row for one in compared.values()]
    progress("the cause")
    found: tuple[Cause, ...] = ()
    if not all(one.row.passed for one in compared.values()):
        params = convert(model.params, lambda _, leaf: np.asarray(leaf, np.float64))
        sound = Faulty(params, model.config, video.astype(np.float32).astype(np.float64))
        found = causes(sound, other.stages, {name: one.limit for name, one in compared.items()}, positions)
    names, _ = compared_stages(model.config)
    return OtherAudit(
        name=other.name,
        rows=tuple(rows),
        not_given=tuple(name for name in (PIXELS, *names) if name not in other.stages),
        pixel_cause=why,
        causes=found,
    )


def _pixels_row(source: ClipSource, actual: np.ndarray, expected: np.ndarray) -> StageComparison:
    own = source.model.preprocessing
    bound = 2 * floor(expected, DTYPE)
    if source.is_resized():
        bound += LEVELS * abs(own.rescale) / min(map(abs, own.std))
    return _row(PIXELS, actual, expected, bound)


def _compare(source: ClipSource, video: np.ndarray, other: Other) -> dict[str, _Compared]:
    """Compares the stages of the model that the other implementation gave."""
    model = source.model
    names = tuple(name for name in compared_stages(model.config)[0] if name in other.stages)
    expected: dict[str, np.ndarray] = SelectedStages(names)
    reference.forward(jax.tree.map(np.asarray, model.params), video, model.config, capture=expected)
    params = jax.tree.map(jnp.asarray, model.params)

    def compared(name: str, plain: jax.Array) -> _Compared:
        bound = SLACK * compare(plain, plain, expected[name], DTYPE, depth=depth_of(model.config)).bound
        row = _row(name, other.stages[name], expected[name], bound)
        return _Compared(row, Limit(bound, float(np.abs(expected[name]).max())))

    found = ComparedStages(compared, names)
    baseline.forward(params, video, model.config, dtype=DTYPE, capture=found)
    return {name: found[name] for name in names}


def _row(stage: str, actual: np.ndarray, expected: np.ndarray, bound: float) -> StageComparison:
    """One stage of the other implementation. Its error is NaN if it has another shape."""
    error, worst = float("nan"), f"shape {actual.shape}: it must be {expected.shape}"
    if actual.shape == expected.shape:
        wrong = np.abs(actual - expected)
        place = np.unravel_index(np.argmax(wrong), wrong.shape)
        error = float(wrong[place])
        index = [int(i) for i in place]
        worst = f"error {error:.3g} exceeds bound {bound:.3g}: at {index} {float(actual[place])!r}, "
        worst += f"the reference has {float(expected[place])!r}"
    passed = error <= bound  # False for NaN
    return StageComparison(
        dtype=DTYPE,
        stage=stage,
        shape=actual.shape,
        error=error,
        bound=bound,
        passed=passed,
        worst="" if passed else worst,
    )
