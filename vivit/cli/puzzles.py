"""`vivit puzzles start DIR`, `vivit puzzles check DIR...`: write the puzzles, grade the solutions of one or of many."""

import argparse
import csv
import io
import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vivit.cli import outputs
from vivit.cli.console import console, say, show
from vivit.cli.parser import Parser
from vivit.cli.table import FAIL, Table
from vivit.files.atomic import check_writable, write_text
from vivit.files.paths import is_folder, printable
from vivit.reference.values import MAX_COUNT, is_count, quoted

if TYPE_CHECKING:
    from vivit.puzzles.grading import Grade

INDENT = "    "
PRINTED = 3  # lines of what a solution printed that are shown


def add(parser: Parser) -> None:
    """Adds the arguments of the command."""
    parser.show_examples("vivit puzzles start mine/\nvivit puzzles check mine/ --only softmax")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    start = actions.add_parser("start", help="write the puzzles: one file each, to be completed")
    start.show_examples("vivit puzzles start mine/")
    start.add_argument("folder", metavar="DIR", type=outputs.path, help="a new or empty folder")
    start.set_defaults(run=run_start)
    check = actions.add_parser("check", help="grade the solutions in one folder, or in many")
    check.show_examples("vivit puzzles check mine/\nvivit puzzles check class/*/ --seed 7 -o points.csv")
    check.add_argument("folders", metavar="DIR", nargs="+", type=outputs.path, help="a folder with solutions")
    check.add_argument("--seed", type=int, default=0, metavar="N", help="seed of sizes and values (default: 0)")
    check.add_argument("--only", metavar="TEXT", help="only puzzles whose name contains this")
    check.add_argument("--seconds", type=float, default=60.0, metavar="S", help="limit of one puzzle (default: 60)")
    check.add_argument("--json", action="store_true", help="print JSON instead of text")
    check.add_argument(
        "-o", "--output", metavar="FILE", type=outputs.path, help="also write a table, one row a folder (.csv), or JSON"
    )
    check.set_defaults(run=run_check)


def run_start(options: argparse.Namespace) -> int:
    """Writes the puzzles. Returns the exit code 0."""
    from vivit.puzzles.catalogue import PUZZLES  # here: they need JAX and the extra [conformance]
    from vivit.puzzles.grading import start

    start(options.folder)
    folder = printable(str(options.folder))
    print(f"wrote {len(PUZZLES)} puzzles; grade them with: vivit puzzles check {folder}")
    return 0


def run_check(options: argparse.Namespace) -> int:
    """Prints and writes the points. Returns the exit code: 0 if all puzzles are solved, else 1."""
    _check_options(options)
    from vivit.puzzles.catalogue import PUZZLES
    from vivit.puzzles.grading import SOLVED, check

    chosen = [puzzle for puzzle in PUZZLES if options.only is None or options.only in puzzle.name]
    if not chosen:
        raise ValueError(f"--only is {quoted(options.only)}: no puzzle has it in its name")
    begin = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    grades: dict[Path, list[Grade]] = {folder: [] for folder in options.folders}
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("grading", total=len(grades) * len(chosen))
        for folder, found in grades.items():
            for grade in check(folder, options.seed, chosen, options.seconds):
                found.append(grade)
                progress.advance(task)
    text = _as_json(grades, options.seed)
    if options.output is not None:
        write_text(options.output, text if options.output.suffix.lower() == ".json" else _as_csv(grades))
    if options.json:
        print(text, end="")
    else:
        _print(grades, options.seed, time.monotonic() - begin, ours=options.only is not None)
    return 0 if all(grade.outcome == SOLVED for found in grades.values() for grade in found) else 1


def _check_options(options: argparse.Namespace) -> None:
    if not is_count(options.seed, 0):
        raise ValueError(f"--seed is {quoted(options.seed)}: it must be from 0 to {MAX_COUNT}")
    if not 0 < options.seconds <= MAX_COUNT:
        raise ValueError(f"--seconds is {options.seconds}: it must be more than 0 and at most {MAX_COUNT}")
    for folder in options.folders:
        if not is_folder(folder):
            raise ValueError(f"{folder} is not a folder: vivit puzzles start {folder} writes one")
    if options.output is not None:
        check_writable(options.output, suffixes=(".csv", ".json"))


def _print(grades: "dict[Path, list[Grade]]", seed: int, seconds: float, *, ours: bool) -> None:
    """Prints a table of the puzzles in one folder, with what is wrong, or a table of the folders.

    ours: name our own solution of what is solved.
    """
    out = console()
    if len(grades) == 1:
        ((folder, found),) = grades.items()
        words = {"unsolved": FAIL}
        rows = [
            (each.puzzle, each.title, f"{each.points}/{each.possible}", words.get(each.outcome, each.outcome))
            for each in found
        ]
        show(Table(("puzzle", "title", "points", ""), rows, texts=2), out)
        for each in found:
            _print_reason(each, out)
            if ours and each.outcome == "solved":
                say(f"{each.puzzle}: compare yours with {each.ours}", out, soft_wrap=True)
        if all(each.outcome == "missing" for each in found):
            say(printable(f"{folder} has no puzzle: vivit puzzles start DIR writes them into a new folder."), out)
    else:
        rows = []
        for folder, found in grades.items():
            counts = Counter(each.outcome for each in found)
            cells = (str(counts[name]) for name in ("solved", "unsolved", "copied", "not begun", "missing"))
            rows.append((printable(str(folder)), str(_points(found)), *cells))
        show(Table(("folder", "points", "solved", "unsolved", "copied", "not begun", "missing"), rows), out)
    every = [each for found in grades.values() for each in found]
    solved = sum(each.outcome == "solved" for each in every)
    possible = sum(each.possible for each in every)
    points = f"{_points(every)} of {possible} points"
    say(f"Seed {seed}: {solved} of {len(every)} solved, {points}, in {seconds:.0f} seconds.", out)


def _print_reason(grade: "Grade", out: Any) -> None:
    """Prints why a puzzle is not solved, the smallest case that fails, and the numbers around the worst one."""
    if grade.outcome not in ("unsolved", "copied"):
        return
    say(printable(f"{grade.puzzle}: {grade.reason}"), out, soft_wrap=True)
    if grade.case:
        say(f"{INDENT}smallest case that fails: {grade.case}", out, soft_wrap=True)
    for line in grade.drawing:
        say(f"{INDENT}{line}", out, soft_wrap=True)
    for line in grade.printed.splitlines()[-PRINTED:]:
        say(printable(f"{INDENT}printed: {line}"), out, soft_wrap=True)


def _points(grades: "list[Grade]") -> int:
    return sum(each.points for each in grades)


def _as_json(grades: "dict[Path, list[Grade]]", seed: int) -> str:
    from vivit.audit.report import null_if_not_finite
    from vivit.versions import source

    folders = [
        {
            "folder": str(folder),
            "points": _points(found),
            "possible": sum(each.possible for each in found),
            "puzzles": [null_if_not_finite(asdict(each)) for each in found],
        }
        for folder, found in grades.items()
    ]
    return json.dumps({"seed": seed, "vivit": source(), "folders": folders}, indent=1) + "\n"


def _as_csv(grades: "dict[Path, list[Grade]]") -> str:
    """One row for each folder: points, and the outcome of every puzzle."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    puzzles = [each.puzzle for each in next(iter(grades.values()))]
    table.writerow(["folder", "points", "possible", *puzzles])
    for folder, found in grades.items():
        possible = sum(each.possible for each in found)
        table.writerow([folder, _points(found), possible, *(each.outcome for each in found)])
    return text.getvalue()
