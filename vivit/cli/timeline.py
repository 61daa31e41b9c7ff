"""`vivit timeline VIDEO`: prints the labels of a long video with their start and end; writes subtitles or a page."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivit.cli import outputs
from vivit.cli.arguments import add_checkpoint, add_clips, add_limits, add_videos, limits, load_model, warn_demo_model
from vivit.cli.console import clips_progress, console, show
from vivit.cli.parser import Parser
from vivit.cli.table import Table
from vivit.files.atomic import STANDARD_OUTPUT, check_writable, parent_folder, write_text
from vivit.files.paths import printable
from vivit.video.inputs import STANDARD_INPUT

if TYPE_CHECKING:
    from vivit.inference.timeline import Timeline

SUFFIXES = (".json", ".srt", ".vtt", ".html", ".htm")


def add(parser: Parser) -> None:
    """Adds the arguments of the command."""
    parser.show_examples("vivit timeline film.mp4 -o film.srt -o film.html --checkpoint runs/first/model")
    add_videos(parser, several=False)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "-o",
        "--output",
        action="append",
        default=[],
        type=outputs.path,
        metavar="FILE",
        help="also write a file: .json, subtitles (.srt or .vtt) or a page with the film (.html); may be repeated",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--enter", type=float, default=0.5, metavar="P", help="probability at which a label begins (default: 0.5)"
    )
    parser.add_argument(
        "--leave", type=float, default=0.3, metavar="P", help="probability below which it ends (default: 0.3)"
    )
    parser.add_argument(
        "--clip-stride", type=int, metavar="N", help="frames from clip to clip (default: a quarter of a clip)"
    )
    add_clips(parser, unit="clips")
    add_limits(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints and writes the labels. Returns the exit code 0."""
    from vivit.inference.timeline import timeline  # here, so that `vivit info` need not load JAX
    from vivit.video.inputs import seekable

    inputs = outputs.input_files(options, [options.video])
    for path in options.output:
        if str(path) == STANDARD_OUTPUT:
            raise ValueError("-o is -, standard output, which has the table: name a file, or pass --json")
        check_writable(path, suffixes=SUFFIXES, inputs=inputs)
    model, checkpoint = load_model(options)
    settings = {name: getattr(options, name) for name in ("enter", "leave", "stride", "clip_stride", "batch", "dtype")}
    with clips_progress(disable=not sys.stderr.isatty()) as bar, seekable(options.video) as file:
        task = bar.add_task("timeline", total=None)
        result = timeline(
            model,
            file,
            **settings,
            limits=limits(options),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    record = _as_json(result, options.video, checkpoint)
    if options.json:
        print(json.dumps(record, indent=1))
    else:
        show(_table(result), console())
    for path in options.output:
        write_text(path, _written(path, result, record, options, checkpoint), inputs=inputs)
        print(printable(f"wrote {path}"), file=sys.stderr if options.json else sys.stdout)
    warn_demo_model(options, unlabelled=model.labels is None)
    return 0


def _written(path: Path, result: "Timeline", record: dict, options: argparse.Namespace, checkpoint: str) -> str:
    """Returns the contents of a file, by its suffix."""
    from vivit.explanation.timeline_page import timeline_page
    from vivit.inference.subtitles import srt, vtt

    heads = len(result.probabilities) > 1
    suffix = path.suffix.lower()
    if suffix == ".json":
        return json.dumps(record, indent=1) + "\n"
    if suffix in (".srt", ".vtt"):
        return (srt if suffix == ".srt" else vtt)(result.spans, heads=heads)
    streamed = options.video == STANDARD_INPUT
    name = "standard input" if streamed else Path(options.video).name
    film = None if streamed else options.video
    return timeline_page(result, name=name, checkpoint=Path(checkpoint).name, film=film, folder=parent_folder(path))


def _table(result: "Timeline") -> Table:
    from vivit.inference.subtitles import clock

    heads = len(result.probabilities) > 1
    rows = [
        (
            clock(span.start),
            clock(span.end),
            *([printable(span.head)] if heads else []),
            printable(span.label),
            f"{100 * span.probability:.2f} %",
        )
        for span in result.spans
    ]
    columns = ("start", "end", *(["head"] if heads else []), "label", "probability")
    return Table(columns, rows, texts=len(columns) - 1)


def _as_json(result: "Timeline", video: str, checkpoint: str) -> dict[str, Any]:
    return {
        "video": video,
        "checkpoint": checkpoint,
        "start": float(result.edges[0]),
        "end": float(result.edges[-1]),
        "spans": [span._asdict() for span in result.spans],
    }
