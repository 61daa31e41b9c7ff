"""Checks the output paths of commands, which must not be inputs. vivit/files/atomic.py checks if they are writable."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from vivit.files.atomic import STANDARD_OUTPUT, check_writable
from vivit.files.paths import as_path, is_folder, printable

CHECKPOINT_FILES = ("*config.json", "*.index.json", "*.safetensors")  # files of a checkpoint's folder
TABLES = (".csv", ".jsonl")


def path(text: str) -> Path:
    """Converts an argument to a path. Raises ArgumentTypeError if it is not one."""
    try:
        return as_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def input_files(options: argparse.Namespace, videos: Iterable[str | Path] = ()) -> list[str | Path]:
    """Returns the files that a command reads: `videos`, its other arguments, and the files in folders among those."""
    inputs = [*videos]
    for name in ("checkpoint", "labels", "data", "source", "config", "against", "verify"):
        given = getattr(options, name, None)
        if given is not None:
            inputs += [given, *_files_in(given)]
    return inputs


def check_json(options: argparse.Namespace, inputs: Iterable[str | Path] = (), *, page: bool = False) -> None:
    """Raises ValueError unless the -o file of add_json can be written. inputs: files that are read."""
    if options.output is not None:
        check_writable(options.output, suffixes=(".json", *([".html"] if page else [])), inputs=inputs)


def report_written(output: Path, line: str) -> None:
    """Prints a line about a written file, on standard error if standard output has the result itself."""
    print(printable(line), file=sys.stderr if str(output) == STANDARD_OUTPUT else sys.stdout)


def _files_in(given: str | Path) -> Iterator[Path]:
    """Yields the files of a checkpoint, and the tables, in a folder."""
    if is_folder(given):
        for pattern in (*CHECKPOINT_FILES, *(f"*{suffix}" for suffix in TABLES)):
            yield from Path(given).glob(pattern)
