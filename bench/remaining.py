"""Prints the estimated remaining time of a list of long jobs to standard error, starting in the first second."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from vivit.cli.console import console

TRUST = 60.0  # seconds of finished jobs that weigh as much as what was expected
EVERY = 60.0  # seconds between lines where there is no terminal


@contextmanager
def remaining(verb: str, expected: Sequence[float], at_once: int) -> Iterator[Callable[[float], None]]:
    """Gives what is to be called when a job is done, with the seconds that were expected of it.

    expected: about how many seconds each job takes by itself. at_once: how many are under way at a time.
    """
    start = said = time.monotonic()
    finished: list[float] = []

    def line() -> str:
        left = seconds_left(sum(expected), sum(finished), time.monotonic() - start, at_once)
        return f"{len(finished)} of {len(expected)} {verb}, {at_once} at a time, about {_plainly(left)} left"

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(line(), total=sum(expected))
        if bar.disable:
            print(line(), file=sys.stderr, flush=True)

        def done(seconds: float) -> None:
            nonlocal said
            finished.append(seconds)
            bar.update(task, advance=seconds, description=line())
            if bar.disable and time.monotonic() - said >= EVERY:
                said = time.monotonic()
                print(line(), file=sys.stderr, flush=True)

        yield done


def seconds_left(expected: float, done: float, elapsed: float, at_once: int) -> float:
    """Returns the expected seconds of the remaining jobs, from the speed of the finished ones."""
    pace = (TRUST + elapsed * at_once) / (TRUST + done)
    return (expected - done) * pace / at_once


def _plainly(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
