"""`vivit bulk features SOURCE -o DIR`, `vivit bulk classify SOURCE -o DIR`: millions of videos on Ray Data."""

import argparse
import sys

from vivit.cli import outputs
from vivit.cli.arguments import (
    add_checkpoint,
    add_clips,
    add_limits,
    add_stages,
    add_top,
    add_views,
    limits,
    load_model,
    warn_demo_model,
)
from vivit.cli.console import videos_progress
from vivit.cli.parser import Parser
from vivit.files.paths import printable

OPTIONS = {
    "features": ("stages", "clip_stride", "batch", "dtype"),
    "classify": ("top", "views", "batch", "dtype"),
}
RUN = ("column", "shard_size", "workers", "address", "threads", "stride")


def add(parser: Parser) -> None:
    """Adds the arguments of the command."""
    parser.show_examples(
        "vivit bulk features videos/ -o features/ --workers 2\nvivit bulk classify videos.txt -o labels/"
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    features = actions.add_parser("features", help="write features of clips that slide over the videos")
    features.show_examples("vivit bulk features shards/ -o features/ --stages prelogits")
    _add_run(features)
    add_stages(features)
    add_clips(features, unit="clips")
    add_limits(features)
    classify = actions.add_parser("classify", help="write the most probable labels of the videos")
    classify.show_examples("vivit bulk classify videos.parquet -o labels/ --column path")
    _add_run(classify)
    add_views(classify)
    add_clips(classify)
    add_top(classify)
    add_limits(classify)


def _add_run(parser: Parser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        type=outputs.path,
        help="a folder, a list of paths (.txt), a Parquet table (.parquet) or a tar file (.tar); tar files among them "
        "stand for their videos",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="DIR",
        type=outputs.path,
        help="folder of the shards; an unfinished one is resumed",
    )
    add_checkpoint(parser)
    run = parser.add_argument_group("the run")
    run.add_argument("--column", default="video", metavar="NAME", help="of the paths in a table (default: video)")
    run.add_argument("--shard-size", type=int, default=64, metavar="N", help="videos per shard (default: 64)")
    run.add_argument("--workers", type=int, metavar="N", help="processes (default: one a GPU, or one for two cores)")
    run.add_argument("--threads", type=int, default=1, metavar="N", help="decoding threads of a worker (default: 1)")
    run.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster (default: Ray on this machine)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    """Returns the exit code 0, or 2 if a video could not be used; the others are in the shards all the same."""
    import jax  # here, so that `vivit info` need not load it

    from vivit.bulk import write  # here: it needs the extra [bulk]
    from vivit.files.atomic import check_folder

    check_folder(options.output, inputs=outputs.input_files(options))
    jax.config.update("jax_platforms", "cpu")  # of this process: the workers have the accelerators
    model, _ = load_model(options)
    settings = {name: getattr(options, name) for name in (*RUN, *OPTIONS[options.action])}
    with videos_progress(2) as bar:  # 2: more than one
        task = bar.add_task(f"bulk {options.action}", total=None)
        found = write(
            options.source,
            model,
            options.output,
            command=options.action,
            **settings,
            limits=limits(options),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    done = f"{found.videos - found.failed:,} of {found.videos:,} videos"
    print(
        printable(
            f"wrote {options.output}: {options.action} of {done} in {found.shards:,} shard{'s' * (found.shards > 1)}"
        )
    )
    if found.failed:
        left = f"{found.failed:,} of {found.videos:,} videos have a row with an error, such as: {found.error}"
        print(printable(f"vivit bulk: {left}"), file=sys.stderr)
    if found.failed < found.videos:
        warn_demo_model(options, unlabelled=options.action == "classify" and model.labels is None)
    return 2 if found.failed else 0
