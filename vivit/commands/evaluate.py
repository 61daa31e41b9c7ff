"""`vivit evaluate DATA --checkpoint PATH`: the metrics of a model on labelled videos, as a table, JSON and pictures."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vivit.commands import outputs
from vivit.commands.chosen import add_checkpoint, add_clips, add_json, add_limits, add_views, limits, loaded
from vivit.commands.shown import clips_progress, console, say, show
from vivit.commands.table import Table
from vivit.printable import printable
from vivit.writing import check_place, write_text

SPLITS = ("train", "validation", "test", "all")


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "evaluate",
        help="the accuracy of a checkpoint on labelled videos",
        example="vivit evaluate videos/ --checkpoint runs/first/model --split test",
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        type=outputs.path,
        help="a folder with a folder a class, a CSV or JSONL, or a folder of these",
    )
    add_checkpoint(parser, required=True)
    parser.add_argument("--split", choices=SPLITS, default="test", help="(default: test)")
    add_views(parser)
    add_clips(parser, batch=8)
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="that decode (default: 2)")
    parser.add_argument(
        "--broken", choices=("skip", "fail"), default="fail", help="what cannot be used (default: fail)"
    )
    parser.add_argument("--short", choices=("loop", "pad"), default="loop", help="short videos (default: loop)")
    parser.add_argument("--shorter-side", type=int, metavar="N", help="pixels before crops (default: the checkpoint's)")
    parser.add_argument(
        "--progress", type=outputs.path, metavar="FOLDER", help="keep progress there, and go on from it"
    )
    add_limits(parser)
    table = parser.add_argument_group("what a table does not say")
    table.add_argument("--heads", nargs="+", metavar="COLUMN", help="the label columns, in the order of the heads")
    table.add_argument("--multi-label", action="store_true", help="any number of labels an example: mAP")
    written = parser.add_argument_group("what is written")
    add_json(written)
    written.add_argument(
        "--confusion", metavar="FILE.png", type=outputs.path, help="a picture a head (FILE-verb.png, …)"
    )
    written.add_argument(
        "--predictions",
        metavar="FILE.csv",
        type=outputs.path,
        help="a row a video: its labels, the best five, probabilities",
    )
    written.add_argument("--per-class", action="store_true", help="print the table of classes too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0."""
    from vivit.data.reading import choose, read_data  # here, so that `vivit info` need not load JAX
    from vivit.figures import check_installed
    from vivit.training import plots
    from vivit.training.evaluate import evaluate
    from vivit.training.predictions import write_predictions

    _check_outputs(options)
    if options.confusion is not None:
        check_installed()
        if options.multi_label:
            raise ValueError("--confusion is for one label an example: leave it or --multi-label out")
    dataset = choose(read_data(options.data, heads=options.heads, multi_label=options.multi_label), options.split)
    videos = [example.path for example in dataset.examples]
    _check_outputs(options, videos, dataset.heads)
    model, _ = loaded(options)
    if model.labels is None:
        raise ValueError(f"{options.checkpoint} does not name its classes: say --labels, so that they can be matched")
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
            plots.confusion_matrix(counts, names, _picture(options, head, dataset.heads), title=title)
    return 0


def _check_outputs(options: argparse.Namespace, videos: Sequence[str] = (), heads: Sequence[str] = ("",)) -> None:
    """Raises ValueError unless the files can be written that are asked for. videos, heads: of the data."""
    inputs = outputs.read_by(options, videos)
    outputs.check_json(options, inputs)
    if options.predictions is not None:
        check_place(options.predictions, suffixes=(".csv",), inputs=inputs)
    for head in heads if options.confusion is not None else ():
        check_place(_picture(options, head, heads), suffixes=(".png",), inputs=inputs)


def _picture(options: argparse.Namespace, head: str, heads: Sequence[str]) -> Path:
    """The file of a head's confusion matrix, which has the head's name if there are several."""
    path: Path = options.confusion
    if len(heads) == 1:
        return path
    return path.with_stem("-".join([path.stem, re.sub(r"[^\w-]+", "_", head)]))  # what a file's name may hold


def _print(report: dict[str, Any], options: argparse.Namespace) -> None:
    out = console()
    clips, crops = report["views"]
    examples = f"{report['examples']:,} examples of {options.split}"
    views = f"{clips}x{crops} views at stride {report['stride']}"
    say(printable(f"{options.data}: {examples}, {views}; in percent"), out, soft_wrap=True)
    show(_metrics(report, options.multi_label), out)
    if options.per_class:
        for head, found in report["heads"].items():
            show(_classes(head, found["per_class"]), out)
    absent = "classes_without_positives" if options.multi_label else "classes_without_examples"
    for head, found in report["heads"].items():
        if found[absent]:
            say(f"{printable(head)}: {found[absent]} classes have no example and are in no mean", out)
    if report["left_out"]:
        of = report["left_out"] + report["examples"]
        out.print(f"left out {report['left_out']} of {of:,} examples, which cannot be used:", style="bold red")
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
    shown = [(printable(head), *(_percent(found.get(name)) for name in columns)) for head, found in rows.items()]
    return Table(("head", *columns.values()), shown)


def _classes(head: str, classes: list[dict[str, Any]]) -> Table:
    columns = ("class", *(name.replace("_", " ") for name in list(classes[0])[1:]))
    values = (one.values() for one in classes)
    shown = [(printable(name), f"{count:,}", _percent(value)) for name, count, value in values]
    return Table(columns, shown, title=printable(head))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
