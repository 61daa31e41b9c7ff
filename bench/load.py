"""`python -m bench load`: seconds and peak memory to load a checkpoint, next to reading its file and plain safetensors.

The file is in the system's page cache. Resident pages of a mapped file count as the process's memory, although the
system can drop them. Loading without a second copy therefore has a peak of one file size, and reading into memory too.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file

import vivit
from bench.harness import in_turns, machine, measure, parser, report
from vivit.audit.variants import random_params
from vivit.cli.table import Table
from vivit.reference.config import named
from vivit.reference.params import leaves

SAMPLES = 64  # numbers of each leaf that are compared


def main(arguments: Sequence[str]) -> int:
    asked = parser("load", __doc__, "--name vivit-b/16x2")
    asked.add_argument("--name", default="vivit-l/16x2-fe", help="a named variant (default: vivit-l/16x2-fe)")
    asked.add_argument("--runs", type=int, default=3, help="calls in each process (default: 3)")
    asked.add_argument("--rounds", type=int, default=2, help="processes for each row, in turns (default: 2)")
    asked.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)  # READER FOLDER
    options = asked.parse_args(arguments)
    if options.worker:
        reader, folder = options.worker
        print(json.dumps(measure(lambda: READERS[reader](Path(folder)), _check(Path(folder)), options.runs)))
        return 0
    config = named(options.name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkpoint"
        model = vivit.Model(config=config, params=random_params(config))
        vivit.save(model, folder)
        np.savez(Path(temporary) / "samples", allow_pickle=False, **_samples(dict(leaves(model.params))))
        size = (folder / "model.safetensors").stat().st_size / 1e6
        program = ("-m", "bench", "load", "--runs", str(options.runs), "--worker")
        results = in_turns({reader: (*program, reader, str(folder)) for reader in READERS}, options.rounds)
    columns = ("what", "seconds", "CPU seconds", "peak MB", "peak ÷ file", "GB/s")
    rows: list[tuple[str, ...]] = []
    for reader, row in results.items():
        if isinstance(row, str):
            rows.append((reader, row))
            continue
        figures = f"{row['seconds']:.3f}", f"{row['cpu_seconds']:.3f}", f"{row['peak_megabytes']:,.0f}"
        ratios = f"{row['peak_megabytes'] / size:.2f}", f"{size / 1e3 / row['seconds']:.2f}"
        rows.append((reader, *figures, *ratios))
    title = f"Loading {options.name}, a file of {size:,.0f} MB: medians"
    report([Table(columns, rows, title=title)], [machine()], options)
    return 1 if any(isinstance(row, str) for row in results.values()) else 0


def _bytes(folder: Path) -> dict[str, Any]:
    """Reads the whole file into memory: the limit of any loader."""
    (folder / "model.safetensors").read_bytes()
    return {}


def _safetensors(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


def _safetensors_to_jax(folder: Path) -> dict[str, Any]:
    return jax.block_until_ready(jax.device_put(load_file(folder / "model.safetensors")))


def _vivit(folder: Path) -> dict[str, Any]:
    return dict(leaves(jax.block_until_ready(vivit.load(folder).params)))


READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "read_bytes": _bytes,
    "safetensors load_file": _safetensors,
    "safetensors load_file, device_put": _safetensors_to_jax,
    "vivit.load (checked, ready for JAX)": _vivit,
}


def _samples(arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf).ravel()[:: max(1, leaf.size // SAMPLES)] for path, leaf in arrays.items()}


def _check(folder: Path) -> Callable[[dict[str, Any]], float]:
    """Compares samples of every leaf with the saved values. Raises an error if one differs."""

    def check(arrays: dict[str, Any]) -> float:
        with np.load(folder.parent / "samples.npz") as wanted:
            if arrays and not all(np.array_equal(wanted[path], found) for path, found in _samples(arrays).items()):
                raise ValueError("what was loaded is not what was saved")
        return 0.0

    return check
