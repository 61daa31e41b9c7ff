"""`vivit audit`: the table of vivit/audit.py, as text and JSON; with --checkpoint see audit_checkpoint.py."""

import argparse
import json
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vivit.commands import audit_checkpoint, outputs
from vivit.commands.chosen import SAID, add_checkpoint, add_json
from vivit.commands.shown import console, say, show
from vivit.commands.table import FAIL, Table
from vivit.printable import printable
from vivit.reference.config import Model
from vivit.writing import write_text

if TYPE_CHECKING:
    from vivit.audit import Row


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    audit = commands.add_parser(
        "audit",
        help="production against the reference on a real video: every variant, or a checkpoint",
        example="vivit audit\nvivit audit video.mp4 --checkpoint runs/first/model -o audit.json",
    )
    audit.add_argument("video", nargs="?", metavar="VIDEO", help="a video file (default: the [demo] extra's clip)")
    add_checkpoint(audit, default="every variant with random weights")
    audit.add_argument("--model", choices=get_args(Model), help="only this model")
    audit.add_argument("--size", choices=("tiny", "base"), help="of the models (default: tiny)")
    audit.add_argument("--verbose", action="store_true", help="print every figure of every row, and what they mean")
    add_json(audit)
    audit.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 if every variant passes, or every stage of a checkpoint, else 1."""
    from vivit.audit import SIZES, audit, variants  # here, so that `vivit info` need not load JAX
    from vivit.digests import HASHED, digest_of_file, digest_of_pixels
    from vivit.versions import source
    from vivit.video import demo_video, read_clip

    inputs = outputs.read_by(options, [] if options.video is None else [options.video])
    outputs.check_json(options, inputs)
    if options.checkpoint is not None:
        if options.model is not None or options.size is not None:
            raise ValueError("--model and --size choose among random models: leave them out with --checkpoint")
        return audit_checkpoint.run(options, inputs)
    for name in SAID:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} is of a checkpoint: name it with --checkpoint")
    size = options.size or "tiny"
    configs = variants(size, options.model)
    sizes = next(iter(configs.values()))
    path = demo_video() if options.video is None else options.video
    clip = read_clip(path, frames=sizes.frames, height=sizes.height, width=sizes.width)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        rows = list(progress.track(audit(clip, configs), total=2 * len(configs), description="auditing"))
    hashes = {"video": digest_of_file(path), "pixels": digest_of_pixels(clip)}
    report = {
        "video": str(path),
        "sha256": hashes,
        "hashed": {name: HASHED[name] for name in hashes},
        "vivit": source(),
        "rows": [audit_checkpoint.finite(asdict(row)) for row in rows],
    }
    text = json.dumps(report, indent=1) + "\n"
    if options.output is not None:
        write_text(options.output, text, inputs=inputs)
    if options.json:
        print(text, end="")
    else:
        video = f"{printable(Path(path).name)}, {sizes.frames} frames of {sizes.height}x{sizes.width}"
        _print(rows, f"{video}, {SIZES[size]} sizes", verbose=options.verbose)
    return 0 if all(row.passed for row in rows) else 1


def _print(rows: "list[Row]", what: str, *, verbose: bool) -> None:
    """The table, what failed where, and a sentence that says how it went."""
    out = console()
    title = f"Production against the float64 reference: {what}"
    show(_every_figure(rows, title) if verbose else _summary(rows, title), out)
    for row in rows:
        if not row.passed:
            say(f"FAIL {row.variant}, {row.dtype}: first departs at {row.departs}", out, soft_wrap=True)
    if verbose:
        say(MEANINGS, out)
    variants = [name for name, _ in groupby(rows, lambda row: row.variant)]
    failed = {row.variant for row in rows if not row.passed}
    if failed:
        say(f"{len(failed)} of {len(variants)} variants depart from the reference by more than their bound.", out)
    else:
        say(f"All {len(variants)} variants agree with the reference, in float32 and bfloat16.", out)


MEANINGS = (
    "GFLOPs: multiply-adds from the formula; compiler: half of what it counts, element by element work included. "
    "error: largest difference of the logits from the reference. bound: twice the plain formulation's in that dtype, "
    "which is capped itself, plus the rounding of the largest logit."
)


def _summary(rows: "list[Row]", title: str) -> Table:
    """A line a variant: its largest error as a part of the bound, in either dtype."""
    shown = []
    for name, group in groupby(rows, lambda row: row.variant):
        of_dtypes = list(group)
        part = max(row.error / row.bound for row in of_dtypes)
        shown.append((name, f"{100 * part:.0f} %", "pass" if all(row.passed for row in of_dtypes) else FAIL))
    return Table(("variant", "of bound", ""), shown, title=title)


def _every_figure(rows: "list[Row]", title: str) -> Table:
    columns = ("variant", "dtype", "tokens", "parameters", "GFLOPs", "compiler", "ms", "error", "bound", "")
    shown = [
        (
            row.variant,
            row.dtype,
            f"{row.tokens:,}",
            f"{row.parameters:,}",
            f"{row.formula_multiply_adds / 1e9:.4g}",
            f"{row.compiler_multiply_adds / 1e9:.4g}",
            f"{row.milliseconds:.4g}",
            f"{row.error:.1e}",
            f"{row.bound:.1e}",
            "pass" if row.passed else FAIL,
        )
        for row in rows
    ]
    return Table(columns, shown, texts=2, title=title)
