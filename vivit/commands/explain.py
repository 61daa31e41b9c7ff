"""`vivit explain VIDEO -o report.html`: what a model looked at, as a page and as a picture."""

import argparse
import sys
from pathlib import Path

from vivit.commands import outputs
from vivit.commands.chosen import add_checkpoint, add_clips, add_limits, add_videos, add_views, announce, limits, loaded
from vivit.inference.videos import STANDARD_INPUT
from vivit.printable import printable
from vivit.writing import STANDARD_OUTPUT


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "explain",
        help="what a model looked at, as a page that opens anywhere",
        example="vivit explain video.mp4 -o report.html --checkpoint runs/first/model",
    )
    add_videos(parser, several=False)
    parser.add_argument(
        "-o",
        "--output",
        type=outputs.path,
        metavar="FILE",
        help="the page to write, .html, or picture, .png; - is standard output, for the page",
    )
    parser.add_argument(
        "--png",
        nargs="?",
        const=True,
        type=outputs.path,
        metavar="FILE.png",
        help="write a still picture (as well); without a name it has the page's, or the video's",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--class", dest="target", metavar="LABEL", help="what relevance is of at first (default: the best)"
    )
    parser.add_argument(
        "--view", type=int, metavar="N", help="the one that is pictured, from 1 (default: surest of the class)"
    )
    add_views(parser)
    add_clips(parser, dtype=False)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes of each head (default: 5)")
    add_limits(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0."""
    from vivit.explain.compute import explain  # here, so that `vivit info` need not load JAX
    from vivit.explain.saving import check_output, save
    from vivit.inference.videos import seekable

    written, inputs = _outputs(options), outputs.read_by(options, [options.video])
    for path in written:
        check_output(path, inputs)
    model, checkpoint = loaded(options)
    settings = {name: getattr(options, name) for name in ("target", "view", "views", "stride", "batch", "top")}
    name = "standard input" if options.video == STANDARD_INPUT else options.video
    with seekable(options.video) as path:
        found = explain(model, path, **settings, limits=limits(options), name=name, checkpoint=checkpoint)
    for path in written:
        excuse = save(found, path, inputs)
        outputs.say_written(options.output or path, f"wrote {path}")
        if excuse:
            print(f"vivit explain: {printable(str(path))}: {excuse}", file=sys.stderr)
    announce(options, numbered=model.labels is None)
    return 0


def _outputs(options: argparse.Namespace) -> list[Path]:
    """The files that are meant. Raises ValueError if none is."""
    written = [] if options.output is None else [options.output]
    if options.png is True:
        written.append(_name_of(options).with_suffix(".png"))
    elif options.png is not None:
        if str(options.png) == STANDARD_OUTPUT:
            raise ValueError("--png is -, standard output, which takes the page alone: name a file")
        written.append(options.png)
    if not written:
        raise ValueError("nothing is to be written: it must be said with -o report.html or --png picture.png")
    return list(dict.fromkeys(written))


def _name_of(options: argparse.Namespace) -> Path:
    """What a picture without a name of its own is called after: the page, or the video."""
    if options.output is not None and str(options.output) != STANDARD_OUTPUT:
        return options.output
    return Path("standard-input" if options.video == STANDARD_INPUT else Path(options.video).name)
