"""`vivit train`: a training run on a user's videos, or the carousel's comparison; from flags, a JSON file, or both."""

import argparse
import json
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.logging import RichHandler

from vivit.commands.shown import console
from vivit.commands.shown import show as show_table
from vivit.commands.table import Table
from vivit.commands.train_choices import (
    COMPARISON,
    add_choices,
    all_choices,
    check_complete,
    chosen_recipe,
    comparison_choices,
    read_choices,
)
from vivit.commands.train_shown import Shown, planned
from vivit.paths import as_path

if TYPE_CHECKING:
    from vivit.data.sources import Dataset
    from vivit.training.loop import Plan, Progress

RUN = ("save_every", "keep", "validate_every", "patience", "threads", "broken")  # what is loop.Run's as it is


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "train",
        help="train on your own videos, or the carousel's comparison",
        example="vivit train --data videos/ --recipe k400-b-fe --epochs 10 --folder runs/first",
    )
    add_choices(parser)
    parser.add_argument(
        "--print", action="store_true", help="print all choices as JSON, to be used as CONFIG, and stop"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0; 128 and the signal's number if one ended it, with everything saved."""
    logging.basicConfig(  # before what is imported does it
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=console(stderr=True), show_path=False)],
    )
    from vivit.training.loop import InterruptedRunError
    from vivit.training.saving import quiet

    quiet()
    said = read_choices(options)
    comparison = said.get("recipe") == COMPARISON
    if options.print:
        print(json.dumps(comparison_choices(said) if comparison else _choices(said), indent=1))
        return 0
    try:
        return _compare(comparison_choices(said)) if comparison else _train(said)
    except InterruptedRunError as error:
        print(f"vivit train: {error}", file=sys.stderr)
        return 128 + error.number


def _choices(said: dict[str, Any]) -> dict[str, Any]:
    check_complete(said, only_recipe=True)
    return all_choices(said, chosen_recipe(said)[0])


def _train(said: dict[str, Any]) -> int:
    check_complete(said)
    recipe, config = chosen_recipe(said)

    import vivit
    from vivit.data.cache import Cache
    from vivit.data.opening import Limits
    from vivit.data.reading import read_data
    from vivit.memory import GB
    from vivit.training import start
    from vivit.training.initial import initial
    from vivit.training.inputs import check_training
    from vivit.training.logs import METRICS
    from vivit.training.loop import BEST, LAST, Run, train
    from vivit.training.plots import learning_curves
    from vivit.training.validation import evaluated, figures

    allowed = Limits() if "memory" not in said else Limits(memory=max(1, round(said["memory"] * GB)))
    if config is not None:
        check_training(config, recipe, allowed.memory)
    if said.get("cluster") or "address" in said:
        start.start(said.get("address"), said.get("processes"), said.get("process"))
    splits = read_data(said["data"], heads=said.get("heads"), multi_label=bool(said.get("multi_label")))
    if "train" not in splits:
        raise ValueError(f"{said['data']} has {', '.join(splits)}: it must have examples to train on")
    if "patience" in said and "validation" not in splits:
        raise ValueError(f"--patience is {said['patience']}: {said['data']} has no validation to be patient about")
    cache = as_path(said["cache"]) if "cache" in said else None
    kept = None if cache is None else Cache(cache)
    mesh = tuple(said["mesh"]) if "mesh" in said else None
    folder = as_path(said["folder"])
    chosen = Run(folder=folder, cache=cache, mesh=mesh, **{name: said[name] for name in RUN if name in said})

    def validate(model: vivit.Model, step: int) -> dict[str, float]:
        return figures(
            evaluated(model, splits["validation"], recipe, broken=chosen.broken, threads=chosen.threads, cache=kept)
        )

    import jax

    with Shown() as shown:
        if jax.process_index() == 0:
            _tell(splits, recipe, shown)
        dataset = splits["train"]
        model = initial(dataset, config, said.get("start"), image=said.get("image"), seed=recipe.seed, limits=allowed)
        check_training(model.config, recipe, allowed.memory)
        train(
            model,
            dataset,
            recipe,
            chosen,
            validate=validate if "validation" in splits else None,
            show=partial(shown.show, "training", recipe.batch_size),
            plan=partial(_tell_plan, shown),
        )
    if jax.process_index() == 0:
        learning_curves(folder / METRICS, folder / "curves.png")
        models = [str(folder / name) for name in (LAST, BEST) if (folder / name).is_dir()]
        print(f"wrote {', '.join(models)} and {folder / 'curves.png'}")
    return 0


def _tell(splits: "dict[str, Dataset]", recipe: Any, shown: Shown) -> None:
    """What is going to happen. Raises ValueError if the warm-up is longer than the training."""
    from vivit.training.overview import doubts, overview
    from vivit.training.recipe import steps_of

    for line in overview(splits, recipe, steps_of(recipe, len(splits["train"].examples))):
        shown.say(line)
    for doubt in doubts(splits, recipe):
        shown.say(f"warning: {doubt}")


def _tell_plan(shown: Shown, plan: "Plan") -> None:
    for line in planned(plan):
        shown.say(line)


def _compare(said: dict[str, Any]) -> int:
    from vivit.training.carousel import rows
    from vivit.training.compare import compare

    with Shown() as shown:
        show = partial(_shown_row, shown)
        outcomes = compare(as_path(said["folder"]), rows(), threads=said["threads"], show=show)
    title = "Trained from scratch on the digit carousel, in percent of unseen scans (chance: verb 25, noun 10)"
    columns = ("what", "parameters", "steps", "seconds", "verb", "noun", "action")
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


def _shown_row(shown: Shown, name: str, progress: "Progress") -> None:
    from vivit.training.carousel import RECIPE

    shown.show(name, RECIPE.batch_size, progress)
