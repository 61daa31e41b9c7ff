"""`vivit features VIDEO… -o FILE.npz`: writes features of clips that slide over videos, with time stamps."""

import argparse
import sys

from vivit.cli import outputs
from vivit.cli.arguments import (
    add_checkpoint,
    add_clips,
    add_limits,
    add_stages,
    add_videos,
    limits,
    load_model,
    warn_demo_model,
)
from vivit.cli.console import clips_progress
from vivit.cli.parser import Parser
from vivit.files.paths import printable


def add(parser: Parser) -> None:
    """Adds the arguments of the command."""
    parser.show_examples("vivit features videos/ -o features.npz --stages prelogits")
    add_videos(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=outputs.path,
        metavar="FILE.npz",
        help="the file to write; - is standard output",
    )
    add_checkpoint(parser)
    add_stages(parser)
    add_clips(parser, unit="clips")
    add_limits(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Returns the exit code 0, or 2 if a video could not be used; the features of the others are still written."""
    from vivit.inference.features import check_output, write_features  # here, so that `vivit info` need not load JAX
    from vivit.video.inputs import videos

    names = videos(options.videos)
    check_output(options.output, outputs.input_files(options, names))
    model, _ = load_model(options)
    settings = {name: getattr(options, name) for name in ("stages", "stride", "clip_stride", "batch", "dtype")}
    allowed = limits(options)
    with clips_progress(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("features", total=None)
        broken = write_features(
            model,
            names,
            options.output,
            inputs=outputs.input_files(options, names),
            **settings,
            limits=allowed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for error in broken.values():
        print(f"vivit features: {printable(str(error))}", file=sys.stderr)
    if len(broken) < len(names):
        summary = f"{', '.join(options.stages)} of {len(names) - len(broken)} videos"
        outputs.report_written(options.output, f"wrote {options.output}: {summary}")
        warn_demo_model(options)
    return 2 if broken else 0
