"""`vivit evaluate DATA --checkpoint PATH`: computes a model's metrics on labelled videos.

It prints tables and writes JSON, predictions and confusion matrices.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vivit.cli import outputs
from vivit.cli.arguments import add_checkpoint, add_clips, add_json, add_limits, add_views, limits, load_model
from vivit.cli.console import clips_progress, console, say, show
from vivit.cli.parser import Parser
from vivit.cli.table import Table
from vivit.files.atomic import check_writable, write_text
from vivit.files.paths import printable

SPLITS = ("train", "validation", "test", "all")


def add(parser: Parser) -> None:
    """Adds the arguments of the command."""
    parser.show_examples("vivit evaluate videos/ --checkpoint runs/first/model --split test")
    parser.add_argument(
        "data",
        metavar="DATA",
        type=outputs.path,
        help="a folder with one folder per class, a CSV or JSONL table, or a folder of tables",
    )
    add_checkpoint(parser, required=True)
    parser.add_argument("--split", choices=SPLITS, default="test", help="split to evaluate (default: test)")
    add_views(parser)
    add_clips(parser, batch=8)
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="decoding threads (default: 2)")
    parser.add_argument(
        "--broken", choices=("skip", "fail"), default="fail", help="videos that cannot be used (default: fail)"
    )
    parser.add_argument(
        "--short", choices=("loop", "pad"), default="loop", help="videos shorter than a clip (default: loop)"
    )
    parser.add_argument(
        "--shorter-side",
        type=int,
        metavar="N",
        help="shorter side in pixels before cropping (default: the checkpoint's)",
    )
    parser.add_argument(
        "--progress", type=outputs.path, metavar="FOLDER", help="save progress in this folder, and resume from it"
    )
    add_limits(parser)
    table = parser.add_argument_group("reading a table")
    table.add_argument("--heads", nargs="+", metavar="COLUMN", help="label columns, in the order of the heads")
    table.add_argument("--multi-label", action="store_true", help="any number of labels per example; the metric is mAP")
    written = parser.add_argument_group("output")
    add_json(written)
    written.add_argument(
        "--confusion", metavar="FILE.png", type=outputs.path, help="draw a confusion matrix per head (FILE-verb.png, …)"
    )
    written.add_argument(
        "--predictions",
        metavar="FILE.csv",
        type=outputs.path,
        help="write a row per video: its labels, the best five classes and their probabilities",
    )
    written.add_argument("--per-class", action="store_true", help="also print the metrics of every class")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints or writes the metrics. Returns the exit code 0."""
    from vivit.data.reading import read_data, select_split  # here, so that `vivit info` need not load JAX
    from vivit.figures import check_installed
    from vivit.inference.evaluation import evaluate, write_predictions
    from vivit.training import plots

    _check_outputs(options)
    if options.confusion is not None:
        check_installed()
        if options.multi_label:
            raise ValueError("--confusion needs one label per example: omit it or --multi-label")
    dataset = select_split(read_data(options.data, heads=options.heads, multi_label=options.multi_label), options.split)
    videos = [example.path for example in dataset.examples]
    _check_outputs(options, videos, dataset.heads)
    model, _ = load_model(options)
    if model.labels is None:
        raise ValueError(f"{options.checkpoint} has no class names: pass --labels to match them with the data")
    settings = ("stride", "views", "batch", "dtype", "threads", "broken", "short", "shorter_side")
    with clips_progress() as bar:
        task = bar.add_task(f"evaluating {options.split}", total=None)
        result = evaluate(
            model,
            dataset,
            **{name: getattr(options, name) for name in settings},
            limits=limits(options),
            folder=options.progress,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _check_outputs(options, videos, dataset.heads)
    text = json.dumps({"data": str(options.data), "split": options.split, **result.report}) + "\n"
    if options.output is not None:
        write_text(options.output, text)
    if options.json:
        print(text, end="")
    else:
        _print(result.report, options)
    if options.predictions is not None:
        write_predictions(options.predictions, result)
    if options.confusion is not None:
        for head, names in zip(result.dataset.heads, result.dataset.names, strict=True):
            counts, title = np.array(result.report["heads"][head]["confusion"]), head * (len(dataset.heads) > 1)
            plots.confusion_matrix(counts, names, _confusion_path(options, head, dataset.heads), title=title)
    return 0


def _check_outputs(options: argparse.Namespace, videos: Sequence[str] = (), heads: Sequence[str] = ("",)) -> None:
    """Raises ValueError unless all requested files can be written. videos, heads: of the data."""
    inputs = outputs.input_files(options, videos)
    outputs.check_json(options, inputs)
    if options.predictions is not None:
        check_writable(options.predictions, suffixes=(".csv",), inputs=inputs)
    for head in heads if options.confusion is not None else ():
        check_writable(_confusion_path(options, head, heads), suffixes=(".png",), inputs=inputs)


def _confusion_path(options: argparse.Namespace, head: str, heads: Sequence[str]) -> Path:
    """Returns the path of a head's confusion matrix; with several heads it ends with the head's name."""
    path: Path = options.confusion
    if len(heads) == 1:
        return path
    return path.with_stem("-".join([path.stem, re.sub(r"[^\w-]+", "_", head)]))  # characters that file names allow


def _print(report: dict[str, Any], options: argparse.Namespace) -> None:
    out = console()
    clips, crops = report["views"]
    examples = f"{report['examples']:,} examples of {options.split}"
    views = f"{clips}x{crops} views at stride {report['stride']}"
    say(printable(f"{options.data}: {examples}, {views}; in percent"), out, soft_wrap=True)
    show(_metrics(report, options.multi_label), out)
    if options.per_class:
        for head, metrics in report["heads"].items():
            show(_classes(head, metrics["per_class"]), out)
    empty = "classes_without_positives" if options.multi_label else "classes_without_examples"
    for head, metrics in report["heads"].items():
        if metrics[empty]:
            say(f"{printable(head)}: {metrics[empty]} classes have no example and are excluded from means", out)
    if report["left_out"]:
        total = report["left_out"] + report["examples"]
        out.print(f"left out {report['left_out']} of {total:,} examples, which cannot be used:", style="bold red")
        for reason in report["broken"].values():
            say(f"  {printable(reason)}", out, soft_wrap=True)


def _metrics(report: dict[str, Any], multi_label: bool) -> Table:
    columns = (
        {"map": "mAP"} if multi_label else {"top_1": "top-1", "top_5": "top-5", "mean_class_accuracy": "mean class"}
    )
    rows = dict(report["heads"])
    if "action" in report:
        rows["action (all heads)"] = report["action"]
    if multi_label and len(rows) > 1:
        rows["all classes"] = report
    shown = [(printable(head), *(_percent(metrics.get(name)) for name in columns)) for head, metrics in rows.items()]
    return Table(("head", *columns.values()), shown)


def _classes(head: str, classes: list[dict[str, Any]]) -> Table:
    columns = ("class", *(name.replace("_", " ") for name in list(classes[0])[1:]))
    values = (one.values() for one in classes)
    shown = [(printable(name), f"{count:,}", _percent(value)) for name, count, value in values]
    return Table(columns, shown, title=printable(head))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
