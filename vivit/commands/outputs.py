"""Where a command may write: never over what it reads. What may be written to at all stands in vivit/writing.py."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from vivit.paths import as_path, is_folder
from vivit.printable import printable
from vivit.writing import STANDARD_OUTPUT, check_place

CHECKPOINT_FILES = ("*config.json", "*.index.json", "*.safetensors")  # what a folder with a checkpoint is read from
TABLES = (".csv", ".jsonl")


def path(text: str) -> Path:
    """The type of an argument that is a path. Raises ArgumentTypeError for what is none."""
    try:
        return as_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def read_by(options: argparse.Namespace, videos: Iterable[str | Path] = ()) -> list[str | Path]:
    """The files that a command reads: these videos, what its arguments name, and what is in a folder so named."""
    found = [*videos]
    for name in ("checkpoint", "labels", "data", "source", "config"):
        given = getattr(options, name, None)
        if given is not None:
            found += [given, *_inside(given)]
    return found


def check_json(options: argparse.Namespace, inputs: Iterable[str | Path] = ()) -> None:
    """Raises ValueError unless -o of add_json can be written. inputs: what is read."""
    if options.output is not None:
        check_place(options.output, suffixes=(".json",), inputs=inputs)


def say_written(output: Path, line: str) -> None:
    """Prints what was written; on standard error if standard output has the result itself."""
    print(printable(line), file=sys.stderr if str(output) == STANDARD_OUTPUT else sys.stdout)


def _inside(given: str | Path) -> Iterator[Path]:
    """The files of a checkpoint, and tables, in what is given, if that is a folder."""
    if is_folder(given):
        for pattern in (*CHECKPOINT_FILES, *(f"*{suffix}" for suffix in TABLES)):
            yield from Path(given).glob(pattern)
