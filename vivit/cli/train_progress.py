"""Output of `vivit train`: an overview and warnings before the start, then a progress bar, or lines outside a terminal.

Outside a terminal a line is printed at most once a minute.
"""

import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import TextColumn

from vivit.cli.console import clips_progress

if TYPE_CHECKING:
    from vivit.training.loop import Plan, Progress


from vivit.data.sources import Dataset
from vivit.training.recipe import Recipe, Steps

INTERVAL = 60.0  # seconds between two lines
TIMED_STEPS = 10  # after this many steps the remaining time is printed


def describe_plan(plan: "Plan") -> Iterator[str]:
    """Yields lines about the memory of an update and the step that a run resumes from."""
    import jax

    basis = "as the compiler reports" if plan.compiled else "for state and batch alone: the compiler reports nothing"
    device = jax.local_devices()[0]
    yield f"memory of a step: {_size(plan.bytes)} per device, {basis}"
    available = (device.memory_stats() or {}).get("bytes_limit") or _memory_of_machine()
    if plan.bytes > available:
        yield (
            f"this is more than the {_size(available)} of {device.device_kind}: a smaller --batch-size, more "
            "--accumulation or --remat lean need less"
        )
    if plan.begin:
        yield f"resuming from step {plan.begin:,} of {plan.steps.total:,}"


class TrainProgress:
    """Shows the progress of trainings on standard error: clips per second, loss, remaining time, validations."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        columns = (TextColumn("loss {task.fields[loss]}"), TextColumn("{task.fields[left_out]}"))
        self._bar = clips_progress(*columns, disable=not self._terminal)
        self._console = self._bar.console if self._terminal else Console(stderr=True, width=200)
        self._tasks: dict[str, Any] = {}
        self._seconds: dict[str, list[float]] = {}
        self._validation = ""
        self._last = time.monotonic()

    def __enter__(self) -> "TrainProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def print_line(self, text: str) -> None:
        """Prints a line of text."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, name: str, batch_size: int, progress: "Progress") -> None:
        """Shows an update of the training with this name."""
        seconds = self._seconds.setdefault(name, [])
        seconds.append(progress.figures["seconds"])
        left = progress.steps.total - progress.step
        if len(seconds) == TIMED_STEPS and left:
            each = sorted(seconds)[TIMED_STEPS // 2]
            about = f"about {left * each / 3600:.2g} h for the remaining {left:,} steps, without validation"
            self.print_line(f"time of a step: {each:.3g} s; {about}")
        if progress.validation:
            figures = "  ".join(f"{name} {value:.3g}" for name, value in progress.validation.items())
            best = "  (the best so far)" if progress.best == progress.step else ""
            self._validation = f"step {progress.step}: {figures}{best}"
        if self._terminal:
            self._update_bar(name, batch_size, progress)
        elif time.monotonic() - self._last >= INTERVAL or not left:
            self._last = time.monotonic()
            self.print_line("; ".join(filter(None, (_line(name, batch_size, progress), self._validation))))
            self._validation = ""

    def _update_bar(self, name: str, batch_size: int, progress: "Progress") -> None:
        if name not in self._tasks:
            total = progress.steps.total * batch_size
            self._tasks[name] = self._bar.add_task(name, total=total, loss="", left_out="")
        left_out = f"{progress.broken} videos left out" if progress.broken else ""
        loss = f"{progress.figures['loss']:.3f}"
        self._bar.update(self._tasks[name], completed=progress.step * batch_size, loss=loss, left_out=left_out)
        if self._validation:
            self.print_line(self._validation)
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


MAX_NAMES = 5  # in a message


def describe_data(splits: dict[str, Dataset], recipe: Recipe, steps: Steps) -> Iterator[str]:
    """Yields lines about the classes, the clips of each split, the steps and the warm-up."""
    dataset = splits["train"]
    heads = ", ".join(f"{len(names):,} of {head}" for head, names in zip(dataset.heads, dataset.names, strict=True))
    yield f"classes: {heads if len(dataset.heads) > 1 else f'{sum(dataset.classes):,}'}"
    yield f"clips: {', '.join(f'{len(one.examples):,} in {split}' for split, one in splits.items())}"
    epochs = steps.total * recipe.batch_size / len(dataset.examples)
    warmup = f"the first {steps.warmup:,} of them warm-up" if steps.warmup else "no warm-up"
    yield f"steps: {steps.total:,} of {recipe.batch_size:,} clips, {epochs:.3g} epochs, {warmup}"


def questionable_choices(splits: dict[str, Dataset], recipe: Recipe) -> Iterator[str]:
    """Yields a line for each choice that is valid but probably a mistake."""
    dataset = splits["train"]
    if recipe.batch_size > len(dataset.examples):
        yield (
            f"batch_size is {recipe.batch_size:,}, but there are only {len(dataset.examples):,} training clips: "
            "every batch repeats some of them"
        )
    for head, names in zip(dataset.heads, dataset.names, strict=True):
        if len(names) == 1:
            yield f"{head} has one class, {names[0]!r:.200}: there is nothing to classify"
    for split, one in splits.items():
        for number, (head, names) in enumerate(zip(one.heads, one.names, strict=True)):
            present = {label for example in one.examples for label in example.labels[number]}
            absent = [repr(name)[:200] for label, name in enumerate(names) if label not in present]
            if absent:
                more = f" and {len(absent) - MAX_NAMES:,} more" if len(absent) > MAX_NAMES else ""
                listed = ", ".join(absent[:MAX_NAMES]) + more
                yield f"{split} has no clip of {listed}, of {len(names):,} classes of {head}"
