"""Verifies a dossier: its files by their digests, its figures by computing them again.

A dossier is refuted by a file that is changed, by other weights, config, labels, preprocessing or clip, and by a stage
whose error here is beyond the recorded bound, or within it where the dossier says that it fails. Another version of the
software and another device are said; they refute nothing.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from vivit.audit.against import OtherAudit
from vivit.audit.checkpoint import KERNELS, CheckpointAudit
from vivit.audit.complete import Against, complete_audit
from vivit.audit.dossier import SIGNATURE, Dossier, changed_files, installed_hash, read_dossier
from vivit.audit.report import environment, model_hashes
from vivit.files.json_files import Fields
from vivit.files.paths import is_file
from vivit.hashes import hash_of_file, hash_of_pixels
from vivit.pretrained import Model
from vivit.reference.values import shortened
from vivit.versions import source, versions


class Verification(NamedTuple):
    """The result. faults: what refutes the dossier, [] if nothing does. notes: what may differ. checked: in words."""

    faults: list[str]
    notes: list[str]
    checked: str


def verify(
    path: Path,
    load: Callable[[], Model],
    *,
    public_key: str | Path | None = None,
    video: str | Path | None = None,
    against: Against | None = None,
    progress: Callable[[str], object] = lambda what: None,
) -> Verification:
    """Verifies a dossier. Files are checked first; nothing else is read of a dossier whose files are changed.

    load: loads the checkpoint. public_key: the dossier must be signed with its private key. video: the video is checked
    too; None: the clip of the dossier is used. against: runs the other implementation again; it needs the video.
    Raises ValueError if the folder is no dossier, or the checkpoint, the key or the video cannot be read.
    """
    progress("the files")
    if faults := changed_files(path, public_key):
        return Verification(faults, [], "")
    dossier, model = read_dossier(path), load()
    clip, digests = dossier.clip, model_hashes(model) | {"pixels": hash_of_pixels(dossier.clip)}
    if video is not None:
        clip = model.read(video)
        digests |= {"video": hash_of_file(video), "pixels": hash_of_pixels(clip)}
    notes = version_notes(dossier)
    if public_key is None and is_file(path / SIGNATURE):
        notes.append(f"{SIGNATURE} was not checked: pass --public-key")
    if faults := subject_faults(dossier, digests):
        return Verification(faults, notes, "")
    audit = complete_audit(model, clip, against=against, kernels=recorded_kernels(dossier), progress=progress)
    faults = verify_stages(dossier, audit.verdict)
    recorded = dossier.predicate.values.get("against")
    if audit.other is not None:
        faults += _other_faults(recorded, audit.other)
    elif recorded is not None:
        notes.append("the other implementation was not run again: pass --against and the video")
    return Verification(faults, notes, f"the digests of all files, and {len(audit.verdict.rows)} stages")


def _other_faults(recorded: Any, other: OtherAudit) -> list[str]:
    """Lines for what another implementation does otherwise than the dossier says."""
    said = recorded.get("departs") if isinstance(recorded, dict) else None
    here = [row.stage for row in other.departures]
    if said == here:
        return []
    return [f"{other.name} departs at {', '.join(here) or 'no stage'}: the dossier has {shortened(str(said))}"]


def subject_faults(dossier: Dossier, digests: dict[str, str]) -> list[str]:
    """Returns a line for every subject that has another digest here. digests: SHA-256 by the subject's name."""
    faults = []
    for name, digest in digests.items():
        recorded = dossier.subjects.get(name)
        if recorded != digest:
            recorded = "none" if recorded is None else recorded
            faults.append(f"other {name}: SHA-256 is {digest}, the dossier has {recorded}")
    return faults


def verify_stages(dossier: Dossier, verdict: CheckpointAudit) -> list[str]:
    """Returns a line for every recomputed figure that does not bear out what the dossier says.

    An error must lie within the recorded bound where the dossier says that the stage passes, and beyond it where not.
    """
    recorded = {key: row for row in _recorded_rows(dossier.predicate) for key in [_key(row)]}
    rows = {(row.by, row.dtype, row.stage): row for row in verdict.rows}
    faults = [f"{_named(key)} is in the dossier, and no stage here" for key in recorded if key not in rows]
    for key, row in rows.items():
        said = recorded.get(key)
        if said is None:
            faults.append(f"{_named(key)} is a stage here, and not in the dossier")
            continue
        bound = said.number("bound")
        within = row.error <= bound  # False for NaN
        if said.flag("passed") != within:
            relation = "within" if within else "beyond"
            faults.append(f"{_named(key)}: error {row.error:.3g} is {relation} the recorded bound {bound:.3g}")
    passed = not any(not said.flag("passed") for said in recorded.values())
    if dossier.predicate.flag("passed") and not passed:
        faults.append("the verdict is that all passes: some of its stages do not")
    classes = [one["reference"]["number"] for one in dossier.predicate.get("decisions", "a list", _are_decisions)]
    if classes != [one.reference.number for one in verdict.decisions]:
        faults.append(
            f"the classes are {[one.reference.number for one in verdict.decisions]}, the dossier has {classes}"
        )
    return faults


def version_notes(dossier: Dossier) -> list[str]:
    """Returns a line for each part of the software and the device that is another here than in the dossier."""
    here = {"vivit": source(), "installed": installed_hash(), "software": versions(), **environment()}
    notes = []
    for name, value in here.items():
        recorded = dossier.predicate.values.get(name)
        if recorded == json.loads(json.dumps(value)):
            continue
        if isinstance(value, dict) and isinstance(recorded, dict):
            notes += [
                f"another {name} {key}: {shortened(str(one))}, the dossier has {shortened(str(recorded.get(key)))}"
                for key, one in value.items()
                if one != recorded.get(key)
            ]
        else:
            notes.append(f"other {name}: {shortened(str(value))}, the dossier has {shortened(str(recorded))}")
    return notes


def recorded_kernels(dossier: Dossier) -> bool:
    """Whether the dossier has stages of the Pallas kernels."""
    return any(row.values.get("by") == KERNELS for row in _recorded_rows(dossier.predicate))


def _recorded_rows(predicate: Fields) -> list[Fields]:
    rows = predicate.get("rows", "a list of JSON objects", lambda value: isinstance(value, list) and bool(value))
    return [Fields(row if isinstance(row, dict) else {}, f"{predicate.source}: rows") for row in rows]


def _key(row: Fields) -> tuple[str, str, str]:
    return row.text("by"), row.text("dtype"), row.text("stage")


def _named(key: tuple[str, str, str]) -> str:
    by, dtype, stage = key
    return f"{stage} of {by}, {dtype},"


def _are_decisions(value: Any) -> bool:
    def fits(one: Any) -> bool:
        return isinstance(one, dict) and isinstance(one.get("reference"), dict) and "number" in one["reference"]

    return isinstance(value, list) and all(map(fits, value))
