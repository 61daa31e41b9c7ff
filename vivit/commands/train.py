"""`vivit train`: a training run on a user's videos, or the carousel's comparison; from flags, a JSON file, or both."""

import argparse
import ast
import json
import logging
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.logging import RichHandler
from rich.progress import TextColumn

from vivit.commands.run_types import SWITCHES, TEXTS, checked
from vivit.commands.shown import clips_progress, console
from vivit.commands.shown import show as show_table
from vivit.commands.table import Table
from vivit.reference.values import shortened

if TYPE_CHECKING:
    from vivit.training.loop import Progress
    from vivit.training.recipe import Recipe

COMPARISON = "carousel"
OWN = {  # what a JSON file may hold beside a recipe's fields; flags have the same names
    "data": "a folder with a folder for each class, or a CSV or JSONL file of path, label and optionally start and end",
    "heads": "columns of the table that are labels, such as verb noun",
    "multi_label": "any number of labels, separated by |",
    "recipe": "a published recipe, whose fields flags replace; or carousel: the built-in comparison",
    "model": "a named variant, vivit-b/16x2-fe, …, or a JSON file of Config's fields",
    "start": "a checkpoint to start from; none: fresh weights",
    "image": "start is an image model; its kernel becomes central_frame or inflation",
    "folder": "where the run lives; a run that is there goes on",
    "save_every": "steps between checkpoints",
    "keep": "checkpoints",
    "validate_every": "steps between validations (default: an epoch)",
    "mesh": "devices along data, sequence and model, 8,1,1",
    "threads": "that decode",
    "broken": "videos that cannot be used: fail or skip",
    "cache": "a folder for decoded frames",
    "memory": "gigabytes that the model and a batch may take (default: 16, or what the machine has if that is less)",
    "cluster": "join the other processes of the pod or cluster that this one runs in",
    "address": "host:port of process 0, where no cluster says it; with --processes and --process",
    "processes": "how many there are",
    "process": "which one this is, from 0",
}
LISTS = ("heads",)


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "train",
        help="train on your own videos, or the carousel's comparison",
        example="vivit train --data videos/ --recipe k400-b-fe --epochs 10 --folder runs/first",
    )
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="CONFIG", help="a JSON file of the same names as the flags"
    )
    own = parser.add_argument_group("the run")
    for name, text in OWN.items():
        flag = f"--{name.replace('_', '-')}"
        if name in SWITCHES:
            own.add_argument(flag, action="store_true", default=None, help=text)
        elif name in LISTS:
            own.add_argument(flag, nargs="+", default=None, help=text)
        else:
            own.add_argument(flag, default=None, type=str if name in TEXTS else _value, help=text)
    chosen = parser.add_argument_group("fields of the recipe (vivit/training/recipe.py says what they mean)")
    for name in _recipe_fields():
        chosen.add_argument(f"--{name.replace('_', '-')}", default=None, type=_value, metavar="…")
    parser.add_argument(
        "--print", action="store_true", help="print all choices as JSON, to be used as CONFIG, and stop"
    )
    parser.set_defaults(run=run)


def _recipe_fields() -> list[str]:
    from vivit.training.recipe import Recipe

    return [field.name for field in fields(Recipe)]


def _value(text: str) -> Any:
    """A number, True, None or a tuple as Python writes them; else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # what else may come of a text
        return text


def run(options: argparse.Namespace) -> int:
    """0; 143 if SIGTERM ended it, with everything saved."""
    from vivit.training.loop import InterruptedRunError

    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=console(stderr=True), show_path=False)],
    )
    said = _said(options)
    try:
        if said.get("recipe") == COMPARISON and "data" not in said:
            return _compare(said)
        return _train(said, options.print)
    except InterruptedRunError as error:
        print(f"vivit train: {error}", file=sys.stderr)
        return 143


def _said(options: argparse.Namespace) -> dict[str, Any]:
    """The file's choices with the flags' in their place. Raises ValueError for a name that is neither's."""
    from vivit.json_files import Fields, read_object

    known = [*OWN, *_recipe_fields()]
    said = {}
    if options.file is not None:
        stated = read_object(options.file)
        if unknown := shortened(", ".join(sorted(stated.values.keys() - set(known)))):
            raise ValueError(f"{options.file} has {unknown}: it must have names such as data, recipe, model")
        said = checked(stated)
    flags = {name: getattr(options, name) for name in known if getattr(options, name) is not None}
    if isinstance(flags.get("mesh"), tuple):
        flags["mesh"] = list(flags["mesh"])
    return said | checked(Fields(flags, "the command line"))


def _train(said: dict[str, Any], only_print: bool) -> int:
    import vivit
    from vivit.data.cache import Cache
    from vivit.data.opening import Limits
    from vivit.data.reading import read_data
    from vivit.figures import check_installed
    from vivit.memory import GB
    from vivit.training import start
    from vivit.training.initial import initial
    from vivit.training.inputs import check_training
    from vivit.training.logs import METRICS
    from vivit.training.loop import Run, train
    from vivit.training.plots import learning_curves
    from vivit.training.validation import evaluated, figures

    for name in ("data", "folder"):
        if name not in said:
            raise ValueError(f"--{name} is missing: it must be {OWN[name]}")
    check_installed()
    recipe, config = _recipe(said)
    allowed = Limits() if "memory" not in said else Limits(memory=max(1, round(said["memory"] * GB)))
    if only_print:
        print(json.dumps(said, indent=1))
        return 0
    if config is not None:
        check_training(config, recipe, allowed.memory)
    if said.get("cluster") or "address" in said:
        start.start(said.get("address"), said.get("processes"), said.get("process"))
    splits = read_data(said["data"], heads=said.get("heads"), multi_label=bool(said.get("multi_label")))
    if "train" not in splits:
        raise ValueError(f"{said['data']} has {', '.join(splits)}: it must have examples to train on")
    dataset = splits["train"]
    model = initial(dataset, config, said.get("start"), image=said.get("image"), seed=recipe.seed, limits=allowed)
    check_training(model.config, recipe, allowed.memory)
    folder = Path(said["folder"])
    options = {
        name: said[name] for name in ("save_every", "keep", "validate_every", "threads", "broken") if name in said
    }
    cache = Path(said["cache"]) if "cache" in said else None
    kept = None if cache is None else Cache(cache)
    mesh = tuple(said["mesh"]) if "mesh" in said else None
    chosen = Run(folder=folder, cache=cache, mesh=mesh, **options)

    def validate(model: vivit.Model, step: int) -> dict[str, float]:
        return figures(
            evaluated(model, splits["validation"], recipe, broken=chosen.broken, threads=chosen.threads, cache=kept)
        )

    with _Bar() as bar:
        show = partial(bar.show, "training", recipe.batch_size)
        trained = train(
            model, dataset, recipe, chosen, validate=validate if "validation" in splits else None, show=show
        )
    import jax

    if jax.process_index() == 0:
        vivit.save(folder / "model", trained)
        learning_curves(folder / METRICS, folder / "curves.png")
        print(f"wrote {folder / 'model'} and {folder / 'curves.png'}")
    return 0


def _recipe(said: dict[str, Any]) -> "tuple[Recipe, Any]":
    """The recipe with what was said in its place, and the model's config; a published recipe brings its own."""
    from vivit.commands.convert import read_config
    from vivit.training.recipe import Recipe, recipe

    chosen = {name: said[name] for name in _recipe_fields() if name in said}
    if isinstance(chosen.get("freeze"), str):
        chosen["freeze"] = tuple(chosen["freeze"].split(","))
    config = read_config(said["model"]) if "model" in said else None
    if "recipe" not in said:
        if "learning_rate" not in chosen:
            raise ValueError(
                "--learning-rate is missing: it must be a number, or --recipe must name a published recipe"
            )
        return Recipe(**chosen), config
    base = recipe(said["recipe"])
    for one, other in (("epochs", "steps"), ("warmup_epochs", "warmup_steps")):
        for name, rival in ((one, other), (other, one)):
            if name in chosen and rival not in chosen:
                chosen[rival] = None
    made = replace(base.recipe, **chosen)
    return made, config or (None if "start" in said and "image" not in said else base.config)


class _Bar:
    """A progress bar on standard error for each training, with clips a second, the loss and the time left."""

    def __init__(self) -> None:
        told = (TextColumn("loss {task.fields[loss]}"), TextColumn("{task.fields[left_out]}"))
        self._progress = clips_progress(*told)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, name: str, batch_size: int, progress: "Progress") -> None:
        if name not in self._tasks:
            total = progress.steps.total * batch_size
            self._tasks[name] = self._progress.add_task(name, total=total, loss="", left_out="")
        left_out = f"{progress.broken} videos left out" if progress.broken else ""
        loss = f"{progress.figures['loss']:.3f}"
        self._progress.update(self._tasks[name], completed=progress.step * batch_size, loss=loss, left_out=left_out)
        if progress.validation:
            figures = "  ".join(f"{name} {value:.3g}" for name, value in progress.validation.items())
            self._progress.console.print(f"step {progress.step}: {figures}", markup=False)


def _compare(said: dict[str, Any]) -> int:
    from vivit.training.carousel import rows
    from vivit.training.compare import compare

    with _Bar() as bar:
        show = partial(_shown_row, bar)
        outcomes = compare(Path(said.get("folder", "carousel")), rows(), threads=said.get("threads", 2), show=show)
    title = "Trained from scratch on the digit carousel, in percent of unseen scans (chance: verb 25, noun 10)"
    columns = ("what", "parameters", "steps", "seconds", "verb", "noun", "action")
    shown = [
        (
            one.name,
            f"{one.parameters:,}",
            str(one.steps),
            f"{one.seconds:.0f}",
            *(f"{value:.1f}" for value in (one.verb, one.noun, one.action)),
        )
        for one in outcomes
    ]
    show_table(Table(columns, shown, title=title), console())
    return 0


def _shown_row(bar: _Bar, name: str, progress: "Progress") -> None:
    from vivit.training.carousel import RECIPE

    bar.show(name, RECIPE.batch_size, progress)
