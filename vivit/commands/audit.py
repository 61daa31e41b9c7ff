"""`vivit audit`: the table of vivit/audit.py, as text and JSON; with --checkpoint see audit_checkpoint.py."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from vivit.commands import audit_checkpoint
from vivit.commands.chosen import SAID, add_checkpoint
from vivit.commands.shown import RIGHT, console
from vivit.reference.config import Model
from vivit.writing import check_place, write_text


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    audit = commands.add_parser(
        "audit", help="production against the reference on a real video: every variant, or a checkpoint"
    )
    audit.add_argument("video", nargs="?", metavar="VIDEO", help="a video file (default: the [demo] extra's clip)")
    add_checkpoint(audit, default="every variant with random weights")
    audit.add_argument("--model", choices=get_args(Model), help="only this model")
    audit.add_argument("--size", choices=("tiny", "base"), help="of the models (default: tiny)")
    audit.add_argument("--json", metavar="FILE", type=Path, help="write the table there as well")
    audit.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 if every variant passes, or every stage of a checkpoint, else 1."""
    from vivit.audit import SIZES, audit, variants  # here, so that `vivit info` need not load JAX
    from vivit.digests import HASHED, digest_of_file, digest_of_pixels
    from vivit.versions import source
    from vivit.video import demo_video, read_clip

    if options.json is not None:
        check_place(options.json)
    if options.checkpoint is not None:
        if options.model is not None or options.size is not None:
            raise ValueError("--model and --size choose among random models: leave them out with --checkpoint")
        return audit_checkpoint.run(options)
    for name in SAID:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} is of a checkpoint: name it with --checkpoint")
    size = options.size or "tiny"
    configs = variants(size, options.model)
    sizes = next(iter(configs.values()))
    path = options.video or demo_video()
    clip = read_clip(path, frames=sizes.frames, height=sizes.height, width=sizes.width)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        rows = list(progress.track(audit(clip, configs), total=2 * len(configs), description="auditing"))
    title = f"{Path(path).name}, {sizes.frames} frames of {sizes.height}x{sizes.width}, {SIZES[size]} sizes"
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
    out = console()
    out.print(table)
    for row in failed:
        out.print(f"FAIL {row.variant}, {row.dtype}: first departs at {row.departs}", markup=False)
    out.print(
        "GFLOPs: multiply-adds from the formula; compiler: half of what it counts, element by element work included.\n"
        "error: largest difference of the logits from the reference. bound: twice the plain formulation's in that\n"
        "dtype, which is capped itself, plus the rounding of the largest logit.",
        markup=False,
    )
    out.print(f"{len(rows) - len(failed)} of {len(rows)} pass")
    if options.json is not None:
        hashes = {"video": digest_of_file(path), "pixels": digest_of_pixels(clip)}
        report = {
            "video": str(path),
            "sha256": hashes,
            "hashed": {name: HASHED[name] for name in hashes},
            "vivit": source(),
            "rows": [asdict(row) for row in rows],
        }
        write_text(options.json, json.dumps(report, indent=1) + "\n")
    return 1 if failed else 0
