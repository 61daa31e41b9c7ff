"""What `vivit train` says while it trains: a bar in a terminal, else a line a minute at most."""

import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import TextColumn

from vivit.commands.shown import clips_progress

if TYPE_CHECKING:
    from vivit.training.loop import Plan, Progress

EVERY = 60.0  # seconds between two lines
TIMED = 10  # steps after which the hours are said


def planned(plan: "Plan") -> Iterator[str]:
    """What an update takes of the machine, and where a run goes on."""
    import jax

    how = "as the compiler counts it" if plan.compiled else "state and batch alone: the compiler does not say the rest"
    device = jax.local_devices()[0]
    yield f"memory of a step: {_size(plan.bytes)} of each device, {how}"
    there = (device.memory_stats() or {}).get("bytes_limit") or _memory_of_machine()
    if plan.bytes > there:
        yield (
            f"that is more than the {_size(there)} of {device.device_kind}: a smaller --batch-size, more "
            "--accumulation or --remat True take less"
        )
    if plan.begin:
        yield f"going on from step {plan.begin:,} of {plan.steps.total:,}"


class Shown:
    """On standard error, for each training: clips a second, the loss, the time left, validations."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        told = (TextColumn("loss {task.fields[loss]}"), TextColumn("{task.fields[left_out]}"))
        self._bar = clips_progress(*told, disable=not self._terminal)
        self._console = self._bar.console if self._terminal else Console(stderr=True, width=200)
        self._tasks: dict[str, Any] = {}
        self._seconds: dict[str, list[float]] = {}
        self._validation = ""
        self._last = time.monotonic()

    def __enter__(self) -> "Shown":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, name: str, batch_size: int, progress: "Progress") -> None:
        """Another update of the training of this name."""
        seconds = self._seconds.setdefault(name, [])
        seconds.append(progress.figures["seconds"])
        left = progress.steps.total - progress.step
        if len(seconds) == TIMED and left:
            each = sorted(seconds)[TIMED // 2]
            about = f"about {left * each / 3600:.2g} h for the {left:,} steps that are left, without validating"
            self.say(f"time of a step: {each:.3g} s; {about}")
        if progress.validation:
            figures = "  ".join(f"{name} {value:.3g}" for name, value in progress.validation.items())
            best = "  (the best so far)" if progress.best == progress.step else ""
            self._validation = f"step {progress.step}: {figures}{best}"
        if self._terminal:
            self._update_bar(name, batch_size, progress)
        elif time.monotonic() - self._last >= EVERY or not left:
            self._last = time.monotonic()
            self.say("; ".join(filter(None, (_line(name, batch_size, progress), self._validation))))
            self._validation = ""

    def _update_bar(self, name: str, batch_size: int, progress: "Progress") -> None:
        if name not in self._tasks:
            total = progress.steps.total * batch_size
            self._tasks[name] = self._bar.add_task(name, total=total, loss="", left_out="")
        left_out = f"{progress.broken} videos left out" if progress.broken else ""
        loss = f"{progress.figures['loss']:.3f}"
        self._bar.update(self._tasks[name], completed=progress.step * batch_size, loss=loss, left_out=left_out)
        if self._validation:
            self.say(self._validation)
            self._validation = ""


def _line(name: str, batch_size: int, progress: "Progress") -> str:
    left = (progress.steps.total - progress.step) * progress.figures["seconds"]
    broken = f", {progress.broken} videos left out" if progress.broken else ""
    return (
        f"{name}: step {progress.step:,} of {progress.steps.total:,}, loss {progress.figures['loss']:.3f}, "
        f"{progress.figures['clips_per_second']:.3g} clips/s, {left / 60:.0f} min left{broken}"
    )


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"


def _memory_of_machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
