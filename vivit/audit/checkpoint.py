"""Audits one checkpoint on one clip: compares every stage of production with the float64 reference.

Every stage that forward captures has one row in float32 and one in bfloat16, in the order of computation, with the
bound of bound.py. The logits come from a normal forward, through the kernels on a TPU. The stages before them are
computed by XLA, because kernels do not return attention weights. Stages that would take gigabytes, such as attention
weights of long clips, are not stored; the next stage, which is computed from them, is compared instead.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vivit import jitted, models
from vivit.audit import baseline
from vivit.audit.bound import compare, depth_of
from vivit.audit.variants import DTYPES, LARGEST_STAGE
from vivit.backend import backend
from vivit.ops import Op
from vivit.pretrained import Model
from vivit.reference import models as reference
from vivit.reference.config import Config
from vivit.reference.params import Params

LOGITS = "logits"
STEPS = 1 + 3 * len(DTYPES)  # number of calls of audit_checkpoint's `progress`, at most
PRODUCTION, KERNELS = "production", "kernels"
CAPTURING = ("joint", "spatial", "temporal", "factorised_dot_product", "residual_dense", "residual_mlp")


@dataclass(frozen=True, kw_only=True)
class StageComparison:
    """The comparison of one stage in one dtype. worst: the largest difference and its index; "" if the stage passed.

    by: what computed it: "production", "kernels" (the Pallas kernels alone), or another implementation's name.
    """

    by: str = "production"
    dtype: str
    stage: str
    shape: tuple[int, ...]
    error: float
    bound: float
    passed: bool
    worst: str


class NearestStage(NamedTuple):
    """A stage of production in float32: what it computed, and what part of its bound the error is (NaN: infinity)."""

    stage: str
    actual: np.ndarray
    bound: float
    part: float


class Prediction(NamedTuple):
    """The class with the largest logit of one head. label: None if the checkpoint has no labels."""

    number: int
    label: str | None
    logit: float


@dataclass(frozen=True, kw_only=True)
class HeadComparison:
    """The predicted class of one head: the reference's, and production's by dtype.

    lead: the reference's largest logit minus its second largest; None for a head with one class.
    """

    head: int
    reference: Prediction
    lead: float | None
    production: dict[str, Prediction]

    @property
    def agrees(self) -> bool:
        """Whether production predicts the reference's class in every dtype."""
        return all(best.number == self.reference.number for best in self.production.values())


@dataclass(frozen=True, kw_only=True)
class CheckpointAudit:
    """The result of an audit.

    rows: stages in order, the logits last in each dtype. decisions: one per head. covered: stages that were not
    compared, each with the stage that is compared instead. nearest: the stage that fails first, or else is
    nearest to its bound, of production in float32.
    """

    rows: tuple[StageComparison, ...]
    decisions: tuple[HeadComparison, ...]
    covered: dict[str, str]
    nearest: "NearestStage"

    @property
    def passed(self) -> bool:
        """Whether every row passes and every head agrees."""
        return all(row.passed for row in self.rows) and all(decision.agrees for decision in self.decisions)

    @property
    def first_failures(self) -> tuple[StageComparison, ...]:
        """The first row of each dtype that does not pass."""
        first = {(row.by, row.dtype): row for row in reversed(self.rows) if not row.passed}
        return tuple(reversed(first.values()))


def audit_checkpoint(
    model: Model, clip: np.ndarray, *, kernels: bool = False, progress: Callable[[str], object] = lambda what: None
) -> CheckpointAudit:
    """Compares every stage of one clip. progress: called with the next step's name, STEPS times.

    clip: uint8[frames height width 3], of the model's size. The reference gets the same preprocessed pixels. kernels:
    compare also the stages that the Pallas kernels give (interpreted, where there is no TPU): all but the attention
    weights and the branches, which never leave a kernel.
    Raises ValueError if the clip does not fit.
    """
    config = model.config
    video = np.asarray(model.preprocessed(clip[np.newaxis]))
    params = jax.tree.map(jnp.asarray, model.params)
    names, covered = compared_stages(config)
    progress("the float64 reference")
    expected: dict[str, np.ndarray] = SelectedStages(names)
    reference.forward(jax.tree.map(np.asarray, model.params), video, config, capture=expected)
    rows: list[StageComparison] = []
    logits: dict[str, np.ndarray] = {}
    nearest: list[NearestStage] = []
    for dtype in DTYPES:
        progress(f"production, {dtype}")
        inner = tuple(name for name in names if name != LOGITS)
        stages = jitted.stages(params, video, config=config, names=inner, dtype=dtype)
        stages[LOGITS] = jitted.logits(params, video, config=config, dtype=dtype)
        logits[dtype] = np.asarray(stages[LOGITS], np.float64)[0]
        computed = {PRODUCTION: stages}
        if kernels:
            progress(f"the kernels, {dtype}")
            computed[KERNELS] = kernel_stages(params, video, config=config, names=names, dtype=dtype)
        progress(f"the baseline, {dtype}")
        row = partial(_rows, dtype, config, computed, expected, nearest if dtype == DTYPES[0] else [], {})
        compared = ComparedStages(row, names)
        baseline.forward(params, video, config, dtype=dtype, capture=compared)
        of_stages = [compared[name] for name in names]  # KeyError if a stage was not captured
        rows += [row[by] for by in computed for row in of_stages if by in row]
    decisions = _decisions(model, expected[LOGITS][0], logits) if config.classes else ()
    return CheckpointAudit(
        rows=tuple(rows), decisions=decisions, covered=covered, nearest=max(nearest, key=lambda stage: stage.part)
    )


@partial(jax.jit, static_argnames=("config", "names", "dtype"))
def kernel_stages(
    params: Params, video: np.ndarray, *, config: Config, names: tuple[str, ...], dtype: str
) -> dict[str, jax.Array]:
    """Returns those of the named stages that the Pallas kernels give, interpreted where there is no TPU."""
    captured: dict[str, jax.Array] = {}
    ops = backend("pallas")
    ops = ops._replace(**{name: _without_capture(getattr(ops, name)) for name in CAPTURING})
    models.forward(params, video, config, dtype=dtype, attention=ops, capture=captured)
    return {name: captured[name] for name in names if name in captured}


def _without_capture(op: Op) -> Op:
    """An operation that is not told of `capture`, nor of the name of what it would record."""
    return lambda *arguments, capture=None, name="", **options: op(*arguments, **options)


def compared_stages(config: Config) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the names of the stages to compare, in order, and for each other stage the next one that is compared."""
    shapes = jitted.stage_shapes(config)
    names = tuple(name for name, shape in shapes.items() if math.prod(shape) <= LARGEST_STAGE)
    order = list(shapes)
    covered = {
        name: next(later for later in order[index:] if later in names)
        for index, name in enumerate(order)
        if name not in names
    }
    return names, covered


def averaged_stages(config: Config) -> dict[str, str]:
    """Returns the stages that are means over tokens, each with the stage of these tokens."""
    means, last = {}, "encoder/norm"
    if config.model == "factorised_encoder":
        if config.pooling == "mean":
            means["frames"] = last
        last = "temporal_encoder/norm" if config.temporal_layers else "frames"
    if config.pooling == "mean" or last == "frames":
        means["features"] = last
        if config.representation is None:
            means["prelogits"] = last
    return means


class SelectedStages(dict):
    """A capture dict that stores only the named stages."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = frozenset(names)

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self.names:
            super().__setitem__(name, value)


class ComparedStages(SelectedStages):
    """A capture dict that replaces each stage by its comparison, so that memory holds one baseline stage at a time."""

    def __init__(self, row: Callable[[str, Any], Any], names: tuple[str, ...]) -> None:
        super().__init__(names)
        self.row = row

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self.names:
            super().__setitem__(name, self.row(name, value))


def _rows(
    dtype: str,
    config: Config,
    computed: dict[str, dict[str, Any]],
    expected: dict[str, np.ndarray],
    nearest: list[NearestStage],
    errors: dict[str, float],
    stage: str,
    baseline: Any,
) -> dict[str, StageComparison]:
    """Compares one stage, of whatever computed it. Keeps production's in `nearest` if it is nearer to its bound.

    errors: of the baseline, by stage, those before this one; a mean over tokens has at least the error of the tokens.
    """
    rows = {}
    least_error = errors.get(averaged_stages(config).get(stage, ""), 0.0)
    for by, stages in computed.items():
        if stage not in stages:
            continue
        actual = np.asarray(stages.pop(stage))
        comparison = compare(actual, baseline, expected[stage], dtype, depth=depth_of(config), least_error=least_error)
        errors[stage] = max(comparison.baseline_error, least_error)
        rows[by] = StageComparison(
            by=by,
            dtype=dtype,
            stage=stage,
            shape=expected[stage].shape,
            error=comparison.error,
            bound=comparison.bound,
            passed=comparison.passed,
            worst="" if comparison.passed else str(comparison),
        )
        part = comparison.error / comparison.bound if comparison.passed else math.inf
        if by == PRODUCTION and (not nearest or part > nearest[0].part):
            nearest[:] = [NearestStage(stage, actual, comparison.bound, part)]
    return rows


def _decisions(model: Model, expected: np.ndarray, logits: dict[str, np.ndarray]) -> tuple[HeadComparison, ...]:
    ends = np.cumsum(model.config.classes)
    decisions = []
    for head, (end, count) in enumerate(zip(ends, model.config.classes, strict=True)):
        own = slice(end - count, end)
        names = None if model.labels is None else model.labels[head]
        ranked = np.sort(expected[own])[::-1]
        decisions.append(
            HeadComparison(
                head=head,
                reference=_prediction(expected[own], names),
                lead=float(ranked[0] - ranked[1]) if count > 1 else None,
                production={dtype: _prediction(values[own], names) for dtype, values in logits.items()},
            )
        )
    return tuple(decisions)


def _prediction(logits: np.ndarray, names: tuple[str, ...] | None) -> Prediction:
    number = int(np.argmax(logits))
    return Prediction(number, None if names is None else names[number], float(logits[number]))
