"""`python -m bench gpu -o FOLDER`: checks and times on the attached CUDA GPU, in at most eight minutes.

First the tests of cuDNN's attention against the float64 reference (`pytest -m gpu`). Then `bench attention` (cuDNN's,
XLA's, plain einsums, PyTorch's sdpa) and `bench forward` (models 1 and 2 beside the peers that are installed), both in
bfloat16. Each is a process of its own, with the time that is left; what is not done by then is left out, and said.
Writes FOLDER/gpu.json and FOLDER/gpu.md. --small runs the same on any device with small sizes, to show that it works.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bench.harness import machine, parser
from vivit.cli import outputs
from vivit.files.atomic import check_folder, write_text

ROOT = Path(__file__).parent.parent


class Part(NamedTuple):
    """One process: its name in the report, and its program."""

    name: str
    command: tuple[str, ...]


class Outcome(NamedTuple):
    """What a process did. code: its exit code; None: the time was up."""

    code: int | None
    seconds: float
    printed: str
    rows: list[dict[str, Any]]  # of a bench


def parts(*, small: bool) -> list[Part]:
    """The processes, in order."""
    attention = ("attention", "--dtype", "bfloat16", "--peers", *(["--quick", "--runs", "1"] if small else []))
    forward = ("forward", "--dtype", "bfloat16", "--models", "", "fe", "--rounds", "1")
    forward += ("--size", "vivit-tiny/8x2", "--runs", "1") if small else ()
    return [
        Part("checks", ("-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "tests/test_gpu.py")),
        Part("attention", ("-m", "bench", *attention)),
        Part("forward", ("-m", "bench", *forward)),
    ]


def main(arguments: Sequence[str]) -> int:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share the GPU
    asked = parser("gpu", __doc__, "-o report/")
    asked.add_argument("-o", "--output", type=outputs.path, metavar="FOLDER", help="for gpu.json and gpu.md")
    asked.add_argument("--minutes", type=float, default=8, help="what is not done by then is left out (default: 8)")
    asked.add_argument("--small", action="store_true", help="small sizes, on any device")
    options = asked.parse_args(arguments)
    if options.output is None:
        asked.error("-o is missing: it must be a folder for the report")
    if not options.minutes > 0:
        asked.error(f"--minutes is {options.minutes}: it must be positive")
    if jax.default_backend() != "gpu" and not options.small:
        asked.error(f"the device is {machine()}: it must be a CUDA GPU, or --small given")
    check_folder(options.output)
    end = time.monotonic() + 60 * options.minutes
    outcomes = {}
    for part in parts(small=options.small):
        print(f"{part.name} …", file=sys.stderr, flush=True)
        outcomes[part.name] = run(part, max(0.0, end - time.monotonic()))
    report = {"machine": machine(), **{name: outcome._asdict() for name, outcome in outcomes.items()}}
    options.output.mkdir(parents=True, exist_ok=True)
    write_text(options.output / "gpu.json", json.dumps(report, indent=1) + "\n")
    write_text(options.output / "gpu.md", text := markdown(outcomes))
    print(text, end="")
    return 0 if all(outcome.code == 0 for outcome in outcomes.values()) else 1


def run(part: Part, seconds: float) -> Outcome:
    """Runs a part for at most so many seconds."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "rows.json"
        command = [sys.executable, *part.command, *(["-o", str(written)] if "bench" in part.command else [])]
        options: dict[str, Any] = dict(capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        try:
            done = subprocess.run(command, cwd=ROOT, timeout=seconds, **options)
            code, printed = done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            code, printed = None, ""
        rows = json.loads(written.read_text("utf-8"))["rows"] if written.exists() else []
    return Outcome(code, time.monotonic() - start, printed, rows)


def markdown(outcomes: dict[str, Outcome]) -> str:
    """What every part printed, under its name."""
    lines = [machine(), ""]
    for name, outcome in outcomes.items():
        ended = "the time was up" if outcome.code is None else f"exit code {outcome.code}"
        lines += [f"### {name}: {ended}, {outcome.seconds:.0f} s", "", "```", outcome.printed.strip(), "```", ""]
    return "\n".join(lines)
