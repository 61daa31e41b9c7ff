"""`vivit features VIDEO… -o FILE.npz`: stages of clips that slide over videos, with time stamps."""

import argparse
import sys

from vivit.commands import outputs
from vivit.commands.chosen import add_checkpoint, add_clips, add_limits, add_videos, announce, limits, loaded
from vivit.commands.shown import clips_progress
from vivit.printable import printable


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "features",
        help="what a model makes of videos, clip by clip, as arrays",
        example="vivit features videos/ -o features.npz --stages prelogits",
    )
    add_videos(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=outputs.path,
        metavar="FILE.npz",
        help="the file to write, or - for standard output",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--stages",
        nargs="+",
        default=("prelogits", "frames"),
        metavar="STAGE",
        help="prelogits, features, logits, frames (a representation of each time index), last_tokens, or any stage of "
        "capture=, such as tokens or encoder/3/out (default: prelogits frames)",
    )
    parser.add_argument("--hop", type=int, metavar="N", help="frames from clip to clip (default: no gap, no overlap)")
    add_clips(parser, of="clips")
    add_limits(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0, or 2 if a video could not be used; the others' features are written all the same."""
    from vivit.inference.features import check_output, write_features  # here, so that `vivit info` need not load JAX
    from vivit.inference.videos import videos

    names = videos(options.videos)
    check_output(options.output, outputs.read_by(options, names))
    model, _ = loaded(options)
    settings = {name: getattr(options, name) for name in ("stages", "stride", "hop", "batch", "dtype")}
    allowed = limits(options)
    with clips_progress(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("features", total=None)
        broken = write_features(
            model,
            names,
            options.output,
            inputs=outputs.read_by(options, names),
            **settings,
            limits=allowed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for error in broken.values():
        print(f"vivit features: {printable(str(error))}", file=sys.stderr)
    if len(broken) < len(names):
        what = f"{', '.join(options.stages)} of {len(names) - len(broken)} videos"
        outputs.say_written(options.output, f"wrote {options.output}: {what}")
        announce(options)
    return 2 if broken else 0
