"""`python -m bench schedule`: cycles of the attention cores and layers, as scheduled by a TPU's compiler.

For every chip, dtype and workload, forward and forward + backward: our kernels, XLA on our formulation and on the
baseline, and JAX's Pallas flash and splash attention. With --model: the forward and a training step of the four models
(bench/model_schedule.py). Nothing runs, so nothing is compared with the oracle here; tests and `python -m bench
attention` do that. The reading of the compiler's dump is checked first.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import groupby, product
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from bench.chips import CHIPS, environment
from bench.harness import parser, report
from bench.remaining import remaining
from vivit.cli.arguments import add_json
from vivit.cli.outputs import check_json

IMPLEMENTATIONS = (
    "core pallas",
    "core xla",
    "core plain",
    "core flash",
    "core splash",
    "layer ours",
    "layer plain",
)
DIRECTIONS = ("forward", "forward+backward")
WORKLOADS = ("spatial", "temporal", "factorised_dot_product", "joint")  # as workloads.py, which would import JAX
DTYPES = ("float32", "bfloat16")
SECONDS = {"core": 5, "layer": 15, "model": 60}  # of a forward
MODELS = {"1": "", "2": "-fe", "3": "-fsa", "4": "-fdp"}


class Job(NamedTuple):
    """One program to compile."""

    chip: str
    dtype: str
    workload: str  # or the suffix of a model
    implementation: str
    direction: str
    layout: str = "default"  # of arguments and results: XLA's, or "auto", what the program prefers


def main(arguments: Sequence[str]) -> int:
    asked = parser("schedule", __doc__, "--chip v5e --workload spatial --only pallas")
    asked.add_argument("--chip", nargs="+", default=["v3"], choices=CHIPS, metavar="NAME", help=", ".join(CHIPS))
    asked.add_argument("--workload", nargs="+", default=WORKLOADS, choices=WORKLOADS, metavar="NAME")
    asked.add_argument("--dtype", nargs="+", default=DTYPES, choices=DTYPES, metavar="NAME")
    asked.add_argument("--only", nargs="+", metavar="TEXT", help="implementations whose names contain one of these")
    asked.add_argument(
        "--layout", choices=("default", "auto"), help="of arguments and results (default: auto for cores, else default)"
    )
    asked.add_argument("--forward", action="store_true", help="leave out forward + backward")
    asked.add_argument(
        "--model", nargs="*", choices=MODELS, metavar="NUMBER", help="whole models 1 to 4 in bfloat16 instead"
    )
    asked.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at a time (default: cores)")
    add_json(asked)
    asked.add_argument("--plot", type=Path, metavar="FOLDER", help="draw roofline or models there, as PNG")
    asked.add_argument("--worker", nargs=2, metavar=("CHIP", "FOLDER"), help=argparse.SUPPRESS)
    options = asked.parse_args(arguments)
    if options.worker:
        return _work(*options.worker)
    check_json(options)
    if options.jobs < 1:
        asked.error(f"--jobs is {options.jobs}: it must be at least 1")
    missing = _missing("libtpu", *(["matplotlib"] if options.plot else []))
    if missing:
        asked.error(f"{missing} is not installed: pip install 'vivit[tpu,plot]'")
    jobs = list(_jobs(options))
    if not jobs:
        asked.error(f"no implementation's name contains {' or '.join(options.only)}")
    try:
        results, checks = run(jobs, options.jobs)
    except ValueError as error:
        print(f"python -m bench schedule: {error}", file=sys.stderr)
        return 1
    return _report(results, checks, options)


def _missing(*packages: str) -> str | None:
    import importlib.util

    return next((package for package in packages if importlib.util.find_spec(package) is None), None)


def _jobs(options: argparse.Namespace):
    directions = DIRECTIONS[:1] if options.forward else DIRECTIONS
    if options.model is not None:
        from bench import model_schedule

        models = [MODELS[number] for number in options.model or MODELS]
        pairs = (
            (chip, "bfloat16", model, implementation, direction)
            for chip, model, implementation in product(options.chip, models, model_schedule.IMPLEMENTATIONS)
            for direction in model_schedule.directions(implementation, directions)
        )
    else:
        pairs = product(options.chip, options.dtype, options.workload, IMPLEMENTATIONS, directions)
    for job in pairs:
        if not options.only or any(text in job[3] for text in options.only):
            chip, dtype, workload, implementation, direction = job
            preferred = "auto" if implementation.startswith("core") else "default"
            layout = preferred if options.layout is None or options.model is not None else options.layout
            yield Job(chip, dtype, workload, implementation, direction, layout)


def run(jobs: Sequence[Job], at_once: int) -> tuple[dict[Job, dict | str], list[str]]:
    """Schedules of all jobs, or one line each that tells why there is none; and what the checks found, chip by chip.

    Raises ValueError if the dump of a chip's compiler is not understood.
    """
    groups = [list(group) for _, group in groupby(jobs, key=lambda job: job[:3])]
    results: dict[Job, dict | str] = {}
    checks: dict[str, str] = {}
    seconds = {job: _seconds(job) for job in jobs}
    with (
        remaining("compiled", list(seconds.values()), min(at_once, len(groups))) as done,
        ThreadPoolExecutor(at_once) as pool,
    ):

        def found(job: Job, result: dict | str) -> None:
            results[job] = result
            done(seconds[job])

        for chip, check in pool.map(lambda group: _run_group(group, found), groups):
            checks[chip] = check
    return {job: results[job] for job in jobs}, list(checks.values())


def _seconds(job: Job) -> float:
    """Returns the initial estimate of seconds to compile one job on one core."""
    forward = next(
        seconds for name, seconds in SECONDS.items() if job.implementation.startswith(name) or name == "model"
    )
    return forward if job.direction == "forward" else 3 * forward


def _run_group(jobs: list[Job], found: Callable[[Job, dict | str], None]) -> tuple[str, str]:
    """Runs the jobs of one chip in a process, and starts a new one after a job that crashes the compiler."""
    chip, check = jobs[0].chip, ""
    while jobs:
        with tempfile.TemporaryDirectory() as folder:
            program = (sys.executable, "-m", "bench", "schedule", "--worker", chip, folder)
            process = subprocess.Popen(
                program, env=environment(Path(folder)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            stdin, stdout = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
            stdin.write(json.dumps(jobs))
            stdin.close()
            for line in stdout:
                message = json.loads(line)
                if "fault" in message:
                    raise ValueError(message["fault"])
                if "check" in message:
                    check = message["check"]
                else:
                    found(jobs.pop(0), message["schedule"])
            process.wait()
        if jobs:
            found(jobs.pop(0), f"the compiler ended with exit code {process.returncode}")
    return chip, check


def _work(chip: str, folder: str) -> int:
    """Runs the worker: reads jobs as JSON from standard input, prints JSON for the check and for each job."""
    from bench import model_schedule
    from bench.compiler import Compiler, check
    from bench.formulations import program

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the compilers write to standard output too
    compiler = Compiler(CHIPS[chip], Path(folder))

    def tell(**message: Any) -> None:
        print(json.dumps(message), file=out, flush=True)

    try:
        tell(check=check(compiler))
    except ValueError as error:
        tell(fault=str(error))
        return 1
    for job in (Job(*values) for values in json.load(sys.stdin)):
        try:
            if job.workload in WORKLOADS:
                function, arguments = program(compiler, *job[1:5])
                tell(schedule=asdict(compiler.schedule(function, *arguments, layout=job.layout)))
            else:
                tell(schedule=model_schedule.model_schedule(compiler, "bfloat16", *job[2:5]))
        except Exception as error:  # a kernel that does not compile is a result
            tell(schedule=one_line(error))
    return 0


def one_line(error: Exception) -> str:
    """Returns the message of an exception without the compiler's preamble."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = re.sub(r"^INTERNAL: Mosaic failed to compile TPU kernel: (E\d+: )?(\w+: )?", "", lines[0] if lines else "")
    return (text or type(error).__name__)[:200]


def _report(results: dict[Job, dict | str], checks: list[str], options: argparse.Namespace) -> int:
    from bench import schedule_table

    rows = [{**job._asdict(), "schedule": schedule} for job, schedule in results.items()]
    if options.model is None:
        shown, notes = schedule_table.tables(results), schedule_table.notes(checks)
    else:
        shown, notes = schedule_table.model_tables(results), schedule_table.model_notes(checks)
    report(shown, notes, options, {"checks": checks, "rows": rows})
    if options.plot:
        from bench import plots

        options.plot.mkdir(parents=True, exist_ok=True)
        draw = plots.rooflines if options.model is None else plots.models
        for file in draw(results, options.plot):
            print(f"wrote {file}", file=sys.stderr if options.json else sys.stdout)
    return 0
