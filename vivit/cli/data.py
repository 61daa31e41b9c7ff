"""`vivit data carousel DIR`, `vivit data camera DIR`: write a built-in dataset as real video files."""

import argparse

from rich.progress import Progress

from vivit.cli import outputs
from vivit.cli.console import console
from vivit.cli.parser import Parser
from vivit.files.atomic import check_folder
from vivit.files.paths import printable

SPLITS = ("train", "validation", "test")


def add(parser: Parser) -> None:
    """Adds the arguments of the command."""
    parser.show_examples("vivit data camera moves/")
    parser.add_argument(
        "name",
        choices=("carousel", "camera"),
        help="carousel: scanned digits that jump around a ring, with labels verb and noun; "
        "camera: real films with a simulated camera that is still, pans, tilts or zooms, with one label",
    )
    parser.add_argument("folder", metavar="DIR", type=outputs.path, help="a new or empty folder")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all random choices (default: 0)")
    for split, carousel, camera in (("train", 4788, 8400), ("validation", 1200, 140), ("test", 1200, 420)):
        default = f"(default: {carousel} of the carousel, {camera} of the camera)"
        parser.add_argument(f"--{split}", type=int, metavar="N", help=f"number of videos {default}")
    parser.add_argument(
        "--frames", type=int, metavar="N", help="frames per video (default: 16 of the carousel, 20 of the camera)"
    )
    parser.add_argument(
        "--size", type=int, metavar="N", help="height and width of the camera's videos in pixels (default: 96)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the videos, their tables and a description. Returns the exit code 0."""
    from vivit.data.camera import write_camera  # here, so that `vivit data --help` need not load PyAV
    from vivit.data.carousel import write_carousel

    names = (*SPLITS, "frames", "size")
    chosen = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.name == "carousel" and "size" in chosen:
        raise ValueError(f"--size is {options.size}: it is for the camera only, videos of the carousel have 24 pixels")
    write = {"carousel": write_carousel, "camera": write_camera}[options.name]
    check_folder(options.folder, new=True)
    with Progress(console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("writing", total=None)
        card = write(
            options.folder,
            seed=options.seed,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
            **chosen,
        )
    counts = {split: count for split, count in card["videos"].items() if count}
    *first, last = (f"{split}.csv" for split in counts)
    tables = f"{', '.join(first)} and {last}" if first else last
    print(f"wrote {sum(counts.values())} videos, {tables} in {printable(str(options.folder))}")
    return 0
