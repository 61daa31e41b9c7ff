"""The dossier of an audit: a folder that another person can check, on another machine, without trusting the first.

audit.json is an in-toto Statement: its subjects are weights, config, labels, preprocessing, video and pixels by their
SHA-256, its predicate is the report (report.py) with the digest of the installed files. index.html shows it to people.
clip.npz holds the clip. replay.py and replay.npz recompute one stage (replay.py). SHA256SUMS lists the digest of every
file, for `sha256sum -c` too; signature.json, if there is one, signs all of them (signing.py). No file names a folder of
the machine that it was made on.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vivit.audit import replay as replays
from vivit.audit.page import page
from vivit.audit.replay import Replay, arrays_of
from vivit.audit.report import without_folders
from vivit.audit.signing import SIGNATURE, sign, signature_fault
from vivit.checkpoints.files import read_npz
from vivit.files.atomic import atomic_dir
from vivit.files.json_files import Fields, read_object
from vivit.files.paths import is_file, is_folder
from vivit.hashes import hash_of_file
from vivit.reference.values import quoted
from vivit.versions import FOLDER

STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "urn:x-vivit:audit:2"
AUDIT, PAGE, CLIP, MANIFEST = "audit.json", "index.html", "clip.npz", "SHA256SUMS"
SCRIPT, NPZ = "replay.py", "replay.npz"
FILES = (AUDIT, PAGE, CLIP, SCRIPT, NPZ)
SUFFIXES = {".py", ".html", ".css", ".js", ".json", ".npz", ".mp4", ".md", ".safetensors", ".typed"}
LARGEST = 2**28  # bytes of audit.json


def write_dossier(
    path: str | Path, report: dict[str, Any], clip: np.ndarray, replay: Replay, private_key: str | Path | None = None
) -> None:
    """Writes a dossier, as a whole or not at all. path: a new folder, or an empty one.

    report: of report.checkpoint_report. clip: uint8[frames height width 3]. private_key: signs it.
    Raises ValueError if the folder is not free, or the key cannot be read.
    """
    predicate = without_folders(report) | {"installed": installed_hash()}
    subjects = [{"name": name, "digest": {"sha256": digest}} for name, digest in report["sha256"].items()]
    statement = {"_type": STATEMENT, "subject": subjects, "predicateType": PREDICATE, "predicate": predicate}
    with atomic_dir(path) as folder:
        _write(folder / AUDIT, json.dumps(statement, indent=1, ensure_ascii=False) + "\n")
        _write(folder / PAGE, page(predicate))
        np.savez_compressed(folder / CLIP, clip=clip)
        _write(folder / SCRIPT, Path(replays.__file__).read_text("utf-8"))
        np.savez_compressed(folder / NPZ, **arrays_of(replay))  # pyright: ignore[reportArgumentType]
        _write(folder / MANIFEST, "".join(f"{hash_of_file(folder / name)}  {name}\n" for name in FILES))
        if private_key is not None:
            sign(folder, private_key)


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "backslashreplace"))


def installed_hash(folder: Path = FOLDER) -> str:
    """SHA-256 of the package's files: of lines "digest  path", sorted by path. A wheel and a checkout give the same."""
    names = sorted(
        path.relative_to(folder).as_posix()
        for root, _, files in os.walk(folder, followlinks=True)
        for path in (Path(root) / file for file in files)
        if path.suffix in SUFFIXES or path.name == "py.typed"
    )
    lines = "".join(f"{hash_of_file(folder / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


class Dossier(NamedTuple):
    """What a dossier says. subjects: SHA-256 by name. predicate: the report. clip: uint8[frames height width 3]."""

    subjects: dict[str, str]
    predicate: Fields
    clip: np.ndarray


def changed_files(path: Path, public_key: str | Path | None = None) -> list[str]:
    """Returns a line for every file of a dossier that is not as its manifest, or its signature, says; [] if all are.

    Raises ValueError if it is no dossier, or the key cannot be read.
    """
    if not is_folder(path) or not is_file(path / MANIFEST):
        raise ValueError(f"{path} is no dossier: it must be a folder with {MANIFEST}")
    listed = {}
    for line in (path / MANIFEST).read_text("utf-8", "replace").splitlines():
        found = re.fullmatch(r"([0-9a-f]{64})  ([\w.]+)", line)
        if found is None or found[2] in listed:
            return [f"{MANIFEST} is changed: {quoted(line)} is no digest of a file"]
        listed[found[2]] = found[1]
    faults = []
    for name in (*FILES, *sorted(listed.keys() - set(FILES))):
        if name not in listed:
            faults.append(f"{MANIFEST} is changed: it lacks {name}")
        elif not is_file(path / name):
            faults.append(f"{name} is missing")
        elif hash_of_file(path / name) != listed[name]:
            faults.append(f"{name} is changed: it has not the digest of {MANIFEST}")
    known = {*listed, MANIFEST, SIGNATURE}
    faults += [f"{name} is no file of the dossier" for name in sorted(os.listdir(path)) if name not in known]
    if public_key is not None:
        if not is_file(path / SIGNATURE):
            faults.append(f"{SIGNATURE} is missing: the dossier is not signed")
        elif (fault := signature_fault(path, public_key)) is not None:
            faults.append(f"{SIGNATURE} is not of this key and these files: {fault}")
    return faults


def read_dossier(path: Path) -> Dossier:
    """Reads a dossier whose files are as its manifest says. Raises ValueError, naming the field, if it is no audit."""
    statement = read_object(path / AUDIT, LARGEST)
    statement.choice("_type", (STATEMENT,))
    statement.choice("predicateType", (PREDICATE,))
    subjects = statement.get("subject", "a list of names and digests", _are_subjects)
    clip = read_npz(path / CLIP).get("clip")
    if clip is None or clip.dtype != np.uint8 or clip.ndim != 4:
        raise ValueError(f"{path / CLIP} has no clip: it must have uint8[frames height width 3]")
    found = {one["name"]: one["digest"]["sha256"] for one in subjects}
    return Dossier(found, statement.object("predicate"), clip)


def _are_subjects(value: Any) -> bool:
    def fits(one: Any) -> bool:
        return isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("digest"), dict)

    return isinstance(value, list) and all(fits(one) and isinstance(one["digest"].get("sha256"), str) for one in value)
