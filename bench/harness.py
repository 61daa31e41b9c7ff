"""Times a piece of work: a separate process, a warm-up, several runs, medians.

Each workload runs in a new process, so that peak memory is its own and no implementation's threads disturb another. The
processes alternate (A B C, A B C, …), so that drifts of the machine's speed affect all of them.
"""

import argparse
import gc
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, TypedDict, TypeVar

from vivit.cli.console import console, say, show
from vivit.cli.parser import Parser
from vivit.cli.table import Table
from vivit.files.atomic import write_text

Name = TypeVar("Name", bound=Hashable)


class Measurement(TypedDict):
    """One workload in one process: the first call (with compilation), and the medians of the other calls."""

    first_seconds: float
    seconds: float
    cpu_seconds: float
    peak_megabytes: float  # of the process while it calls, weights included
    error: float  # as `check` found it


def parser(name: str, doc: str | None, example: str = "") -> Parser:
    """Returns the parser of a program of this folder. doc: the program's docstring."""
    called = f"python -m bench {name}"
    parser = Parser(prog=called, description=(doc or "").partition("\n")[0])
    parser.show_examples(f"{called} {example}".rstrip())
    return parser


def report(tables: Sequence[Table], notes: Sequence[str], options: argparse.Namespace, values: Any = None) -> None:
    """Prints tables and notes; or with --json the values as JSON, which -o writes as well.

    options: with those of add_json (vivit.cli.arguments), or without. values: None if there is no JSON: -o is then the
    program's own.
    """
    if values is not None:
        text = json.dumps(values, indent=1) + "\n"
        if options.output is not None:
            write_text(options.output, text)
        if options.json:
            print(text, end="")
            return
    out = console()
    for table in tables:
        show(table, out)
    for note in notes:
        say(note, out)


def measure(call: Callable[[], Any], check: Callable[[Any], float], runs: int) -> Measurement:
    """Calls, checks, then times `call`; to be used in a process of its own, since memory is the process's peak.

    call: does the work and waits for its result. check: from that result to its error; raises if it is too large.
    """
    forget_peak()
    start = time.perf_counter()
    result = call()
    first = time.perf_counter() - start
    error = check(result)
    del result  # the calls that follow have the memory to themselves
    walls, cpus = [], []
    for _ in range(runs):
        gc.collect()  # JAX lets go of arrays that it took over without a copy only now
        start, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - start)
        cpus.append(time.process_time() - cpu)
    return Measurement(
        first_seconds=first,
        seconds=median(walls),
        cpu_seconds=median(cpus),
        peak_megabytes=peak_megabytes(),
        error=error,
    )


@contextmanager
def own_priority() -> Iterator[None]:
    """Gives the thread its scheduling back: SVT-AV1, as root, leaves who encodes with it at real-time priority.

    That thread's later threads and processes would inherit it, and take the cores from all others.
    """
    before = (os.sched_getscheduler(0), os.sched_getparam(0)) if hasattr(os, "sched_getscheduler") else None
    try:
        yield
    finally:
        if before is not None:
            os.sched_setscheduler(0, *before)


def forget_peak() -> None:
    """Resets the peak of resident memory, on Linux, so that it excludes the creation of the weights."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_megabytes() -> float:
    """Returns the peak of resident memory of this process; on Linux, since forget_peak."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux: ru_maxrss is in bytes on macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def in_turns(commands: dict[Name, Sequence[str]], rounds: int) -> dict[Name, Measurement | str]:
    """Runs every command `rounds` times, taking turns; each is a Python program that prints a Measurement as JSON.

    Returns by name the medians over the rounds, or the last line of the error of a command that failed.
    """
    found: dict[Name, list[Measurement]] = {name: [] for name in commands}
    failed: dict[Name, str] = {}
    for _ in range(rounds):
        for name, command in commands.items():
            if name in failed:
                continue
            done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
            if done.returncode:
                failed[name] = (done.stderr.strip().splitlines() or ["no message"])[-1]
            else:
                found[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
    return {name: failed.get(name) or _medians(measured) for name, measured in found.items()}


def _medians(measured: list[Measurement]) -> Measurement:
    return Measurement(**{field: median(one[field] for one in measured) for field in measured[0]})


def product_dtype(dtype: str, precision: str | None = None) -> str:
    """The dtype whose rounding a product has on this device, if no other precision is asked for.

    A TPU multiplies float32 as bfloat16. A GPU multiplies it as TF32, with two bits more.
    """
    import jax

    return "bfloat16" if jax.default_backend() in ("tpu", "gpu") and precision is None else dtype


def markdown(table: Table) -> str:
    """The table in Markdown. What follows the last cell of a row that is too short is left empty."""
    count = len(table.columns)
    rule = "|".join("---" if index < table.texts else "---:" for index in range(count))
    rows = [[*row, *[""] * (count - len(row))] for row in (table.columns, *table.rows)]
    cells = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([f"### {table.title}", "", cells[0], f"|{rule}|", *cells[1:], ""])


def machine() -> str:
    """Returns device, cores and versions, for the last line of a table."""
    import jax

    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = next((line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")), "")
    where = f"{device.device_kind} ({model}, {cores} cores)" if device.platform == "cpu" else device.device_kind
    return f"{where}; jax {jax.__version__}, Python {platform.python_version()}"


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
