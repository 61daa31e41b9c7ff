"""`vivit probe --data DATA --checkpoint PATH -o DIR`: fits a new head on the features of a checkpoint."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from vivit.cli import outputs
from vivit.cli.arguments import add_checkpoint, add_clips, add_limits, add_views, limits, load_model
from vivit.cli.console import clips_progress, console, say, show
from vivit.cli.parser import Parser
from vivit.cli.table import Table
from vivit.files.paths import printable

if TYPE_CHECKING:
    import numpy as np

    from vivit.inference.probe import Probe
    from vivit.pretrained import Model

VIEWS = (1, 1)


def add(parser: Parser) -> None:
    """Adds the arguments of the command."""
    parser.show_examples("vivit probe --data videos/ --checkpoint runs/first -o probed")
    parser.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        type=outputs.path,
        help="a folder with one folder per class, a CSV or JSONL table, or a folder of tables",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", type=outputs.path, help="the folder of the new checkpoint"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_checkpoint(parser, required=True)
    add_views(parser, default=VIEWS)
    add_clips(parser, batch=8)
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="decoding threads (default: 2)")
    parser.add_argument(
        "--broken", choices=("skip", "fail"), default="fail", help="videos that cannot be used (default: fail)"
    )
    parser.add_argument(
        "--features",
        metavar="DIR",
        type=outputs.path,
        help="of a run of vivit bulk features with this checkpoint, in place of opening the videos",
    )
    parser.add_argument("--heads", nargs="+", metavar="COLUMN", help="label columns of a table")
    add_limits(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the checkpoint and prints its accuracy on validation. Returns the exit code 0."""
    from vivit.checkpoints.save import check_dest, save
    from vivit.inference.probe import probe  # here, so that `vivit info` need not load JAX

    check_dest(options.output, "vivit", outputs.input_files(options))
    model, checkpoint = load_model(options)
    settings = {name: getattr(options, name) for name in ("stride", "views", "batch", "dtype", "threads", "broken")}
    features = _features(options, model)
    with clips_progress(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("features", total=None)
        result = probe(
            model,
            options.data,
            heads=options.heads,
            **settings,
            limits=limits(options),
            features=features,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    save(result.model, options.output)
    if options.json:
        print(json.dumps(_as_json(result, options, checkpoint), indent=1))
        return 0
    counts = " and ".join(f"{count:,} of {split}" for split, count in result.examples.items())
    say(printable(f"{options.data}: {counts}; validation in percent"), console(), soft_wrap=True)
    show(_table(result), console())
    for reason in result.broken.values():
        say(printable(f"left out: {reason}"), console(), soft_wrap=True)
    print(printable(f"wrote {options.output}"))
    return 0


def _features(options: argparse.Namespace, model: "Model") -> "dict[str, np.ndarray | ValueError] | None":
    """Returns the features of the run that --features names; None without it."""
    if options.features is None:
        return None
    from vivit.bulk import prelogits  # here: it needs the extra [bulk]
    from vivit.model_data import with_stride

    for name, default in (("views", VIEWS), ("dtype", None)):
        if getattr(options, name) != default:
            raise ValueError(f"--{name} is given with --features: those of a run were computed with its own options")
    return prelogits(options.features, with_stride(model, options.stride))


def _table(result: "Probe[Model]") -> Table:
    rows = [
        (
            printable(head),
            str(classes),
            f"{result.strengths[head]:g}",
            *(f"{100 * result.report['heads'][head][name]:.2f}" for name in ("top_1", "mean_class_accuracy")),
        )
        for head, classes in zip(result.model.head_names, result.model.config.classes, strict=True)
    ]
    return Table(("head", "classes", "L2 strength", "top-1", "mean class"), rows)


def _as_json(result: "Probe[Model]", options: argparse.Namespace, checkpoint: str) -> dict[str, Any]:
    heads = {
        head: {"strength": strength}
        | {name: result.report["heads"][head][name] for name in ("top_1", "mean_class_accuracy")}
        for head, strength in result.strengths.items()
    }
    return {
        "data": str(options.data),
        "checkpoint": checkpoint,
        "output": str(options.output),
        "examples": result.examples,
        "heads": heads,
        **({"action": result.report["action"]} if "action" in result.report else {}),
        "broken": result.broken,
    }
