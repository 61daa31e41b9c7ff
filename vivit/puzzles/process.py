"""A solution in a process of its own: starts it, calls its function, and ends it when its time is used up."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from vivit.puzzles import runner

PRINTED = 500  # characters of what a solution printed that are shown
TIDY = 1.0  # seconds in which an ending process may end


class SolutionError(Exception):
    """An exception that a solution raised. `raised` makes one with its name."""


class Ended(BaseException):  # no Exception: nothing that tries a function again may catch it
    """The process of a solution has ended, or must be ended. Its text says why."""


def raised(name: str, text: str, line: int | None) -> Exception:
    """An exception that looks like the solution's own."""
    where = "" if line is None else f" (line {line})"
    if name == "NotImplementedError":
        return NotImplementedError(f"{text}{where}")
    return _error_type(name)(f"{text}{where}")


@cache
def _error_type(name: str) -> type[SolutionError]:  # one for each name: hypothesis compares types
    return type(name, (SolutionError,), {})


class Solution:
    """The function of a solution's file, in a process of its own. Call it with NumPy arrays, numbers and functions.

    rules: of runner.traced, or None. seconds: how long it may compute in all.
    """

    def __init__(self, path: Path, function: str, rules: dict[str, Any] | None, seconds: float) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vivit-puzzle-", ignore_cleanup_errors=True)
        self._exchange = Path(os.path.realpath(self._folder.name))
        self._seconds = self._left = seconds
        package = Path(__file__).parent.parent
        folders = {
            os.path.realpath(folder) + os.sep for folder in (package, package / "reference", package / "kernels")
        }
        options = {
            "path": os.path.realpath(path),
            "function": function,
            "rules": rules,
            "exchange": str(self._exchange),
            "folders": sorted(folders),
            "allowed": os.path.realpath(Path(runner.__file__).parent) + os.sep,
        }
        with open(self._exchange / "printed.txt", "wb") as printed:
            self._process = subprocess.Popen(
                [sys.executable, "-P", runner.__file__, json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                cwd=self._exchange,
                env=os.environ | {"JAX_PLATFORMS": "cpu"},
                start_new_session=True,
            )
        self._ready = False

    def __call__(self, *arguments: Any) -> list[np.ndarray]:
        """Raises what the function raised, under its name, or Ended."""
        functions = [argument for argument in arguments if callable(argument)]
        if not self._ready:
            self._reply()
            self._ready = True
        values = [runner.FUNCTION if callable(argument) else _plain(argument) for argument in arguments]
        kind, found = self._ask(values)
        while kind == runner.CALL:
            kind, found = self._ask(_answer(functions[0], found))
        if kind == runner.ERROR:
            raise raised(*found)
        return found

    def copied(self) -> str | None:
        """What the solution used of vivit, or None."""
        marker = self._exchange / runner.COPIED
        return marker.read_text("utf-8") if marker.is_file() else None

    def printed(self) -> str:
        """The end of what the solution printed."""
        text = (self._exchange / "printed.txt").read_bytes()[-4 * PRINTED :].decode("utf-8", "replace")
        return text.strip()[-PRINTED:]

    def __enter__(self) -> "Solution":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Ends the process and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()  # pyright: ignore[reportOptionalMemberAccess]
        self._process.wait()  # not for the end of its output: what has left its group may hold the pipe
        self._folder.cleanup()

    def _ask(self, values: list[Any]) -> tuple[str, list[Any]]:
        runner.save(self._exchange / runner.REQUEST, "request", values)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._reply()

    def _reply(self) -> tuple[str, list[Any]]:
        """Waits for a reply. Raises Ended if none comes."""
        assert self._process.stdout is not None
        start = time.monotonic()
        ready, _, _ = select.select([self._process.stdout], [], [], self._left)
        self._left = max(0.0, self._left - (time.monotonic() - start))
        if not ready:
            raise Ended(f"the time limit of {self._seconds:g} seconds is used up")
        if not os.read(self._process.stdout.fileno(), 1):
            raise self._ended()
        try:
            return runner.load(self._exchange / runner.REPLY)
        except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise Ended(f"its reply cannot be read: {type(error).__name__}") from None

    def _ended(self) -> Ended:
        try:
            code = self._process.wait(TIDY)
        except subprocess.TimeoutExpired:
            return Ended("its process has closed its pipe")
        return Ended(f"its process was ended by signal {-code}" if code < 0 else f"its process exited with code {code}")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _answer(function: Callable[..., Any], arguments: list[Any]) -> list[Any]:
    """Calls a function of the grader's for a solution: the result, or the error."""
    try:
        with np.errstate(all="ignore"):
            return [np.asarray(function(*arguments)), None]
    except Exception as error:  # of arguments that a student chose
        return [None, f"{type(error).__name__}: {error}"[: runner.LONGEST]]
