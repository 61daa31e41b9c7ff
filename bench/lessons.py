"""`python -m bench lessons`: CPU seconds and memory that each lesson of docs/lessons takes.

Every lesson runs in a new process, from the start of Python to its last cell; its own asserts check its results. CPU
seconds are those of all threads together, and do not depend much on what else the machine does.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.harness import machine, parser, peak_megabytes, report
from vivit.cli.table import Table

FOLDER = Path(__file__).parent.parent / "docs" / "lessons"
CELL = re.compile(r"^```\{code-cell\} python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main(arguments: Sequence[str]) -> int:
    asked = parser("lessons", __doc__, "--only 04 11")
    asked.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="lessons whose names begin with these")
    asked.add_argument("--worker", type=Path, metavar="LESSON", help="run this one here, and print what it took")
    options = asked.parse_args(arguments)
    if options.worker:
        run(options.worker)
        print(json.dumps([time.process_time(), peak_megabytes()]))
        return 0
    rows = [(lesson.stem, *_measured(lesson)) for lesson in lessons() if lesson.name.startswith(tuple(options.only))]
    table = Table(("lesson", "CPU seconds", "peak MB"), rows, title="The lessons, each in a process of its own")
    report([table], [machine()], options)
    return 0


def lessons() -> list[Path]:
    """The files of the lessons, in order."""
    return sorted(FOLDER.glob("[0-9]*.md"))


def cells(lesson: Path) -> Iterator[tuple[int, str]]:
    """(line, code) of every cell that is run."""
    text = lesson.read_text(encoding="utf-8")
    for found in CELL.finditer(text):
        if ":tags: [skip-execution]" not in found[1]:
            yield text[: found.start(1)].count("\n") + 1, re.sub(r"\A:tags: ", "# ", found[1])


def run(lesson: Path) -> None:
    """Runs a lesson's cells, one after the other, in its folder. Raises what they raise, with the lesson's lines."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    code = [*cells(lesson)]
    before = Path.cwd()
    sys.path.insert(0, str(FOLDER))
    os.chdir(FOLDER)
    try:
        for line, text in code:
            exec(compile("\n" * (line - 1) + text, str(lesson), "exec"), namespace)
    finally:
        os.chdir(before)
        sys.path.remove(str(FOLDER))


def _measured(lesson: Path) -> tuple[str, str]:
    """CPU seconds and peak MB of a lesson in a process of its own, as text. Raises ValueError if it fails."""
    program = (sys.executable, "-m", "bench", "lessons", "--worker", str(lesson))
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{lesson.name} fails: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    seconds, megabytes = json.loads(done.stdout.strip().splitlines()[-1])
    return f"{seconds:.0f}", f"{megabytes:.0f}"
