"""The schedules of `bench device`'s programs, compiled ahead of time by other processes beside the measurements."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, cast

from bench.chips import CHIPS, environment
from bench.schedule import Job, one_line


@contextmanager
def predictions(
    jobs: Sequence[Job], *, small: bool, at_once: int
) -> Iterator[Callable[[float], dict[Job, dict | str]]]:
    """Begins to compile, and gives a function that waits so many seconds at most for the rest, and returns them.

    Each is a bench.compiler.Schedule as a dict, or one line that tells why there is none. What is not done at the end
    is stopped.
    """
    if find_spec("libtpu") is None:
        yield lambda _: dict.fromkeys(jobs, "libtpu is not installed")
        return
    found: dict[Job, dict | str] = {}
    waiting = iter(jobs)
    stopped = threading.Event()
    compilers: list[subprocess.Popen] = []

    def work() -> None:
        compiler = None
        with tempfile.TemporaryDirectory() as folder:
            for job in waiting:
                if compiler is not None and compiler.poll() is not None:
                    compiler = _stop(compiler)
                if compiler is None:
                    compiler = _start(job.chip, folder, small)
                    compilers.append(compiler)
                if stopped.is_set():
                    break
                found[job] = _ask(compiler, job)
            if compiler is not None:
                _stop(compiler)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(jobs)))]

    def wait(seconds: float) -> dict[Job, dict | str]:
        end = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        return {job: found.get(job, "not compiled in time") for job in jobs}

    try:
        for thread in threads:
            thread.start()
        yield wait
    finally:
        stopped.set()
        for compiler in compilers:
            compiler.kill()
        for thread in threads:
            thread.join()


def _start(chip: str, folder: str, small: bool) -> subprocess.Popen:
    program = (sys.executable, "-m", "bench", "device", "--predict", chip, folder, *(["--small"] if small else []))
    return subprocess.Popen(
        program, env=environment(Path(folder)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def _stop(compiler: subprocess.Popen) -> None:
    compiler.kill()
    with suppress(OSError), compiler:  # a pipe whose other end is closed; waits
        pass


def _ask(compiler: subprocess.Popen, job: Job) -> dict | str:
    stdin, stdout = cast(IO[str], compiler.stdin), cast(IO[str], compiler.stdout)
    try:
        stdin.write(json.dumps(job) + "\n")
        stdin.flush()
        return json.loads(stdout.readline())
    except (OSError, ValueError):  # a closed pipe, or nothing said
        return f"the compiler ended with exit code {compiler.wait()}"


def answer(chip: str, folder: str, *, small: bool) -> int:
    """The other process: jobs as lines of JSON from standard input, to each a line of JSON on standard output."""
    from bench import device_programs
    from bench.compiler import Compiler, check

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the compilers write to standard output too
    compiler = Compiler(CHIPS[chip], Path(folder))
    try:
        check(compiler)
        fault = ""
    except ValueError as error:
        fault = str(error)
    for line in sys.stdin:
        job = Job(*json.loads(line))
        said: Any = fault
        if not fault:
            try:
                function, arguments = device_programs.program(job, compiler.abstract, small=small)
                said = asdict(compiler.schedule(function, *arguments, layout=job.layout))
            except Exception as error:  # a program that does not compile is a result
                said = one_line(error)
        print(json.dumps(said), file=out, flush=True)
    return 0
