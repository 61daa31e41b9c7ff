"""The whole audit of a checkpoint: production and kernels against the reference, another implementation, the replay."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vivit.audit import checkpoint as production
from vivit.audit.against import STEPS as OTHER_STEPS
from vivit.audit.against import OtherAudit, audit_against
from vivit.audit.checkpoint import CheckpointAudit, audit_checkpoint
from vivit.audit.faults import Positions
from vivit.audit.others import Other, stages_of
from vivit.audit.pixel_causes import ClipSource
from vivit.audit.replay import PIXELS, Replay, Scaling, replay_of
from vivit.model_data import ModelData
from vivit.pretrained import Model
from vivit.video.container import Limits

STEPS = production.STEPS + OTHER_STEPS + 1  # number of calls of complete_audit's `progress`, at most


@dataclass(frozen=True, kw_only=True)
class Against:
    """Which other implementation is audited. what: as others.stages_of takes it. checkpoint: its folder, file or name.

    video: what the clip is read from, within `limits`. original: the model before it was resized, if it was.
    """

    what: str
    checkpoint: str | Path
    video: str | Path
    limits: Limits
    original: ModelData | None = None


@dataclass(frozen=True, kw_only=True)
class CompleteAudit:
    """The results. replay: of the first stage of the other implementation that departs; or else of production's."""

    verdict: CheckpointAudit
    other: OtherAudit | None
    replay: Replay


def complete_audit(
    model: Model,
    clip: np.ndarray,
    *,
    against: Against | None = None,
    kernels: bool = False,
    progress: Callable[[str], object] = lambda what: None,
) -> CompleteAudit:
    """Audits a checkpoint on one clip. progress: called with the next step's name.

    clip: uint8[frames height width 3], what the model reads of a video. kernels: as audit_checkpoint's.
    Raises ValueError as audit_checkpoint and stages_of do.
    """
    other = audited = None
    if against is not None:
        source = ClipSource(model=model, video=against.video, limits=against.limits)
        progress(f"running {against.what}")
        other = stages_of(against.what, against.checkpoint, source)
        audited = audit_against(source, clip, other, positions=_original_positions(against), progress=progress)
    verdict = audit_checkpoint(model, clip, kernels=kernels, progress=progress)
    return CompleteAudit(verdict=verdict, other=audited, replay=_replay(model, clip, verdict, other, audited))


def _original_positions(against: Against) -> Positions | None:
    original = against.original
    if original is None or original.params.encoder.positions is None:
        return None
    grid = original.config.grid if original.config.model != "factorised_encoder" else (1, *original.config.grid[1:])
    return Positions(np.asarray(original.params.encoder.positions, np.float64), grid)


def _replay(
    model: Model, clip: np.ndarray, verdict: CheckpointAudit, other: Other | None, audited: OtherAudit | None
) -> Replay:
    video = np.asarray(model.preprocessing.normalise(clip[np.newaxis]))
    if other is not None and audited is not None and audited.departures:
        row = audited.departures[-1]
        actual = other.stages[row.stage]
        if row.stage == PIXELS:
            one = model.preprocessing
            scaling = Scaling(*map(np.asarray, (one.rescale, one.offset, one.mean, one.std)))
            source = clip[np.newaxis]
            return Replay(PIXELS, PIXELS, other.name, row.bound, model.config, scaling, source, actual)
        theirs = other.stages.get(PIXELS)
        if theirs is not None and theirs.shape == video.shape:
            video = theirs.astype(np.float32)
        stage, who, bound = row.stage, other.name, row.bound
    else:
        stage, actual, bound, _ = verdict.nearest
        who = "production"
    return replay_of(stage, actual, who, bound, video=video, params=model.params, config=model.config)
