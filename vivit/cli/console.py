"""Prints tables, texts and progress bars of the commands."""

import sys
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vivit.cli.table import Table, lines

PERIOD = 600  # seconds over which the speed is averaged; a single step may take minutes
UNLIMITED = 10**6  # columns, if the output is not a terminal


def console(*, stderr: bool = False) -> Console:
    """Returns a console for standard output or error. If that is not a terminal, lines are not wrapped."""
    stream = sys.stderr if stderr else sys.stdout
    return _Console(stderr=stderr, width=None if stream.isatty() else UNLIMITED)


def show(table: Table, out: Console) -> None:
    """Prints a table that fits the width of the terminal."""
    for line in lines(table, None if out.width == UNLIMITED else out.width):
        out.print(line, soft_wrap=True, highlight=False)


def say(text: str, out: Console, **options: Any) -> None:
    """Prints text without markup or highlighting. options: of Console.print."""
    out.print(text, markup=False, highlight=False, **options)


def clips_progress(*columns: ProgressColumn, disable: bool = False) -> Progress:
    """Returns a progress bar on standard error that counts clips: count, clips per second, elapsed and remaining time.

    columns: additional ones, such as TextColumn("loss {task.fields[loss]:.3f}").
    """
    return _bar(_ClipsASecond(), *columns, disable=disable, speed_estimate_period=PERIOD)


def videos_progress(count: int) -> Progress:
    """Returns a progress bar on standard error that counts videos; hidden for one video or without a terminal."""
    return _bar(redirect_stdout=False, transient=True, disable=count < 2 or not sys.stderr.isatty())


def _bar(*columns: ProgressColumn, **options: Any) -> Progress:
    """Returns a progress bar: description, bar, count, `columns`, elapsed and remaining time."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=console(stderr=True),
        **options,
    )


class _ClipsASecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("- clips/s" if speed is None else f"{speed:.3g} clips/s", style="progress.data.speed")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Re-raises the error for the caller. Rich would end the process with exit code 1."""
        raise  # the BrokenPipeError that is being handled
