"""`python -m bench attention`: checks the attention cores against the oracle, then times them on this device.

The workloads are those of `bench schedule`, or of one --shape, forward and forward + backward. Pallas kernels need a
TPU; on other devices --interpret runs them on small sizes to show that they work, and those times mean nothing. On a
TPU, the scheduled milliseconds are printed too. A CUDA GPU adds cuDNN's attention in bfloat16 (vivit/gpu_ops.py), and
--peers PyTorch's. qkv is random; times do not depend on its values. On a CPU every row has processes of its own; any
other device belongs to one process, which then runs all rows.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

from bench import peers, schedule, workloads
from bench.chips import chip_of
from bench.device_programs import core_values
from bench.formulations import core_of
from bench.harness import Measurement, in_turns, machine, measure, parser, product_dtype, report
from bench.schedule import DIRECTIONS
from bench.workloads import DTYPES, SMALL, WORKLOADS, Workload
from vivit.audit.bound import compare
from vivit.cli import outputs
from vivit.cli.arguments import add_json
from vivit.cli.console import console
from vivit.cli.outputs import check_json
from vivit.cli.table import Table
from vivit.files.atomic import check_folder
from vivit.reference.values import quoted


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
    asked.add_argument("--shape", type=_shape, metavar="B,T,S,C,H", help="clips, times, tokens a time, channels, heads")
    asked.add_argument("--trace", type=outputs.path, metavar="DIR", help="record one call of each row by jax.profiler")
    asked.add_argument("--quick", action="store_true", help="small sizes, one process each")
    asked.add_argument("--interpret", action="store_true", help="Pallas in interpret mode as well; implies --quick")
    asked.add_argument("--peers", action="store_true", help="PyTorch's scaled_dot_product_attention as well")
    asked.add_argument("--runs", type=int, default=3, help="calls in each process (default: 3)")
    asked.add_argument("--rounds", type=int, default=2, help="processes for each row, in turns (default: 2)")
    add_json(asked)
    asked.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)  # WORKLOAD DTYPE IMPLEMENTATION DIRECTION FOLDER
    options = asked.parse_args(arguments)
    for name in ("runs", "rounds"):
        if getattr(options, name) < 1:
            asked.error(f"--{name} is {getattr(options, name)}: it must be at least 1")
    check_json(options)
    if options.trace:
        check_folder(options.trace)
    options.quick |= options.interpret
    if options.worker:
        *key, folder = options.worker
        print(json.dumps(_work(Key(*key), Path(folder), options)))
        return 0
    keys = [
        Key(name, dtype, implementation, direction)
        for name in options.workload
        for dtype in options.dtype
        for implementation in _implementations(dtype, options)
        for direction in DIRECTIONS
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in track(options.workload, description="reference", console=console(stderr=True), transient=True):
            _expect(name, Path(folder), options)
        if jax.default_backend() == "cpu":
            flags = [flag for flag in ("--quick", "--interpret") if getattr(options, flag[2:])]
            flags += ["--shape", ",".join(map(str, options.shape))] if options.shape else []
            program = ("-m", "bench", "attention", *flags, "--runs", str(options.runs), "--worker")
            results = in_turns({key: (*program, *key, folder) for key in keys}, 1 if options.quick else options.rounds)
        else:
            results = {key: _work_here(key, Path(folder), options) for key in keys}
    if options.trace:
        _trace([key for key, row in results.items() if not isinstance(row, str)], options)
    rows = [{**key._asdict(), "result": row} for key, row in results.items()]
    report([_table(results, options)], _notes(options), options, {"machine": machine(), "rows": rows})
    return 1 if any(isinstance(row, str) for row in results.values()) else 0


def _implementations(dtype: str, options: argparse.Namespace) -> list[str]:
    device = jax.default_backend()
    names = ["pallas"] if options.interpret or device == "tpu" else []
    names += ["cudnn"] if device == "gpu" and dtype == "bfloat16" else []
    return [*names, "xla", "plain", *(["sdpa"] if options.peers else [])]


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    sizes = tuple(int(part) if part.isdecimal() else 0 for part in parts)
    if len(sizes) != 5 or not all(sizes) or sizes[3] % sizes[4]:
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is no shape: it must be B,T,S,C,H, five positive integers, C a multiple of H"
        )
    return sizes


def _workload(name: str, options: argparse.Namespace) -> Workload:
    if options.shape is None:
        return (SMALL if options.quick else WORKLOADS)[name]
    b, t, s, channels, heads = options.shape
    return Workload(variant=name, tokens=(b, t * s) if name == "joint" else (b, t, s), channels=channels, heads=heads)


def _expect(name: str, folder: Path, options: argparse.Namespace) -> None:
    """Writes output and gradient of the reference, and of the baseline, whose errors define the bound."""
    workload = _workload(name, options)
    qkv, cotangent = core_values(workload)
    np.save(folder / f"{name}.reference.out.npy", workloads.oracle(workload)(qkv.astype(np.float64)))
    gradient = workloads.oracle_gradient(workload)(qkv.astype(np.float64), cotangent.astype(np.float64))
    np.save(folder / f"{name}.reference.gradient.npy", gradient)
    for dtype in options.dtype:
        run = _program(workloads.plain_core(workload), qkv, cotangent, dtype, DIRECTIONS[1])
        for what, values in zip(("out", "gradient"), run(), strict=True):
            np.save(folder / f"{name}.{dtype}.{what}.npy", np.asarray(values.astype(jnp.float32)))


def _program(core: Callable, qkv: np.ndarray, cotangent: np.ndarray, dtype: str, direction: str) -> Callable[[], tuple]:
    """Returns a function that computes (out,) or (out, gradient) and waits for the result."""

    @jax.jit
    def run(qkv: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
        if direction == "forward":
            return (core(qkv),)
        out, vjp = jax.vjp(core, qkv)
        return out, *vjp(cotangent)

    inputs = jax.device_put((jnp.asarray(qkv, dtype), jnp.asarray(cotangent, dtype)))
    return lambda: jax.block_until_ready(run(*inputs))


def _call(key: Key, options: argparse.Namespace) -> Callable[[], tuple]:
    """A call of one implementation, as `_program` gives it."""
    workload = _workload(key.workload, options)
    if key.implementation == "sdpa":
        backward = key.direction != "forward"
        return peers.attention(workload.variant, *core_values(workload), workload.heads, key.dtype, backward=backward)
    core = core_of(key.implementation, workload, interpret=options.interpret)
    return _program(core, *core_values(workload), key.dtype, key.direction)


def _work_here(key: Key, folder: Path, options: argparse.Namespace) -> Measurement | str:
    """As `_work`; the line of a failure."""
    try:
        return _work(key, folder, options)
    except Exception as error:  # a kernel that does not compile is a result
        return schedule.one_line(error)


def _trace(keys: Sequence[Key], options: argparse.Namespace) -> None:
    """Records a call of each row, compiled before, for XProf, TensorBoard or Perfetto."""
    calls = {" ".join(key): _call(key, options) for key in keys}
    for call in calls.values():
        call()
    with jax.profiler.trace(str(options.trace)):
        for name, call in calls.items():
            with jax.profiler.TraceAnnotation(name):
                call()
    print(f"wrote {options.trace}", file=sys.stderr if options.json else sys.stdout)


def _work(key: Key, folder: Path, options: argparse.Namespace) -> Measurement:
    """One implementation in this process: compared with the reference, then measured."""

    def check(results: tuple[Any, ...]) -> float:
        errors = []
        if key.implementation == "sdpa":
            results = tuple(tensor.detach().float().cpu().numpy() for tensor in results)
        for depth, (what, actual) in enumerate(zip(("out", "gradient"), results, strict=False), 1):
            expected, yardstick = (
                np.load(folder / f"{key.workload}.{name}.{what}.npy") for name in ("reference", key.dtype)
            )
            comparison = compare(actual, yardstick, expected, product_dtype(key.dtype), depth=depth)
            same_work = comparison.error <= peers.limit(expected, product_dtype(key.dtype))
            if not (same_work if key.implementation == "sdpa" else comparison.passed):
                raise ValueError(f"{', '.join(key)}, {what}: {comparison}")
            errors.append(comparison.error)
        return max(errors)

    return measure(_call(key, options), check, options.runs)


def _scheduled(keys: Sequence[Key], options: argparse.Namespace) -> dict[Key, float]:
    """Returns the scheduled milliseconds if the attached TPU has schedules and the sizes are the same."""
    chip = chip_of(jax.devices()[0].device_kind)
    if jax.default_backend() != "tpu" or chip is None or options.quick or options.shape:
        return {}
    jobs = {
        key: schedule.Job(chip.name, key.dtype, key.workload, f"core {key.implementation}", key.direction)
        for key in keys
    }
    results, _ = schedule.run(list(jobs.values()), 1)
    found = {key: results[job] for key, job in jobs.items()}
    return {key: chip.milliseconds(row["cycles"]) for key, row in found.items() if isinstance(row, dict)}


def _table(results: dict[Key, Measurement | str], options: argparse.Namespace) -> Table:
    rounds = 1 if options.quick or jax.default_backend() != "cpu" else options.rounds
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
    if jax.default_backend() == "cpu":
        notes.append(
            "No TPU here: xla and plain are XLA's formulations; the kernels' cycles are in `python -m bench schedule`."
        )
    if options.interpret:
        notes.append("pallas ran in interpret mode: its times say nothing about a TPU.")
    return notes
