"""`vivit explain VIDEO -o report.html`: shows which parts of a video a model attended to, as a page or an image."""

import argparse
import sys
from pathlib import Path

from vivit.cli import outputs
from vivit.cli.arguments import (
    add_checkpoint,
    add_clips,
    add_limits,
    add_videos,
    add_views,
    limits,
    load_model,
    warn_demo_model,
)
from vivit.cli.parser import Parser
from vivit.files.atomic import STANDARD_OUTPUT
from vivit.files.paths import printable
from vivit.video.inputs import STANDARD_INPUT


def add(parser: Parser) -> None:
    """Adds the arguments of the command."""
    parser.show_examples("vivit explain video.mp4 -o report.html --checkpoint runs/first/model")
    add_videos(parser, several=False)
    parser.add_argument(
        "-o",
        "--output",
        type=outputs.path,
        metavar="FILE",
        help="file to write: a page (.html) or an image (.png); - writes the page to standard output",
    )
    parser.add_argument(
        "--png",
        nargs="?",
        const=True,
        type=outputs.path,
        metavar="FILE.png",
        help="write a still image (as well); default name: that of the page or the video",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--class",
        dest="target",
        metavar="LABEL",
        help="class whose relevance is shown first (default: the most probable)",
    )
    parser.add_argument(
        "--view",
        type=int,
        metavar="N",
        help="view to draw, from 1 (default: the one with the highest score of the class)",
    )
    add_views(parser)
    add_clips(parser, dtype=False)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes per head (default: 5)")
    add_limits(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the page or picture. Returns the exit code 0."""
    from vivit.explanation.compute import explain  # here, so that `vivit info` need not load JAX
    from vivit.explanation.saving import check_output, save
    from vivit.video.inputs import seekable

    written, inputs = _outputs(options), outputs.input_files(options, [options.video])
    for path in written:
        check_output(path, inputs)
    model, checkpoint = load_model(options)
    settings = {name: getattr(options, name) for name in ("target", "view", "views", "stride", "batch", "top")}
    name = "standard input" if options.video == STANDARD_INPUT else options.video
    with seekable(options.video) as path:
        explanation = explain(model, path, **settings, limits=limits(options), name=name, checkpoint=checkpoint)
    for path in written:
        warning = save(explanation, path, inputs)
        outputs.report_written(options.output or path, f"wrote {path}")
        if warning:
            print(f"vivit explain: {printable(str(path))}: {warning}", file=sys.stderr)
    warn_demo_model(options, unlabelled=model.labels is None)
    return 0


def _outputs(options: argparse.Namespace) -> list[Path]:
    """Returns the files to write. Raises ValueError if there are none."""
    written = [] if options.output is None else [options.output]
    if options.png is True:
        written.append(_default_name(options).with_suffix(".png"))
    elif options.png is not None:
        if str(options.png) == STANDARD_OUTPUT:
            raise ValueError("--png is -, standard output, which is for the page only: name a file")
        written.append(options.png)
    if not written:
        raise ValueError("no output is given: pass -o report.html or --png picture.png")
    return list(dict.fromkeys(written))


def _default_name(options: argparse.Namespace) -> Path:
    """Returns the name for an image without one: that of the page, or of the video."""
    if options.output is not None and str(options.output) != STANDARD_OUTPUT:
        return options.output
    return Path("standard-input" if options.video == STANDARD_INPUT else Path(options.video).name)
