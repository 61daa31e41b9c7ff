"""`python -m bench device`: checks every kernel on the attached TPU, times it, and sets it beside its schedule.

First the kernels, compiled, against the float64 reference (bench/device_checks.py). Then cores, layers, forward and
training step of the four models beside the plain graph and JAX's splash attention (bench/device_programs.py): their
first clip against the reference, milliseconds, and cycles measured ÷ scheduled (bench/compiler.py, ahead of time, in
other processes). Writes FOLDER/device.json and FOLDER/device.md. Where there is no TPU all of this runs on small sizes,
with kernels in Pallas's interpreter, to show that it works.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout
from rich.progress import track

from bench import device_checks, device_predictions, device_programs
from bench.chips import CHIPS, Chip, chip_of
from bench.device_checks import Check, Verdict
from bench.device_programs import OURS, kind_of, title
from bench.harness import machine, markdown, parser, product_dtype
from bench.schedule import Job, one_line
from vivit.audit.bound import compare
from vivit.cli import outputs
from vivit.cli.console import console, say, show
from vivit.cli.table import Table
from vivit.files.atomic import check_folder, write_text

ENOUGH = 0.1  # seconds of calls between two looks at the clock: dispatching them is hidden behind the device's work
ROUNDS = 5
GRADIENT_LIMIT = (
    0.1  # ‖g − g_plain‖ / ‖g_plain‖ of a model: both round in bfloat16, and the oracle has no such gradient
)
NO_TIME = "not run: the time was up"


class Timing(NamedTuple):
    """A program that ran."""

    milliseconds: float  # median over ROUNDS
    fastest: float
    slowest: float
    temporary_megabytes: float
    error: float | None  # largest of the first clip's; of a model's gradient relative to the plain one's, if that ran
    passed: bool


class Session(NamedTuple):
    """What is the same for everything that runs."""

    small: bool
    interpreted: bool
    chip: Chip
    end: float  # of time.monotonic()

    @property
    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())

    @property
    def compiler_options(self) -> dict[str, Any]:
        """XLA's, for programs of interpreted kernels, whose time nobody reads: compiled quickly rather than well."""
        if not self.interpreted:
            return {}
        return {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def main(arguments: Sequence[str]) -> int:
    asked = parser("device", __doc__, "-o report/")
    asked.add_argument("-o", "--output", type=outputs.path, metavar="FOLDER", help="for device.json and device.md")
    asked.add_argument("--minutes", type=float, default=14, help="what is not done by then is left out (default: 14)")
    asked.add_argument(
        "--only", nargs="+", default=(), metavar="TEXT", help="checks and programs whose names contain one of these"
    )
    asked.add_argument("--small", action="store_true", help="small sizes, as where there is no TPU")
    asked.add_argument(
        "--chip", choices=CHIPS, default="v5e", help="whose schedule, where the device is none of them (default: v5e)"
    )
    asked.add_argument("--predict", nargs=2, help=argparse.SUPPRESS)  # CHIP FOLDER
    options = asked.parse_args(arguments)
    if options.predict:
        return device_predictions.answer(*options.predict, small=options.small)
    if options.output is None:
        asked.error("-o is missing: it must be a folder for the report")
    if not options.minutes > 0:
        asked.error(f"--minutes is {options.minutes}: it must be positive")
    check_folder(options.output)
    device = jax.devices()[0]
    interpreted = device.platform != "tpu"
    session = Session(
        options.small or interpreted,
        interpreted,
        chip_of(device.device_kind) or CHIPS[options.chip],
        time.monotonic() + 60 * options.minutes,
    )
    jobs = device_programs.jobs(session.chip.name, options.only)
    if not jobs:
        asked.error(f"no program's name contains {' or '.join(options.only)}")
    cores = os.cpu_count() or 1
    with (
        device_predictions.predictions(jobs, small=session.small, at_once=max(1, cores // 2)) as scheduled,
        ThreadPoolExecutor(max(1, cores // 4)) as pool,
    ):
        try:
            verdicts = _check(options.only, session, pool)
            timings = _time(jobs, session, pool)
            schedules = scheduled(session.left)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return _report(verdicts, timings, schedules, session, options.output)


def _check(only: Sequence[str], session: Session, pool: ThreadPoolExecutor) -> list[Verdict | str]:
    """Every check's verdict, or a line that tells why there is none. only: as --only."""

    def compiled(check: Check) -> tuple[Any, Any]:
        with jax.default_matmul_precision(check.precision or "default"):
            lowered = [jax.jit(one).lower(*check.arguments) for one in (check.kernels, check.plain)]
            return lowered[0].compile(session.compiler_options), lowered[1].compile(session.compiler_options)

    found: list[Verdict | str] = []
    every = device_checks.checks(small=session.small, interpret=session.interpreted)
    checks = [check for check in every if not only or any(text in f"{check.what}, {check.dtype}" for text in only)]
    for check, programs in _in_order("checked", [(check, pool.submit(compiled, check)) for check in checks]):
        try:
            found.append(device_checks.judge(check, *programs.result(session.left)))
        except NotInTime:
            found.append(f"{check.what}, {check.dtype}: {NO_TIME}")
        except Exception as error:  # a kernel that does not compile or run is a result
            found.append(f"{check.what}, {check.dtype}: {one_line(error)}")
    return found


def _time(jobs: Sequence[Job], session: Session, pool: ThreadPoolExecutor) -> dict[Job, Timing | str]:
    """What every program took, or a line that tells why it did not run."""

    def compiled(job: Job) -> Any:
        function, arguments = device_programs.program(
            job, jax.ShapeDtypeStruct, small=session.small, interpret=session.interpreted
        )
        options: dict[str, Any] = {}
        if job.layout == "auto":
            preferred = Format(Layout.AUTO, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
            options = {"in_shardings": preferred, "out_shardings": preferred}
        return jax.jit(function, **options).lower(*arguments).compile(session.compiler_options)

    found: dict[Job, Timing | str] = {}
    plain: dict[tuple, list[np.ndarray]] = {}
    for job, program in _in_order("timed", [(job, pool.submit(compiled, job)) for job in jobs]):
        try:
            found[job] = _timing(job, program.result(session.left), plain, session)
        except NotInTime:
            found[job] = NO_TIME
        except Exception as error:  # out of memory, for instance
            found[job] = one_line(error)
    return found


def _in_order(verb: str, futures: Sequence[tuple[Any, Future]]) -> Iterator[tuple[Any, Future]]:
    return iter(track(futures, description=verb, console=console(stderr=True), transient=True))


def _timing(job: Job, program: Any, plain: dict[tuple, list[np.ndarray]], session: Session) -> Timing:
    """Runs a compiled program: compares, then times. plain: results to compare with, where it is the plain one kept."""
    wanted = device_programs.program(job, jax.ShapeDtypeStruct, small=session.small)[1]
    given = device_programs.values(job, small=session.small)
    given = jax.tree.map(lambda value, leaf: jnp.asarray(value, leaf.dtype), given, wanted)
    given = jax.device_put(given, program.input_formats[0])

    def call() -> Any:
        return program(*given)

    error, passed = _compare(job, call(), plain, session)
    seconds = rounds(call, 1 if session.interpreted else ROUNDS)
    return Timing(
        1e3 * median(seconds),
        1e3 * min(seconds),
        1e3 * max(seconds),
        program.memory_analysis().temp_size_in_bytes / 1e6,
        error,
        passed,
    )


def rounds(call: Callable[[], Any], times: int) -> list[float]:
    """Seconds of a call, so many times: as many in a row as take ENOUGH together, of which the last is waited for."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    count = min(max(round(ENOUGH / (time.perf_counter() - start)), 1), 100)
    found = []
    for _ in range(times):
        start = time.perf_counter()
        for _ in range(count - 1):
            call()
        jax.block_until_ready(call())
        found.append((time.perf_counter() - start) / count)
    return found


def _compare(
    job: Job, results: Any, plain: dict[tuple, list[np.ndarray]], session: Session
) -> tuple[float | None, bool]:
    """(largest error, whether it is in its bound, or under the cap where the plain one did not run): of ours alone."""
    same = (kind_of(job), *job[1:3], job.direction)
    expected = device_programs.expected(job, small=session.small)
    if not expected:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(results)]
        if job.implementation in OURS and same not in plain:
            return None, True
        yardstick = plain.setdefault(same, leaves)
        error = _norm(a - b for a, b in zip(leaves, yardstick, strict=True)) / _norm(yardstick)
        return error, error <= GRADIENT_LIMIT
    picked = device_programs.compared(job, results)
    yardstick = plain.setdefault(same, picked)
    comparisons = [
        compare(actual, base, one.values, product_dtype(job.dtype), depth=one.depth)
        for actual, base, one in zip(picked, yardstick, expected, strict=True)
    ]
    passed = job.implementation not in OURS or all(one.passed for one in comparisons)
    return max(one.error for one in comparisons), passed


def _norm(leaves: Any) -> float:
    return float(np.sqrt(sum(np.square(np.float64(leaf)).sum() for leaf in leaves)))


def _report(
    verdicts: list[Verdict | str],
    timings: dict[Job, Timing | str],
    schedules: dict[Job, dict | str],
    session: Session,
    folder: Path,
) -> int:
    tables = [
        _checks_table(verdicts),
        *(_timings_table(kind, timings, schedules, session) for kind in ("core", "layer", "model")),
    ]
    tables = [table for table in tables if table.rows]
    notes = _notes(session)
    rows = [
        {
            **job._asdict(),
            "timing": timing if isinstance(timing, str) else timing._asdict(),
            "schedule": schedules[job],
        }
        for job, timing in timings.items()
    ]
    values = {
        "machine": machine(),
        "chip": session.chip.name,
        "kernels": "interpreted" if session.interpreted else "compiled",
        "sizes": "small" if session.small else "ViViT-B/16x2",
        "notes": notes,
        "checks": [verdict if isinstance(verdict, str) else verdict._asdict() for verdict in verdicts],
        "rows": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "device.json", json.dumps(values, indent=1) + "\n")
    text = ["# Kernels and models on a device", *notes, *map(markdown, tables)]
    write_text(folder / "device.md", "\n\n".join(text))
    out = console()
    for table in tables:
        show(table, out)
    for note in (*notes, f"wrote {folder / 'device.json'} and {folder / 'device.md'}"):
        say(note, out)
    bad = [one for one in (*verdicts, *timings.values()) if not isinstance(one, str) and not one.passed]
    failed = [one for one in (*verdicts, *timings.values()) if isinstance(one, str) and not one.endswith(NO_TIME)]
    return 1 if bad or failed else 0


def _checks_table(verdicts: Sequence[Verdict | str]) -> Table:
    rows = [
        (one,)
        if isinstance(one, str)
        else (one.what, one.dtype, f"{one.error:.2g}", f"{one.bound:.2g}", "pass" if one.passed else "FAIL")
        for one in verdicts
    ]
    return Table(("kernels", "dtype", "error", "bound", ""), rows, texts=2, title="Against the float64 reference")


def _timings_table(
    kind: str, timings: dict[Job, Timing | str], schedules: dict[Job, dict | str], session: Session
) -> Table:
    columns = ("program", "ms", "Mcycles", "scheduled", "measured ÷ scheduled", "÷ plain", "of the matrix units")
    rows: list[tuple[str, ...]] = []
    for job, timing in timings.items():
        if kind_of(job) != kind:
            continue
        if isinstance(timing, str):
            rows.append((title(job), timing))
            continue
        schedule = schedules[job]
        cycles = timing.milliseconds * session.chip.gigahertz * 1e6
        plain = timings.get(job._replace(implementation=device_programs.KINDS[kind][0]))
        useful = device_programs.useful_multiply_adds(job, small=session.small)
        known = not session.interpreted
        rows.append(
            (
                title(job),
                f"{timing.milliseconds:.3g}",
                f"{cycles / 1e6:.3g}" if known else "",
                schedule if isinstance(schedule, str) else f"{schedule['cycles'] / 1e6:.3g}",
                f"{cycles / schedule['cycles']:.2f}" if known and isinstance(schedule, dict) else "",
                f"{timing.milliseconds / plain.milliseconds:.2f}" if isinstance(plain, Timing) else "",
                f"{useful / session.chip.multiply_adds_per_cycle / cycles:.0%}" if known else "",
                f"{timing.temporary_megabytes:.0f}",
                "not compared" if timing.error is None else f"{timing.error:.2g}",
                "pass" if timing.passed else "FAIL",
            )
        )
    heading = {"core": "Attention cores", "layer": "Attention layers", "model": "Models: forward, gradient of a step"}
    return Table((*columns, "temp MB", "error", ""), rows, texts=1, title=heading[kind])


def _notes(session: Session) -> list[str]:
    device = jax.devices()[0]
    notes = [machine()]
    if session.interpreted:
        notes.append(
            "No TPU here: kernels ran in Pallas's interpreter, on small sizes. The times say nothing about a TPU."
        )
    else:
        notes.append("The kernels were compiled for this device and ran on it.")
        if chip_of(device.device_kind) is None:
            notes.append(f"The schedules are those of a {session.chip.name}: there is none for {device.device_kind}.")
    sizes = "Small sizes." if session.small else "8 clips of ViViT-B/16x2 (model 1 and joint attention: fewer)."
    notes.append(
        f"{sizes} ms: median of {1 if session.interpreted else ROUNDS} rounds, calls in a row. "
        f"Mcycles: ms at {session.chip.gigahertz} GHz. "
        f"scheduled: the static schedule for a {session.chip.name} core, compiled ahead of time, not a timing. "
        "of the matrix units: multiply-adds that no formulation can avoid ÷ what the units could do in that time. "
        "error: of the first clip, against the float64 reference, in the bound that the plain formulation's error "
        "gives; of a model's gradient: its distance from the plain graph's, relative. Models: bfloat16 products, "
        "float32 parameters, no optimiser; our layers scanned, with the default remat."
    )
    return notes
