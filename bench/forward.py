"""`python -m bench forward`: the four models for one clip, 32x224², float32 and bfloat16, on this machine's device.

Beside vivit's own forward, in the same run: the plain einsum formulation (vivit/plain.py, jitted) and, where torch and
transformers are installed, Hugging Face's ViViT with the same weights (model 1). Every result is first compared with the
float64 reference on the same clip and weights. What is compared is random: times do not depend on the values.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.harness import Measurement, in_turns, machine, measure
from vivit.reference.config import Config, named

SUFFIXES = ("", "-fe", "-fsa", "-fdp")
DTYPES = ("float32", "bfloat16")
PEER_LIMIT = {"float32": 1e-4, "bfloat16": 1e-1}  # of the largest logit; beyond it a peer does not do the same work


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench forward", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", default="vivit-b/16x2", help="a named variant without suffix (default: vivit-b/16x2)")
    parser.add_argument("--models", nargs="*", default=SUFFIXES, metavar="SUFFIX", help="of them, such as '' -fe")
    parser.add_argument("--runs", type=int, default=3, help="calls in each process (default: 3)")
    parser.add_argument("--rounds", type=int, default=2, help="processes for each row, in turns (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--worker", nargs=4, metavar=("WHO", "NAME", "DTYPE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        print(json.dumps(_work(*options.worker, runs=options.runs)))
        return 0
    names = [options.size + suffix for suffix in options.models]
    for name in names:
        named(name)
    with tempfile.TemporaryDirectory() as folder:
        for name in track(names, description="reference", console=Console(stderr=True), transient=True):
            _expect(name, Path(folder))
        commands = {}
        for name in names:
            for dtype in DTYPES:
                for who in ("vivit", "plain", *(["hugging face"] if _has_peer(name) else [])):
                    worker = [
                        "-m",
                        "bench",
                        "forward",
                        "--runs",
                        str(options.runs),
                        "--worker",
                        who,
                        name,
                        dtype,
                        folder,
                    ]
                    commands[f"{name}|{dtype}|{who}"] = worker
        results = in_turns(commands, options.rounds)
    _show(results, options)
    if options.json:
        rows = [
            dict(zip(("model", "dtype", "who"), key.split("|"), strict=True), result=row)
            for key, row in results.items()
        ]
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return 1 if any(isinstance(row, str) for row in results.values()) else 0


def _has_peer(name: str) -> bool:
    installed = all(importlib.util.find_spec(package) for package in ("torch", "transformers"))
    return installed and named(name).model == "spatio_temporal"


def _clip(config: Config) -> np.ndarray:
    """Float pixels in −1…1, exact in bfloat16: [1 frames height width 3]."""
    from vivit.audit import rounded

    shape = (1, config.frames, config.height, config.width, 3)
    return rounded(np.random.default_rng(1).uniform(-1, 1, shape))


def _expect(name: str, folder: Path) -> None:
    """Writes the reference's logits, and the plain formulation's in both dtypes, which make the bound."""
    from vivit import plain
    from vivit.audit import random_params
    from vivit.reference import models

    config = named(name)
    params, clip = random_params(config), _clip(config)
    expected = {"reference": models.forward(params, clip, config)}
    expected |= {dtype: np.asarray(plain.forward(params, clip, config, dtype=dtype)) for dtype in DTYPES}
    np.savez(folder / f"{name.replace('/', '_')}.npz", **expected)


def _work(who: str, name: str, dtype: str, folder: str, *, runs: int) -> Measurement:
    """One implementation in this process: builds it, compares it with the reference, measures it."""
    from vivit.accuracy import compare
    from vivit.audit import random_params

    config = named(name)
    with np.load(Path(folder) / f"{name.replace('/', '_')}.npz") as file:
        expected, yardstick = file["reference"], file[dtype]
    call = _CALLS[who](random_params(config), _clip(config), config, dtype)

    def check(logits: Any) -> float:
        comparison = compare(logits, yardstick, expected, dtype)
        if who == "hugging face":
            if comparison.error > PEER_LIMIT[dtype] * np.abs(expected).max():
                raise ValueError(f"{who}, {name}, {dtype} does something else: {comparison}")
        elif not comparison.passed:
            raise ValueError(f"{who}, {name}, {dtype}: {comparison}")
        return comparison.error

    return measure(call, check, runs)


def _ours(params, clip, config: Config, dtype: str) -> Callable[[], Any]:
    import jax

    import vivit

    on_device = jax.device_put((params, clip))
    return lambda: jax.block_until_ready(vivit.forward(*on_device, config, dtype=dtype))


def _plain(params, clip, config: Config, dtype: str) -> Callable[[], Any]:
    import jax

    from vivit import plain

    on_device = jax.device_put((params, clip))
    jitted = jax.jit(partial(plain.forward, config=config, dtype=dtype))
    return lambda: jax.block_until_ready(jitted(*on_device))


def _hugging_face(params, clip, config: Config, dtype: str) -> Callable[[], Any]:
    from bench.peers import hugging_face

    return hugging_face(params, clip, config, dtype)


_CALLS = {"vivit": _ours, "plain": _plain, "hugging face": _hugging_face}


def _show(results: dict[str, Measurement | str], options: argparse.Namespace) -> None:
    calls = f"{options.rounds} processes of {options.runs} calls each, taking turns"
    table = Table(title=f"One clip, batch 1: medians over {calls}")
    for name in ("model", "dtype", "implementation"):
        table.add_column(name, no_wrap=True)
    for name in ("seconds", "CPU seconds", "peak MB", "first call s", "error", "time ÷ vivit's"):
        table.add_column(name, justify="right", no_wrap=True)
    for key, row in results.items():
        name, dtype, who = key.split("|")
        ours = results[f"{name}|{dtype}|vivit"]
        if isinstance(row, str):
            table.add_row(name, dtype, who, row)
            continue
        table.add_row(
            name,
            dtype,
            who,
            f"{row['seconds']:.2f}",
            f"{row['cpu_seconds']:.2f}",
            f"{row['peak_megabytes']:,.0f}",
            f"{row['first_seconds']:.2f}",
            f"{row['error']:.1e}",
            "-" if isinstance(ours, str) else f"{row['seconds'] / ours['seconds']:.2f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    console.print("error: largest difference of the logits from the float64 reference, checked before timing.")
    console.print(machine(), markup=False)
