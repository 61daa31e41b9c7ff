"""`python -m bench fuzz`: tests invalid checkpoints, run files, tables, flags and damaged videos for crashes and hangs.

A case depends only on the seed, its area and its number, so a failure can be repeated with
`--only AREA --first N --cases 1`. Allowed outcomes are a result, or a one-line ValueError or OSError, within limits of
time and memory. Cases run in child processes, many per process, and 200 of them as separate commands.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench import fuzz_inputs, fuzz_videos
from bench.harness import forget_peak, machine, parser, peak_megabytes, report
from vivit.cli.table import Table

HANG = 10  # seconds of one case, of the processor and of the clock
STUCK = 90  # of the clock alone, where others use the processor
BOUND = 3221  # megabytes: the 2 GiB that FFmpeg allocates at most at once, if a header claims them, and 1 GiB more
VIDEOS = "videos"
AREAS = (*fuzz_inputs.AREAS, VIDEOS)
COMMANDS = ("run files", "tables", "flags")  # areas whose cases are commands
CASES = {"flags": 5000}
DEFAULT_CASES = 10_000
PROCESSES = 200


@dataclass
class Found:
    """The results of one area. faults: as text, including hangs."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    hangs: int = 0
    peak: float = 0.0
    seconds: float = 0.0


def main(arguments: Sequence[str]) -> int:
    asked = parser("fuzz", __doc__, "--minutes 1")
    asked.add_argument("--minutes", type=float, default=10.0, help="for all areas together (default: 10)")
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--only", nargs="+", choices=AREAS, default=AREAS, metavar="AREA", help=", ".join(AREAS))
    asked.add_argument("--first", type=int, default=0, metavar="N", help="number of the first case of an area")
    asked.add_argument("--cases", type=int, help=f"of an area, at most (default: {DEFAULT_CASES:,}; flags 5,000)")
    asked.add_argument("--processes", type=int, default=PROCESSES, help=f"cases as commands (default: {PROCESSES})")
    asked.add_argument("--child", nargs=2, metavar=("AREA", "FOLDER"), help=argparse.SUPPRESS)
    options = asked.parse_args(arguments)
    os.environ.update(_environment())
    seconds = 60 * options.minutes
    if options.child:
        area, folder = options.child
        return _run(area, Path(folder), options.seed, options.first, options.first + options.cases, seconds)
    rows: list[tuple[str, ...]] = []
    faults: list[str] = []
    end = time.monotonic() + seconds
    with_processes = options.processes > 0 and any(area in COMMANDS for area in options.only)
    left = [*options.only, *(["processes"] if with_processes else [])]
    while left:
        area, share = left.pop(0), (end - time.monotonic()) / (len(left) + 1)
        if area == "processes":
            found = processes(options.seed, share, options.processes)
        else:
            cases = options.cases or CASES.get(area, DEFAULT_CASES)
            found = fuzz(area, share, options.seed, options.first, cases)
        counts = sum(found.outcomes.values()) + len(found.faults), found.outcomes["used"], found.outcomes["refused"]
        figures = (*counts, len(found.faults), found.hangs, round(found.peak), round(found.seconds))
        rows.append((area, *(f"{figure:,}" for figure in figures)))
        faults += [f"{area} {fault}" for fault in found.faults]
    columns = ("area", "cases", "used", "refused", "faults", "hangs", "peak MB", "seconds")
    title = f"Wrong inputs, seed {options.seed}"
    report([Table(columns, rows, title=title)], [machine(), *faults], options)
    return 1 if faults else 0


def fuzz(area: str, seconds: float, seed: int = 0, first: int = 0, cases: int = 10**9) -> Found:
    """Runs the cases of one area until all are done or time is over. A crash ends one worker process only."""
    found, last = Found(), first + cases
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        (fuzz_videos if area == VIDEOS else fuzz_inputs).prepare(Path(folder))
        while first < last and (left := begun + seconds - time.monotonic()) > 0:
            command = [sys.executable, "-m", "bench", "fuzz", "--child", area, folder, "--minutes", str(left / 60)]
            command += ["--seed", str(seed), "--first", str(first), "--cases", str(last - first)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
            lines = [line for line in done.stdout.splitlines() if line.startswith("case ")]
            for line in lines:
                _, number, kind, rest = line.split(" ", 3)
                first = int(number)
                if kind == "end":
                    outcome, megabytes = rest.split(" ", 1)
                    found.outcomes[outcome] += 1
                    found.peak = max(found.peak, float(megabytes))
                elif kind == "fault":
                    found.faults.append(f"case {number}: {rest}")
                    found.hangs += rest.startswith("hangs")
            if done.returncode:
                hung = done.returncode == -signal.SIGALRM
                found.hangs += hung
                said = (done.stderr.strip().splitlines() or [""])[-1]
                found.faults.append(f"case {first}: {'hangs' if hung else f'ended with {done.returncode}: {said}'}")
                if not lines:
                    break
            first += 1
    found.seconds = time.monotonic() - begun
    return found


def processes(seed: int, seconds: float, count: int) -> Found:
    """Runs the cases of commands, each in its own process."""
    found, begun = Found(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fuzz_inputs.prepare(Path(folder))
        for number in range(count):
            if time.monotonic() - begun > seconds:
                break
            area = COMMANDS[number % len(COMMANDS)]
            command = fuzz_inputs.AREAS[area](Path(folder), _generator(seed + 1, area, number))
            whole = [sys.executable, "-m", "vivit", *(command or [])]
            try:
                done = subprocess.run(
                    whole, capture_output=True, timeout=STUCK, check=False, env=_environment(), stdin=subprocess.DEVNULL
                )
                fuzz_inputs.check_said(done.stderr.decode(errors="replace"))
                if done.returncode not in (0, 1, 2):
                    raise fuzz_inputs.Fault(f"ends with {done.returncode}")
                found.outcomes["refused" if done.returncode else "used"] += 1
            except subprocess.TimeoutExpired:
                found.hangs += 1
                found.faults.append(f"case {number}, {area}: hangs")
            except fuzz_inputs.Fault as fault:
                found.faults.append(f"case {number}, {area}: {fault}")
    found.seconds = time.monotonic() - begun
    return found


def _run(area: str, folder: Path, seed: int, first: int, last: int, seconds: float) -> int:
    """Runs cases in this process, printing a line before and after each. SIGALRM ends the process if one hangs."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    out = os.dup(1)
    end = time.monotonic() + seconds

    def say(number: int, text: str) -> None:
        os.write(out, f"case {number} {' '.join(text.split())}\n".encode(errors="replace"))

    for number in range(first, last):
        if time.monotonic() > end:
            break
        say(number, "begin -")
        forget_peak()
        signal.alarm(STUCK)
        wall, own = time.monotonic(), time.process_time()
        try:
            generator = _generator(seed, area, number)
            if area == VIDEOS:
                outcome = fuzz_videos.case(folder, generator)
            else:
                outcome = fuzz_inputs.case(area, folder, generator)
        except Exception:  # the fuzzer's own
            traceback.print_exc()
            return 1
        signal.alarm(0)
        peak = peak_megabytes()
        if min(time.monotonic() - wall, time.process_time() - own) > HANG:
            outcome = f"fault:hangs for {time.monotonic() - wall:.0f} s"
        elif peak > BOUND:
            outcome = f"fault:needs {peak:.0f} MB"
        if outcome.startswith("fault:"):
            say(number, f"fault {outcome.removeprefix('fault:')}")
        else:
            say(number, f"end {outcome} {peak}")
    return 0


def _generator(seed: int, area: str, number: int) -> np.random.Generator:
    return np.random.default_rng((seed, AREAS.index(area), number))


def _environment() -> dict[str, str]:
    return {**os.environ, "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
