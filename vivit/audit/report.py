"""The report of an audit, as JSON: what was compared, with what, and how it ended."""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vivit.audit.against import OtherAudit
from vivit.audit.checkpoint import CheckpointAudit, HeadComparison
from vivit.audit.variants import VariantComparison
from vivit.hashes import HASHED, hash_of_file, hash_of_json, hash_of_params, hash_of_pixels
from vivit.model_data import ModelData
from vivit.reference.params import parameters
from vivit.versions import source, versions

FORMAT, VERSION = "vivit audit of a checkpoint", 2


def variants_report(rows: Sequence[VariantComparison], video: str | Path, clip: np.ndarray) -> dict[str, Any]:
    """The report of an audit of every variant. clip: uint8[frames height width 3]."""
    hashes = {"video": hash_of_file(video), "pixels": hash_of_pixels(clip)}
    return {
        "video": str(video),
        "sha256": hashes,
        "hashed": {name: HASHED[name] for name in hashes},
        "vivit": source(),
        "passed": all(row.passed for row in rows),
        "rows": [null_if_not_finite(asdict(row)) for row in rows],
    }


def checkpoint_report(
    verdict: CheckpointAudit,
    other: OtherAudit | None,
    *,
    model: ModelData,
    checkpoint: str,
    video: str | Path,
    clip: np.ndarray,
    seconds: float,
) -> dict[str, Any]:
    """The report of an audit of one checkpoint. clip: uint8[frames height width 3]."""
    recorded = recorded_fields(model)
    hashes = {"video": hash_of_file(video), **model_hashes(model), "pixels": hash_of_pixels(clip)}
    return {
        "format": FORMAT,
        "version": VERSION,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "passed": verdict.passed and (other is None or other.passed),
        "checkpoint": checkpoint,
        "weights": {"sha256": hashes["weights"], "parameters": parameters(model.config)},
        **recorded,
        "video": str(video),
        "clip": {
            "shape": clip.shape,
            "start": 0,
            "stride": model.preprocessing.stride,
            "sha256": hashes["pixels"],
        },
        "sha256": hashes,
        "hashed": HASHED,
        "vivit": source(),
        "software": versions(),
        **environment(),
        "rows": [null_if_not_finite(asdict(row)) for row in verdict.rows],
        "covered": verdict.covered,
        "decisions": [_decision(decision) for decision in verdict.decisions],
        "against": None if other is None else _other(other),
        "seconds": round(seconds, 1),
    }


def recorded_fields(model: ModelData) -> dict[str, Any]:
    """Config, labels and preprocessing, as they are hashed."""
    return {
        "config": asdict(model.config.canonical),
        "labels": model.labels,
        "preprocessing": asdict(model.preprocessing),
    }


def model_hashes(model: ModelData) -> dict[str, str]:
    """SHA-256 of weights, config, labels and preprocessing, as HASHED says."""
    recorded = {name: hash_of_json(value) for name, value in recorded_fields(model).items()}
    return {"weights": hash_of_params(model.params), **recorded}


def environment() -> dict[str, Any]:
    """Device, options of JAX that change numbers, and how the Pallas kernels ran."""
    device = jax.devices()[0]
    return {
        "device": {"platform": device.platform, "kind": device.device_kind},
        "jax": {name: jax.config.values[name] for name in ("jax_default_matmul_precision", "jax_enable_x64")},
        "kernels": "compiled" if device.platform == "tpu" else "interpreted: there is no TPU here",
        "seeds": {},  # nothing is drawn at random
    }


def without_folders(report: dict[str, Any]) -> dict[str, Any]:
    """A report with the last names of its paths in place of the paths, which are of no use on another machine."""
    names = {key: Path(os.path.realpath(report[key])).name for key in ("checkpoint", "video")}
    return report | names


def null_if_not_finite(values: dict[str, Any]) -> dict[str, Any]:
    """Replaces numbers that are not finite, which JSON lacks, by None."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _decision(decision: HeadComparison) -> dict[str, Any]:
    return {
        "head": decision.head,
        "agrees": decision.agrees,
        "lead": decision.lead,
        "reference": decision.reference._asdict(),
        "production": {dtype: null_if_not_finite(best._asdict()) for dtype, best in decision.production.items()},
    }


def _other(other: OtherAudit) -> dict[str, Any]:
    return {
        "name": other.name,
        "passed": other.passed,
        "rows": [null_if_not_finite(asdict(row)) for row in other.rows],
        "not_given": list(other.not_given),
        "departs": [row.stage for row in other.departures],
        "pixel_cause": other.pixel_cause,
        "causes": [cause._asdict() for cause in other.causes],
    }
