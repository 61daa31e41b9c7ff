"""`python -m bench forward`: the four models for one clip, 32x224², float32 and bfloat16, on this machine's device.

Beside vivit's own forward, in the same run: the baseline of plain einsums (vivit/baseline.py, jitted) and, where torch
and transformers are installed, Hugging Face's ViViT with the same weights (model 1). Every result is first compared
with the float64 reference on the same clip and weights. Clip and weights are random: times do not depend on the values.
"""

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.progress import track

import vivit
from bench import peers
from bench.harness import Measurement, in_turns, machine, measure, parser, report
from bench.workloads import DTYPES, SUFFIXES
from vivit import baseline
from vivit.accuracy import compare, depth_of
from vivit.audit import random_params, rounded
from vivit.commands.chosen import add_json
from vivit.commands.outputs import check_json
from vivit.commands.shown import console
from vivit.commands.table import Table
from vivit.reference import models as reference
from vivit.reference.config import Config, named
from vivit.reference.params import Params

PEER_LIMIT = {"float32": 1e-4, "bfloat16": 1e-1}  # of the largest logit; beyond it a peer does not do the same work


class Key(NamedTuple):
    """One row of the table."""

    model: str
    dtype: str
    implementation: str


def main(arguments: Sequence[str]) -> int:
    asked = parser("forward", __doc__, "--models fe --rounds 1")
    asked.add_argument("--size", default="vivit-b/16x2", help="a named variant without suffix (default: vivit-b/16x2)")
    asked.add_argument("--models", nargs="*", default=SUFFIXES, metavar="SUFFIX", help="of them, such as '' fe fdp")
    asked.add_argument("--runs", type=int, default=3, help="calls in each process (default: 3)")
    asked.add_argument("--rounds", type=int, default=2, help="processes for each row, in turns (default: 2)")
    add_json(asked)
    asked.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)  # MODEL DTYPE IMPLEMENTATION FOLDER
    options = asked.parse_args(arguments)
    if options.worker:
        *key, folder = options.worker
        print(json.dumps(_work(Key(*key), Path(folder), options.runs)))
        return 0
    check_json(options)
    suffixes = (f"-{suffix.lstrip('-')}" if suffix else "" for suffix in options.models)
    configs = {options.size + suffix: named(options.size + suffix) for suffix in suffixes}
    keys = [
        Key(name, dtype, implementation)
        for name, config in configs.items()
        for dtype in DTYPES
        for implementation in _CALLS
        if implementation != "hugging face" or _has_peer(config)
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in track(configs, description="reference", console=console(stderr=True), transient=True):
            _expect(name, Path(folder))
        program = ("-m", "bench", "forward", "--runs", str(options.runs), "--worker")
        results = in_turns({key: (*program, *key, folder) for key in keys}, options.rounds)
    rows = [{**key._asdict(), "result": row} for key, row in results.items()]
    report([_table(results, options)], [MEANING, machine()], options, {"machine": machine(), "rows": rows})
    return 1 if any(isinstance(row, str) for row in results.values()) else 0


def _has_peer(config: Config) -> bool:
    installed = all(importlib.util.find_spec(package) for package in ("torch", "transformers"))
    return installed and config.model == "spatio_temporal"


def _clip(config: Config) -> np.ndarray:
    """Float pixels in −1…1, exact in bfloat16: [1 frames height width 3]."""
    shape = (1, config.frames, config.height, config.width, 3)
    return rounded(np.random.default_rng(1).uniform(-1, 1, shape))


def _expect(name: str, folder: Path) -> None:
    """Writes the reference's logits, and the plain formulation's in both dtypes, which make the bound."""
    config = named(name)
    params, clip = random_params(config), _clip(config)
    results = {"reference": reference.forward(params, clip, config)}
    for dtype in DTYPES:
        results[dtype] = np.asarray(baseline.forward(params, clip, config, dtype=dtype))
    for result, logits in results.items():
        np.save(_expected(folder, name, result), logits)


def _expected(folder: Path, name: str, result: str) -> Path:
    return folder / f"{name.replace('/', '_')}.{result}.npy"


def _work(key: Key, folder: Path, runs: int) -> Measurement:
    """One implementation in this process: builds it, compares it with the reference, measures it."""
    config = named(key.model)
    expected, yardstick = (np.load(_expected(folder, key.model, result)) for result in ("reference", key.dtype))

    def check(logits: Any) -> float:
        comparison = compare(logits, yardstick, expected, key.dtype, depth=depth_of(config))
        if key.implementation == "hugging face":
            passed = comparison.error <= PEER_LIMIT[key.dtype] * np.abs(expected).max()
        else:
            passed = comparison.passed
        if not passed:
            raise ValueError(f"{', '.join(key)}: {comparison}")
        return comparison.error

    return measure(_CALLS[key.implementation](random_params(config), _clip(config), config, key.dtype), check, runs)


def _ours(params: Params, clip: np.ndarray, config: Config, dtype: str) -> Callable[[], Any]:
    params, pixels = jax.device_put((params, clip))
    return lambda: jax.block_until_ready(vivit.forward(params, pixels, config, dtype=dtype))


def _plain(params: Params, clip: np.ndarray, config: Config, dtype: str) -> Callable[[], Any]:
    params, pixels = jax.device_put((params, clip))
    jitted = jax.jit(lambda params, pixels: baseline.forward(params, pixels, config, dtype=dtype))
    return lambda: jax.block_until_ready(jitted(params, pixels))


_Build = Callable[[Params, np.ndarray, Config, str], Callable[[], Any]]
_CALLS: dict[str, _Build] = {"vivit": _ours, "plain": _plain, "hugging face": peers.hugging_face}


MEANING = "error: largest difference of the logits from the float64 reference, checked before timing."


def _table(results: dict[Key, Measurement | str], options: argparse.Namespace) -> Table:
    calls = f"{options.rounds} process(es) of {options.runs} calls each, taking turns"
    figures = ("seconds", "CPU seconds", "peak MB", "first call s", "error", "time ÷ vivit's")
    rows: list[tuple[str, ...]] = []
    for key, row in results.items():
        if isinstance(row, str):
            rows.append((*key, row))
            continue
        ours = results[key._replace(implementation="vivit")]
        rows.append(
            (
                *key,
                f"{row['seconds']:.3g}",
                f"{row['cpu_seconds']:.3g}",
                f"{row['peak_megabytes']:,.0f}",
                f"{row['first_seconds']:.3g}",
                f"{row['error']:.1e}",
                "-" if isinstance(ours, str) else f"{row['seconds'] / ours['seconds']:.2f}",
            )
        )
    return Table((*Key._fields, *figures), rows, texts=3, title=f"One clip, batch 1: medians over {calls}")
