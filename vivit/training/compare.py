"""Trains every row of the carousel's comparison and says what each knows of scans that it has never seen."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from vivit.data.cache import Cache
from vivit.json_files import read_object
from vivit.reference.params import parameters
from vivit.training.carousel import Row, datasets
from vivit.training.initial import initial
from vivit.training.lock import locked
from vivit.training.loop import Progress, Run, train
from vivit.training.recipe import steps_of
from vivit.training.validation import evaluated
from vivit.writing import write_text

RESULT = "result.json"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A row's figures on the test split, in percent, and what they took."""

    name: str
    parameters: int
    steps: int
    seconds: float  # of the updates, their waiting for batches included
    verb: float
    noun: float
    action: float


def compare(
    folder: Path, rows: tuple[Row, ...], *, threads: int = 2, show: Callable[[str, Progress], None] = lambda *_: None
) -> list[Outcome]:
    """Trains the rows one after the other, each in a folder of its own; what is done already is not done again.

    show: is called with the row's name and its progress after every update.
    """
    with locked(folder):
        return _compared(folder, rows, threads, show)


def _compared(
    folder: Path, rows: tuple[Row, ...], threads: int, show: Callable[[str, Progress], None]
) -> list[Outcome]:
    splits = datasets(folder / "videos")
    cache = Cache(folder / "frames")
    found = []
    for row in rows:
        place = folder / row.name.replace(" ", "-").replace(",", "")
        if (place / RESULT).is_file():
            found.append(read_outcome(place / RESULT))
            continue
        seconds: list[float] = []

        def told(progress: Progress, name: str = row.name, seconds: list[float] = seconds) -> None:
            seconds.append(progress.figures["seconds"])
            show(name, progress)

        run = Run(folder=place, save_every=250, threads=threads, cache=cache.folder)
        model = train(initial(splits["train"], row.config, None), splits["train"], row.recipe, run, show=told)
        report = evaluated(model, splits["test"], row.recipe, threads=threads, cache=cache).report
        outcome = Outcome(
            name=row.name,
            parameters=parameters(row.config),
            steps=steps_of(row.recipe, len(splits["train"].examples)).total,
            seconds=sum(seconds),
            verb=100 * report["heads"]["verb"]["top_1"],
            noun=100 * report["heads"]["noun"]["top_1"],
            action=100 * report["action"]["top_1"],
        )
        write_text(place / RESULT, json.dumps(asdict(outcome)))
        found.append(outcome)
    return found


def read_outcome(path: Path) -> Outcome:
    """A row's figures as they were written. Raises ValueError, naming the file, for anything else."""
    stated = read_object(path)
    numbers = {name: stated.number(name) for name in ("seconds", "verb", "noun", "action")}
    return Outcome(
        name=stated.text("name"), parameters=stated.count("parameters"), steps=stated.count("steps"), **numbers
    )
