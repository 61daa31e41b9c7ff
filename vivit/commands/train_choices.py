"""What `vivit train` is told: its flags with their descriptions, a JSON file of the same names, and what is missing."""

import argparse
import ast
from dataclasses import MISSING, asdict, fields, replace
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from vivit.commands import outputs
from vivit.commands.run_types import SWITCHES, TEXTS, checked
from vivit.reference.values import shortened
from vivit.training.recipe import REQUIRED, recipe_fields

if TYPE_CHECKING:
    from vivit.reference.config import Config
    from vivit.training.recipe import Recipe

COMPARISON = "carousel"
OWN = {  # what a JSON file may hold beside a recipe's fields; flags have the same names
    "data": "a folder with a folder for each class, or a CSV or JSONL file of path, label and optionally start and end",
    "heads": "columns of the table that are labels, such as verb noun",
    "multi_label": "any number of labels, separated by |",
    "recipe": "a published recipe, whose fields flags replace; or carousel: the built-in comparison",
    "model": "a named variant, vivit-b/16x2-fe, …, or a JSON file of Config's fields",
    "start": "a checkpoint to start from; None: fresh weights",
    "image": "start is an image model; its kernel becomes central_frame or inflation",
    "folder": "where the run lives; a run that is there goes on",
    "save_every": "steps between checkpoints",
    "keep": "checkpoints",
    "validate_every": "steps between validations; None: an epoch",
    "patience": "validations that may follow the best one before training ends; None: any number",
    "mesh": "devices along data, sequence and model, 8,1,1; None: all along data",
    "threads": "that decode",
    "broken": "videos that cannot be used: fail or skip",
    "cache": "a folder for decoded frames",
    "memory": "gigabytes that the model and a batch may take; None: 16, or what the machine has if that is less",
    "cluster": "join the other processes of the pod or cluster that this one runs in",
    "address": "host:port of process 0, where no cluster says it; with --processes and --process",
    "processes": "how many there are",
    "process": "which one this is, from 0",
}
LISTS = ("heads",)
NEEDED = ("data", "folder")
TOGETHER = ("address", "processes", "process")


def add_choices(parser: argparse.ArgumentParser) -> None:
    """CONFIG, and a flag for every choice of the run and every field of the recipe."""
    parser.add_argument(
        "file", nargs="?", type=outputs.path, metavar="CONFIG", help="a JSON file of the same names as the flags"
    )
    own = parser.add_argument_group("the run")
    defaults = _run_defaults()
    for name, text in OWN.items():
        default = defaults.get(name, REQUIRED if name in NEEDED else name not in SWITCHES and None)
        options: dict[str, Any] = dict(default=argparse.SUPPRESS, help=_help(text, default))
        if name in SWITCHES:
            options |= dict(action="store_true")
        elif name in LISTS:
            options |= dict(nargs="+", metavar="COLUMN")
        else:
            options |= dict(type=str if name in TEXTS else _value, metavar=name.upper())
        own.add_argument(_flag(name), **options)
    chosen = parser.add_argument_group("fields of the recipe (the defaults are those without --recipe)")
    for name, field in recipe_fields().items():
        chosen.add_argument(
            _flag(name),
            default=argparse.SUPPRESS,
            type=_value,
            metavar=_metavar(field.kind),
            help=_help(field.text, field.default),
        )


def read_choices(options: argparse.Namespace) -> dict[str, Any]:
    """The file's choices with the flags' in their place. Raises ValueError for a name that is neither's.

    A choice of the run that is None, or null in the file, is none; a field of the recipe may be None.
    """
    from vivit.json_files import Fields, read_object

    known = [*OWN, *recipe_fields()]
    said: dict[str, Any] = {}
    if options.file is not None:
        stated = read_object(options.file)
        if unknown := shortened(", ".join(sorted(stated.values.keys() - set(known)))):
            raise ValueError(f"{options.file} has {unknown}: it must have names such as data, recipe, model")
        said = checked(stated)
    flags = {name: value for name, value in vars(options).items() if name in known}
    if isinstance(flags.get("mesh"), tuple):
        flags["mesh"] = list(flags["mesh"])
    return said | checked(Fields(flags, "the command line"))


def check_complete(said: dict[str, Any], *, only_recipe: bool = False) -> None:
    """Raises ValueError that names all that is missing, at once. only_recipe: what a run needs beside that may be."""
    missing = [] if only_recipe else [f"--{name} is missing: it must be {OWN[name]}" for name in _needed(said)]
    if "recipe" not in said:
        if "learning_rate" not in said:
            missing.append("--learning-rate is missing: it must be a number, or --recipe must name a published recipe")
        if said.get("epochs") is None and said.get("steps") is None:
            missing.append("--epochs is missing: it must be a number, or --steps or --recipe must say how long")
    given = [name for name in TOGETHER if name in said]
    if not only_recipe and given and len(given) < len(TOGETHER):
        lacking = ", ".join(f"--{name}" for name in TOGETHER if name not in said)
        missing.append(f"--{given[0]} is given without {lacking}: they must be given together")
    if not only_recipe:
        missing += _uninstalled()
    if missing:
        raise ValueError("; ".join(missing))


def chosen_recipe(said: dict[str, Any]) -> "tuple[Recipe, Config | None]":
    """The recipe with what was said in its place, and the model's config; a published recipe brings its own."""
    from vivit.commands.convert import read_config
    from vivit.training.recipe import Recipe, recipe

    chosen = {name: said[name] for name in recipe_fields() if name in said}
    if isinstance(chosen.get("freeze"), str):
        chosen["freeze"] = tuple(chosen["freeze"].split(","))
    config = read_config(said["model"]) if "model" in said else None
    if "recipe" not in said:
        return Recipe(**chosen), config
    base = recipe(said["recipe"])
    for one, other in (("epochs", "steps"), ("warmup_epochs", "warmup_steps")):
        for name, rival in ((one, other), (other, one)):
            if name in chosen and rival not in chosen:
                chosen[rival] = None
    made = replace(base.recipe, **chosen)
    return made, config or (None if "start" in said and "image" not in said else base.config)


def comparison_choices(said: dict[str, Any]) -> dict[str, Any]:
    """All choices of the carousel's comparison. Raises ValueError for any that it does not take."""
    from vivit.training.carousel import RECIPE

    values = dict(recipe=COMPARISON, folder="carousel", threads=2) | asdict(RECIPE)
    free = ("folder", "threads")
    others = [name for name, value in said.items() if name not in free and value != _plain(values.get(name, MISSING))]
    if others:
        flags = ", ".join(map(_flag, others))
        raise ValueError(f"--recipe {COMPARISON} takes --folder and --threads, all else is its own: leave out {flags}")
    return values | said


def all_choices(said: dict[str, Any], recipe: "Recipe") -> dict[str, Any]:
    """Every choice of a run by name, as JSON data: what was said, the defaults, the recipe's values; None is none."""
    return dict.fromkeys(OWN) | _run_defaults() | said | asdict(recipe)


def _needed(said: dict[str, Any]) -> list[str]:
    """The names of OWN that a run cannot do without and that were not said."""
    needed = [*NEEDED]
    if "image" in said:
        needed.append("start")
    if "recipe" not in said and ("start" not in said or "image" in said):
        needed.append("model")
    return [name for name in needed if name not in said]


def _uninstalled() -> list[str]:
    from vivit.figures import check_installed

    try:
        check_installed()
    except ValueError as error:
        return [str(error)]
    return []


def _run_defaults() -> dict[str, Any]:
    """Those of loop.Run for the names that are flags too, which need not be imported for a --help."""
    from vivit.training.run import Run

    return {field.name: field.default for field in fields(Run) if field.name in OWN and field.default is not MISSING}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _help(text: str, default: Any) -> str:
    told = ",".join(map(str, default)) or "none" if isinstance(default, tuple) else default
    return f"{text} ({'required' if default == REQUIRED else f'default: {told}'})".replace("%", "%%")


def _metavar(kind: Any) -> str:
    """What a value of this type looks like."""
    if get_origin(kind) is Literal:
        return "{" + ",".join(get_args(kind)) + "}"
    if isinstance(kind, UnionType):
        return _metavar(get_args(kind)[0])
    if get_origin(kind) is tuple:
        return "PATTERN,…" if get_args(kind)[-1] is Ellipsis else ",".join("X" for _ in get_args(kind))
    return {bool: "{True,False}", int: "N", float: "X"}[kind]


def _plain(value: Any) -> Any:
    """As JSON would give it back."""
    return list(value) if isinstance(value, tuple) else value


def _value(text: str) -> Any:
    """A number, True, None or a tuple as Python writes them; else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # what else may come of a text
        return text
