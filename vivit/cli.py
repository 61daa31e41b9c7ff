"""The command line: `vivit audit` and `vivit info`. It parses, shows, and turns errors into one line, exit 2."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from vivit import info
from vivit.reference.config import Model

RIGHT = {"justify": "right", "no_wrap": True}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code: 0, 1 if an audit failed, 2 for bad input (one line on stderr)."""
    options = _parser().parse_args(arguments)
    try:
        code = options.run(options)
        sys.stdout.flush()  # a reader that has gone is found here, not when the interpreter ends
        return code
    except BrokenPipeError:  # the reader, such as head, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"vivit {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"vivit {options.command}: interrupted", file=sys.stderr)
        return 130


def _parser() -> _Parser:
    parser = _Parser(prog="vivit", description="ViViT, the Video Vision Transformer.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    audit = commands.add_parser("audit", help="run every variant on a real video, production against the reference")
    audit.add_argument("video", nargs="?", metavar="VIDEO", help="a video file (default: the [demo] extra's clip)")
    audit.add_argument("--model", choices=get_args(Model), help="only this model")
    audit.add_argument("--size", choices=("tiny", "base"), default="tiny", help="of the models (default: tiny)")
    audit.add_argument("--json", metavar="FILE", type=Path, help="write the table there as well")
    audit.set_defaults(run=_audit)
    shown = commands.add_parser("info", help="the named variants: parameters and GFLOPs, beside the paper's")
    shown.add_argument("name", nargs="?", metavar="NAME", help="such as vivit-b/16x2 or vivit-b/16x2-fe (default: all)")
    shown.add_argument("--json", action="store_true", help="print JSON, the whole config included")
    shown.set_defaults(run=_info)
    return parser


def _audit(options: argparse.Namespace) -> int:
    from vivit.audit import SIZES, audit, variants  # here, so that `vivit info` need not load JAX
    from vivit.video import demo_video, read_clip

    if options.json is not None and not options.json.absolute().parent.is_dir():
        raise ValueError(f"--json {options.json}: the folder {options.json.absolute().parent} does not exist")
    configs = variants(options.size, options.model)
    sizes = next(iter(configs.values()))
    path = options.video or demo_video()
    clip = read_clip(path, frames=sizes.frames, height=sizes.height, width=sizes.width)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        rows = list(progress.track(audit(clip, configs), total=2 * len(configs), description="auditing"))
    title = f"{Path(path).name}, {sizes.frames} frames of {sizes.height}x{sizes.width}, {SIZES[options.size]} sizes"
    table = Table(title=f"Production against the float64 reference: {title}")
    table.add_column("variant", no_wrap=True)
    for name in ("dtype", "tokens", "parameters", "GFLOPs", "compiler", "ms", "error", "bound", ""):
        table.add_column(name, **RIGHT)
    for row in rows:
        table.add_row(
            row.variant,
            row.dtype,
            f"{row.tokens:,}",
            f"{row.parameters:,}",
            f"{row.formula_multiply_adds / 1e9:.4g}",
            f"{row.compiler_multiply_adds / 1e9:.4g}",
            f"{row.milliseconds:.4g}",
            f"{row.error:.1e}",
            f"{row.bound:.1e}",
            "pass" if row.passed else "[bold red]FAIL",
        )
    failed = [row for row in rows if not row.passed]
    console = _console()
    console.print(table)
    for row in failed:
        console.print(f"FAIL {row.variant}, {row.dtype}: first departs at {row.departs}", markup=False)
    console.print(
        "GFLOPs: multiply-adds from the formula; compiler: half of what it counts, element by element work included.\n"
        "error: largest difference of the logits from the reference. bound: twice the plain formulation's in that\n"
        "dtype, plus the rounding of the largest logit.",
        markup=False,
    )
    console.print(f"{len(rows) - len(failed)} of {len(rows)} pass")
    if options.json is not None:
        _write(options.json, json.dumps({"video": str(path), "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    return 1 if failed else 0


def _info(options: argparse.Namespace) -> int:
    variants = info.family(options.name)
    if options.json:
        print(json.dumps(info.as_json(variants), indent=1))
        return 0
    table = Table(title="Multiply-adds for one clip; in brackets the paper's table 2 (88.9 M, 455.2 G, ...)")
    table.add_column("variant", no_wrap=True)
    for name in ("clip", "tokens", "parameters", "[paper, M]", "GFLOPs", "[paper]"):
        table.add_column(name.replace("[", r"\["), **RIGHT)
    for one in variants:
        table.add_row(
            one.name,
            f"{one.config.frames}x{one.config.height}x{one.config.width}",
            f"{one.tokens:,}",
            f"{one.parameters:,}",
            _or_dash(one.paper_parameters_millions),
            f"{one.multiply_adds / 1e9:.4g}",
            _or_dash(one.paper_multiply_adds_billions),
        )
    _console().print(table)
    return 0


def _or_dash(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:g}"


def _console() -> Console:
    """Standard output; as wide as the table needs when it is not a terminal, so that a log keeps every column."""
    return Console(width=None if sys.stdout.isatty() else 160)


def _write(path: Path, text: str) -> None:
    """Writes under a temporary name beside the file, then renames: the file is whole or as it was."""
    descriptor, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
