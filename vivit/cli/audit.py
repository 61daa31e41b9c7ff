"""`vivit audit`: prints the table of vivit/audit/variants.py.

audit_checkpoint.py has --checkpoint, audit_verify.py --verify.
"""

import argparse
import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vivit.cli import audit_checkpoint, audit_verify, outputs
from vivit.cli.arguments import LOAD_OPTIONS, add_checkpoint, add_json
from vivit.cli.console import console, say, show
from vivit.cli.parser import Parser
from vivit.cli.table import FAIL, Table
from vivit.files.atomic import write_text
from vivit.files.paths import printable
from vivit.reference.config import Model

if TYPE_CHECKING:
    from vivit.audit.variants import VariantComparison


def add(parser: Parser) -> None:
    """The arguments of the command."""
    parser.show_examples(
        "vivit audit\n"
        "vivit audit video.mp4 --checkpoint runs/first/model -o audit.html\n"
        "vivit audit --checkpoint port --against transformers --dossier dossier\n"
        "vivit audit --verify dossier --checkpoint runs/first/model"
    )
    parser.add_argument("video", nargs="?", metavar="VIDEO", help="a video file (default: a clip of Big Buck Bunny)")
    add_checkpoint(parser, default="every variant with random weights")
    parser.add_argument("--model", choices=get_args(Model), help="only this model")
    parser.add_argument("--size", choices=("tiny", "base"), help="size of the models (default: tiny)")
    parser.add_argument("--verbose", action="store_true", help="print all figures of every row, and their meanings")
    add_json(parser, page=True)
    others = parser.add_argument_group("another implementation, and dossiers of a checkpoint")
    others.add_argument(
        "--against",
        metavar="WHAT",
        help="compare another implementation too: transformers, a Python module with a function `stages`, or an npz",
    )
    others.add_argument(
        "--dossier",
        type=outputs.path,
        metavar="DIR",
        help="write a folder that others can verify: a new or an empty one",
    )
    others.add_argument("--sign", type=outputs.path, metavar="KEY.pem", help="private key that signs the dossier")
    others.add_argument(
        "--verify", type=outputs.path, metavar="DIR", help="check the files of a dossier, and recompute its stages"
    )
    others.add_argument(
        "--public-key", type=outputs.path, metavar="KEY.pem", help="public key that the dossier must be signed with"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Returns the exit code: 0 if every variant, or every stage of a checkpoint, passes, else 1."""
    from vivit.audit.page import page  # here, so that `vivit info` need not load JAX
    from vivit.audit.report import variants_report
    from vivit.audit.variants import SIZES, audit, variants
    from vivit.video.clip import demo_video, read_clip

    inputs = outputs.input_files(options, [] if options.video is None else [options.video])
    outputs.check_json(options, inputs, page=True)
    for name, needed in (("sign", "dossier"), ("public_key", "verify")):
        if getattr(options, name) is not None and getattr(options, needed) is None:
            raise ValueError(f"--{name.replace('_', '-')} is for a dossier: pass --{needed} as well")
    if options.checkpoint is not None:
        if options.model is not None or options.size is not None:
            raise ValueError("--model and --size select random models: omit them with --checkpoint")
        if options.verify is not None:
            return audit_verify.run(options)
        return audit_checkpoint.run(options, inputs)
    for name in (*LOAD_OPTIONS, "against", "dossier", "verify"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} applies to a checkpoint: pass --checkpoint as well")
    size = options.size or "tiny"
    configs = variants(size, options.model)
    sizes = next(iter(configs.values()))
    path = demo_video() if options.video is None else options.video
    clip = read_clip(path, frames=sizes.frames, height=sizes.height, width=sizes.width)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        rows = list(progress.track(audit(clip, configs), total=2 * len(configs), description="auditing"))
    report = variants_report(rows, path, clip)
    text = json.dumps(report, indent=1) + "\n"
    if options.output is not None:
        is_page = options.output.suffix.lower() == ".html"
        write_text(options.output, page(report) if is_page else text, inputs=inputs)
    if options.json:
        print(text, end="")
    else:
        video = f"{printable(Path(path).name)}, {sizes.frames} frames of {sizes.height}x{sizes.width}"
        _print(rows, f"{video}, {SIZES[size]} sizes", verbose=options.verbose)
    return 0 if all(row.passed for row in rows) else 1


def _print(rows: "list[VariantComparison]", subject: str, *, verbose: bool) -> None:
    """Prints the table, the failures, and a sentence with the result."""
    out = console()
    title = f"Production against the float64 reference: {subject}"
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
    "GFLOPs: multiply-adds by the formula. compiler: half of the compiler's count, which includes elementwise work. "
    "error: largest difference of the logits from the reference. bound: twice the baseline's error in that dtype, "
    "which is itself limited, plus the rounding error of the largest logit."
)


def _summary(rows: "list[VariantComparison]", title: str) -> Table:
    """Returns one line per variant: its largest error as a fraction of the bound, in each dtype."""
    shown = []
    for name, group in groupby(rows, lambda row: row.variant):
        of_dtypes = list(group)
        part = max(row.error / row.bound for row in of_dtypes)
        shown.append((name, f"{100 * part:.0f} %", "pass" if all(row.passed for row in of_dtypes) else FAIL))
    return Table(("variant", "of bound", ""), shown, title=title)


def _every_figure(rows: "list[VariantComparison]", title: str) -> Table:
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
