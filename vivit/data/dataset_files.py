"""Writes a generated dataset atomically: a table per split, the videos, and a JSON description."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from vivit.files.atomic import atomic_dir
from vivit.reference.values import quoted


def check_counts(seed: int, counts: dict[str, int], group: int, *, least: int = 1) -> None:
    """Raises ValueError unless seed ≥ 0 and every count is a multiple of `group`, with at least `least` groups."""
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed is {quoted(seed)}: it must be an integer, 0 or more")
    for split, count in counts.items():
        if type(count) is not int or count < group * least or count % group:
            kind = "positive multiple" if least else "multiple"
            raise ValueError(f"{split} is {quoted(count)}: it must be a {kind} of {group}")


def write_dataset(
    folder: str | Path,
    columns: Sequence[str],
    rows: dict[str, list[tuple[str, ...]]],
    write: Callable[[Path, str, int], None],
    *,
    card: tuple[str, dict],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes <split>.csv, every video and a JSON file into a new folder. The folder is written atomically.

    columns: the header of the tables, "path" first. rows: of every split; paths are relative to the folder, inside a
    folder named as the split. write: called with (path, split, index) for every row. card: name and contents of the
    JSON file. progress: called with (videos written, total). Raises ValueError if the folder exists and is not empty.
    """
    done, total = 0, sum(map(len, rows.values()))
    with atomic_dir(folder) as partial:
        for split, listed in rows.items():
            (partial / split).mkdir()
            for index, (path, *_) in enumerate(listed):
                write(partial / path, split, index)
                done += 1
                if progress is not None:
                    progress(done, total)
            with (partial / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows([tuple(columns), *listed])
        name, contents = card
        (partial / name).write_text(json.dumps(contents, indent=2) + "\n", "utf-8")
