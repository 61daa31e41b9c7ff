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

RIGHT = {"justify": "right", "no_wrap": True}
PERIOD = 600  # seconds over which the speed is averaged: a step may take many of them


def console() -> Console:
    """Standard output; as wide as the table needs when it is not a terminal, so that a log keeps every column."""
    return Console(width=None if sys.stdout.isatty() else 160)


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
        console=Console(stderr=True),
        **options,
    )


class _ClipsASecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("- clips/s" if speed is None else f"{speed:.3g} clips/s", style="progress.data.speed")
