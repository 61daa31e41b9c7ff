"""How commands show tables and progress."""

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

from vivit.commands.table import Table, lines

PERIOD = 600  # seconds over which the speed is averaged: a step may take many of them
UNLIMITED = 10**6  # columns of what is no terminal


def console(*, stderr: bool = False) -> Console:
    """Standard output or error; without limit to a line where that is no terminal, so that a log keeps lines whole."""
    stream = sys.stderr if stderr else sys.stdout
    return _Console(stderr=stderr, width=None if stream.isatty() else UNLIMITED)


def show(table: Table, out: Console) -> None:
    """Prints a table that fits the terminal."""
    for line in lines(table, None if out.width == UNLIMITED else out.width):
        out.print(line, soft_wrap=True, highlight=False)


def say(text: str, out: Console, **options: Any) -> None:
    """Prints text as it is: no markup, nothing highlighted. options: of Console.print."""
    out.print(text, markup=False, highlight=False, **options)


def clips_progress(*columns: ProgressColumn, disable: bool = False) -> Progress:
    """A bar on standard error of a task that counts clips: how many, clips a second, elapsed and remaining time.

    columns: more of them, such as TextColumn("loss {task.fields[loss]:.3f}").
    """
    return _bar(_ClipsASecond(), *columns, disable=disable, speed_estimate_period=PERIOD)


def videos_progress(count: int) -> Progress:
    """A bar on standard error of a task that counts videos, if there are several and somebody looks."""
    return _bar(redirect_stdout=False, transient=True, disable=count < 2 or not sys.stderr.isatty())


def _bar(*columns: ProgressColumn, **options: Any) -> Progress:
    """What is done, how much of it, `columns`, elapsed and remaining time, on standard error."""
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
        """Leaves it to who runs the command; Rich would end the process with exit code 1."""
        raise  # the BrokenPipeError in whose handler this is called
