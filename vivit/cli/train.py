"""`vivit train`: trains on a user's videos, or runs the carousel's comparison.

Options are given by flags, a JSON file, or both.
"""

import argparse
import json
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.logging import RichHandler

from vivit.cli.console import console
from vivit.cli.console import show as show_table
from vivit.cli.parser import Parser
from vivit.cli.table import Table
from vivit.cli.train_arguments import (
    COMPARISON,
    add_options,
    build_recipe,
    check_required,
    comparison_options,
    read_options,
    resolved_options,
)
from vivit.cli.train_progress import TrainProgress, describe_plan
from vivit.files.paths import as_path

if TYPE_CHECKING:
    from vivit.data.sources import Dataset
    from vivit.training.loop import Plan, Progress

RUN = ("save_every", "keep", "validate_every", "patience", "threads", "broken")  # passed to Run unchanged


def add(parser: Parser) -> None:
    """Adds the arguments of the command."""
    parser.show_examples("vivit train --data videos/ --recipe k400-b-fe --epochs 10 --folder runs/first")
    add_options(parser)
    parser.add_argument("--print", action="store_true", help="print all options as JSON, usable as CONFIG, and exit")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Returns the exit code 0, or 128 plus the number of the signal that ended the run, with its state saved."""
    logging.basicConfig(  # before an imported module configures it
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=console(stderr=True), show_path=False)],
    )
    from vivit.training.loop import InterruptedRunError
    from vivit.training.saving import silence_library_logs

    silence_library_logs()
    given = read_options(options)
    comparison = given.get("recipe") == COMPARISON
    if options.print:
        print(json.dumps(comparison_options(given) if comparison else _resolve(given), indent=1))
        return 0
    try:
        return _compare(comparison_options(given)) if comparison else _train(given)
    except InterruptedRunError as error:
        print(f"vivit train: {error}", file=sys.stderr)
        return 128 + error.number


def _resolve(given: dict[str, Any]) -> dict[str, Any]:
    check_required(given, only_recipe=True)
    return resolved_options(given, build_recipe(given)[0])


def _train(given: dict[str, Any]) -> int:
    check_required(given)
    recipe, config = build_recipe(given)

    import vivit
    from vivit.data.reading import read_data
    from vivit.memory import GB
    from vivit.training import distributed
    from vivit.training.from_checkpoint import initial_model
    from vivit.training.logs import METRICS
    from vivit.training.loop import BEST, LAST, Run, train
    from vivit.training.plots import learning_curves
    from vivit.training.transforms import check_training
    from vivit.training.validation import evaluate_recipe, figures
    from vivit.video.cache import Cache
    from vivit.video.container import Limits

    allowed = Limits() if "memory" not in given else Limits(memory=max(1, round(given["memory"] * GB)))
    if config is not None:
        check_training(config, recipe, allowed.memory)
    if given.get("cluster") or "address" in given:
        distributed.start(given.get("address"), given.get("processes"), given.get("process"))
    splits = read_data(given["data"], heads=given.get("heads"), multi_label=bool(given.get("multi_label")))
    if "train" not in splits:
        raise ValueError(f"{given['data']} has {', '.join(splits)}: it must have examples to train on")
    if "patience" in given and "validation" not in splits:
        raise ValueError(f"--patience is {given['patience']}: {given['data']} has no validation split")
    cache = as_path(given["cache"]) if "cache" in given else None
    kept = None if cache is None else Cache(cache)
    mesh = tuple(given["mesh"]) if "mesh" in given else None
    folder = as_path(given["folder"])
    chosen = Run(folder=folder, cache=cache, mesh=mesh, **{name: given[name] for name in RUN if name in given})

    def validate(model: vivit.Model, step: int) -> dict[str, float]:
        return figures(
            evaluate_recipe(
                model, splits["validation"], recipe, broken=chosen.broken, threads=chosen.threads, cache=kept
            )
        )

    import jax

    with TrainProgress() as progress:
        if jax.process_index() == 0:
            _print_overview(splits, recipe, progress)
        dataset = splits["train"]
        model = initial_model(
            dataset, config, given.get("start"), image=given.get("image"), seed=recipe.seed, limits=allowed
        )
        check_training(model.config, recipe, allowed.memory)
        train(
            model,
            dataset,
            recipe,
            chosen,
            validate=validate if "validation" in splits else None,
            show=partial(progress.show, "training", recipe.batch_size),
            plan=partial(_print_plan, progress),
        )
    if jax.process_index() == 0:
        learning_curves(folder / METRICS, folder / "curves.png")
        models = [str(folder / name) for name in (LAST, BEST) if (folder / name).is_dir()]
        print(f"wrote {', '.join(models)} and {folder / 'curves.png'}")
    return 0


def _print_overview(splits: "dict[str, Dataset]", recipe: Any, progress: TrainProgress) -> None:
    """Prints the data, the schedule and warnings. Raises ValueError if the warm-up is not shorter than the training."""
    from vivit.cli.train_progress import describe_data, questionable_choices
    from vivit.training.recipe import schedule_steps

    for line in describe_data(splits, recipe, schedule_steps(recipe, len(splits["train"].examples))):
        progress.print_line(line)
    for warning in questionable_choices(splits, recipe):
        progress.print_line(f"warning: {warning}")


def _print_plan(progress: TrainProgress, plan: "Plan") -> None:
    for line in describe_plan(plan):
        progress.print_line(line)


def _compare(given: dict[str, Any]) -> int:
    from vivit.training.carousel import compare, rows

    with TrainProgress() as progress:
        show = partial(_show_row, progress)
        outcomes = compare(as_path(given["folder"]), rows(), threads=given["threads"], show=show)
    title = "Trained from scratch on the digit carousel, in percent of unseen scans (chance: verb 25, noun 10)"
    columns = ("model", "parameters", "steps", "seconds", "verb", "noun", "action")
    rows_shown = [
        (
            one.name,
            f"{one.parameters:,}",
            str(one.steps),
            f"{one.seconds:.0f}",
            *(f"{value:.1f}" for value in (one.verb, one.noun, one.action)),
        )
        for one in outcomes
    ]
    show_table(Table(columns, rows_shown, title=title), console())
    return 0


def _show_row(shown: TrainProgress, name: str, progress: "Progress") -> None:
    from vivit.training.carousel import RECIPE

    shown.show(name, RECIPE.batch_size, progress)
