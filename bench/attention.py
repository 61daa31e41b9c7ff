"""`python -m bench attention`: the attention cores timed on the attached device, checked against the oracle first.

The workloads are those of `bench schedule`; forward, and forward + backward. Pallas kernels run on a TPU only;
elsewhere --interpret runs them slowly on small sizes, to see that they work: those times mean nothing. With a TPU
attached the scheduled milliseconds stand beside the measured ones. qkv is random: times do not depend on it.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

from bench import schedule, workloads
from bench.chips import CHIPS
from bench.harness import Measurement, in_turns, machine, measure, parser, report
from bench.schedule import DIRECTIONS
from bench.workloads import DTYPES, SMALL, WORKLOADS, Workload
from vivit.accuracy import compare
from vivit.audit import rounded
from vivit.commands.chosen import add_json
from vivit.commands.outputs import check_json
from vivit.commands.shown import console
from vivit.commands.table import Table


class Key(NamedTuple):
    """One row of the table."""

    workload: str
    dtype: str
    implementation: str
    direction: str


def main(arguments: Sequence[str]) -> int:
    asked = parser("attention", __doc__, "--workload spatial --quick")
    asked.add_argument("--workload", nargs="+", default=list(WORKLOADS), choices=WORKLOADS, metavar="NAME")
    asked.add_argument("--dtype", nargs="+", default=DTYPES, choices=DTYPES, metavar="NAME")
    asked.add_argument("--quick", action="store_true", help="small sizes, one process each")
    asked.add_argument("--interpret", action="store_true", help="Pallas in interpret mode as well; implies --quick")
    asked.add_argument("--runs", type=int, default=3, help="calls in each process (default: 3)")
    asked.add_argument("--rounds", type=int, default=2, help="processes for each row, in turns (default: 2)")
    add_json(asked)
    asked.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)  # WORKLOAD DTYPE IMPLEMENTATION DIRECTION FOLDER
    options = asked.parse_args(arguments)
    for name in ("runs", "rounds"):
        if getattr(options, name) < 1:
            asked.error(f"--{name} is {getattr(options, name)}: it must be at least 1")
    check_json(options)
    options.quick |= options.interpret
    if options.worker:
        *key, folder = options.worker
        print(json.dumps(_work(Key(*key), Path(folder), options)))
        return 0
    implementations = ["xla", "plain"]
    if options.interpret or jax.default_backend() == "tpu":
        if workloads.pallas_core(WORKLOADS["spatial"]) is None:
            asked.error("there are no Pallas kernels in vivit.kernels.attention")
        implementations.insert(0, "pallas")
    keys = [
        Key(name, dtype, implementation, direction)
        for name in options.workload
        for dtype in options.dtype
        for implementation in implementations
        for direction in DIRECTIONS
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in track(options.workload, description="reference", console=console(stderr=True), transient=True):
            _expect(name, Path(folder), options)
        flags = [flag for flag in ("--quick", "--interpret") if getattr(options, flag[2:])]
        program = ("-m", "bench", "attention", *flags, "--runs", str(options.runs), "--worker")
        results = in_turns({key: (*program, *key, folder) for key in keys}, 1 if options.quick else options.rounds)
    rows = [{**key._asdict(), "result": row} for key, row in results.items()]
    report([_table(results, options)], _notes(options), options, {"machine": machine(), "rows": rows})
    return 1 if any(isinstance(row, str) for row in results.values()) else 0


def _workload(name: str, options: argparse.Namespace) -> Workload:
    return (SMALL if options.quick else WORKLOADS)[name]


def _inputs(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """(qkv, cotangent of out), float32, exact in bfloat16."""
    generator = np.random.default_rng(1)
    shapes = ((*workload.tokens, 3 * workload.channels), (*workload.tokens, workload.channels))
    qkv, cotangent = (rounded(generator.standard_normal(shape, np.float32)) for shape in shapes)
    return qkv, cotangent


def _expect(name: str, folder: Path, options: argparse.Namespace) -> None:
    """Writes the reference's out and gradient, and those of the plain formulation, which make the bound."""
    workload = _workload(name, options)
    qkv, cotangent = _inputs(workload)
    np.save(folder / f"{name}.reference.out.npy", workloads.oracle(workload)(qkv.astype(np.float64)))
    gradient = workloads.oracle_gradient(workload)(qkv.astype(np.float64), cotangent.astype(np.float64))
    np.save(folder / f"{name}.reference.gradient.npy", gradient)
    for dtype in options.dtype:
        run = _program(workloads.plain_core(workload), qkv, cotangent, dtype, DIRECTIONS[1])
        for what, values in zip(("out", "gradient"), run(), strict=True):
            np.save(folder / f"{name}.{dtype}.{what}.npy", np.asarray(values.astype(jnp.float32)))


def _program(core: Callable, qkv: np.ndarray, cotangent: np.ndarray, dtype: str, direction: str) -> Callable[[], tuple]:
    """A call that gives (out,) or (out, gradient), and waits for it."""

    @jax.jit
    def run(qkv: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
        if direction == "forward":
            return (core(qkv),)
        out, vjp = jax.vjp(core, qkv)
        return out, *vjp(cotangent)

    inputs = jax.device_put((jnp.asarray(qkv, dtype), jnp.asarray(cotangent, dtype)))
    return lambda: jax.block_until_ready(run(*inputs))


def _work(key: Key, folder: Path, options: argparse.Namespace) -> Measurement:
    """One implementation in this process: compared with the reference, then measured."""
    workload = _workload(key.workload, options)
    cores = {
        "pallas": lambda: workloads.pallas_core(workload, interpret=options.interpret),
        "xla": lambda: workloads.xla_core(workload),
        "plain": lambda: workloads.plain_core(workload),
    }
    core = cores[key.implementation]()
    if core is None:
        raise ValueError(f"there is no Pallas kernel {workload.variant}")

    def check(results: tuple[Any, ...]) -> float:
        errors = []
        for depth, (what, actual) in enumerate(zip(("out", "gradient"), results, strict=False), 1):
            expected, yardstick = (
                np.load(folder / f"{key.workload}.{name}.{what}.npy") for name in ("reference", key.dtype)
            )
            comparison = compare(actual, yardstick, expected, key.dtype, depth=depth)
            if not comparison.passed:
                raise ValueError(f"{', '.join(key)}, {what}: {comparison}")
            errors.append(comparison.error)
        return max(errors)

    return measure(_program(core, *_inputs(workload), key.dtype, key.direction), check, options.runs)


def _scheduled(keys: Sequence[Key], options: argparse.Namespace) -> dict[Key, float]:
    """Scheduled milliseconds, where a TPU that can be scheduled for is attached and the sizes are the same."""
    kind = jax.devices()[0].device_kind.lower()
    names = {"v3": "v3", "v4": "v4", "v5 lite": "v5e", "v5e": "v5e", "v6 lite": "v6e", "v6e": "v6e"}
    chip = next((name for word, name in names.items() if word in kind), None)
    if jax.default_backend() != "tpu" or chip is None or options.quick:
        return {}
    jobs = {
        key: schedule.Job(chip, key.dtype, key.workload, f"core {key.implementation}", key.direction) for key in keys
    }
    results, _ = schedule.run(list(jobs.values()), 1)
    found = {key: results[job] for key, job in jobs.items()}
    return {key: CHIPS[chip].milliseconds(row["cycles"]) for key, row in found.items() if isinstance(row, dict)}


def _table(results: dict[Key, Measurement | str], options: argparse.Namespace) -> Table:
    rounds = 1 if options.quick else options.rounds
    title = f"Attention cores: medians over {rounds} process(es) of {options.runs} calls, taking turns"
    columns = (*Key._fields, "ms", "GFLOP/s", "peak MB", "error", "÷ plain", "scheduled ms")
    rows: list[tuple[str, ...]] = []
    scheduled = _scheduled(list(results), options)
    for key, row in results.items():
        if isinstance(row, str):
            rows.append((*key, row))
            continue
        operations = 2 * _workload(key.workload, options).core_multiply_adds * (1 if key.direction == "forward" else 3)
        plain = results.get(key._replace(implementation="plain"))
        rows.append(
            (
                *key,
                f"{1e3 * row['seconds']:.2f}",
                f"{operations / row['seconds'] / 1e9:.0f}",
                f"{row['peak_megabytes']:.0f}",
                f"{row['error']:.2g}",
                f"{row['seconds'] / plain['seconds']:.2f}" if isinstance(plain, dict) else "",
                f"{scheduled[key]:.2f}" if key in scheduled else "",
            )
        )
    return Table(columns, rows, texts=len(Key._fields), title=title)


def _notes(options: argparse.Namespace) -> list[str]:
    notes = [machine()]
    if jax.default_backend() != "tpu":
        notes.append(
            "No TPU here: xla and plain are XLA's formulations; the kernels' cycles are in `python -m bench schedule`."
        )
    if options.interpret:
        notes.append("pallas ran in interpret mode: its times say nothing about a TPU.")
    return notes
