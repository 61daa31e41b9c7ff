"""`vivit data carousel DIR`: writes the built-in dataset as real video files."""

import argparse

from rich.progress import Progress

from vivit.commands import outputs
from vivit.commands.shown import console
from vivit.printable import printable
from vivit.writing import check_folder


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "data",
        help="write a built-in dataset of real video files",
        example="vivit data carousel digits/",
    )
    parser.add_argument("name", choices=("carousel",), help="scanned digits that hop round: verb and noun to be told")
    parser.add_argument("folder", metavar="DIR", type=outputs.path, help="a folder that is empty or not there")
    parser.add_argument("--seed", type=int, default=0)
    for split, count in (("train", 4788), ("validation", 1200), ("test", 1200)):
        parser.add_argument(f"--{split}", type=int, default=count, metavar="N", help=f"videos (default: {count})")
    parser.add_argument("--frames", type=int, default=16, metavar="N", help="of a video (default: 16)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the videos, their tables and a card. 0."""
    from vivit.data.carousel import write_carousel  # here, so that `vivit info` needs no scikit-learn

    check_folder(options.folder, new=True)
    counts = dict(train=options.train, validation=options.validation, test=options.test)
    with Progress(console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("writing", total=sum(counts.values()))
        write_carousel(
            options.folder,
            seed=options.seed,
            frames=options.frames,
            progress=lambda *_: progress.advance(task),
            **counts,
        )
    tables = "train.csv, validation.csv and test.csv"
    print(f"wrote {sum(counts.values())} videos, {tables} in {printable(str(options.folder))}")
    return 0
