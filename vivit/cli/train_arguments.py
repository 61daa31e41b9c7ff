"""Arguments of `vivit train`: flags with descriptions, a JSON file of the same names, and checks for missing ones."""

import argparse
import ast
from dataclasses import MISSING, asdict, fields, replace
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from vivit.cli import outputs
from vivit.files.json_files import Fields
from vivit.reference.values import shortened
from vivit.training.recipe import REQUIRED, recipe_fields

if TYPE_CHECKING:
    from vivit.reference.config import Config
    from vivit.training.recipe import Recipe


COMPARISON = "carousel"
RUN_OPTIONS = {  # options besides the recipe's fields, in a JSON file or as flags of the same names
    "data": "a folder with one folder per class, or a CSV or JSONL table of path, label and optionally start and end",
    "heads": "label columns of the table, such as verb noun",
    "multi_label": "any number of labels per example, separated by |",
    "recipe": "a published recipe, whose fields other flags override; or carousel: the built-in comparison",
    "model": "a named variant, vivit-b/16x2-fe, …, or a JSON file of Config's fields",
    "start": "a checkpoint to start from; None: fresh weights",
    "image": "start is an image model; how its kernel fills the tubelet: central_frame or inflation",
    "folder": "the folder of the run; an existing run resumes",
    "save_every": "steps between checkpoints",
    "keep": "number of checkpoints to keep",
    "validate_every": "steps between validations; None: one epoch",
    "patience": "validations without a new best after which training ends; None: no limit",
    "mesh": "devices along data, sequence and model, such as 8,1,1; None: all along data",
    "threads": "decoding threads",
    "broken": "videos that cannot be used: fail or skip",
    "cache": "a folder for decoded frames",
    "memory": "memory limit in gigabytes of the model and a batch; None: 16, or the machine's memory if that is less",
    "cluster": "join the other processes of this pod or cluster",
    "address": "host:port of process 0, outside of a cluster; with --processes and --process",
    "processes": "number of processes",
    "process": "index of this process, from 0",
}
TEXTS = ("data", "recipe", "model", "start", "image", "folder", "broken", "cache", "address")
COUNTS = ("save_every", "keep", "validate_every", "patience", "threads", "processes")
SWITCHES = ("multi_label", "cluster")
LISTS = ("heads",)
NEEDED = ("data", "folder")
TOGETHER = ("address", "processes", "process")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds CONFIG, and a flag for every option of the run and every field of the recipe."""
    parser.add_argument(
        "file", nargs="?", type=outputs.path, metavar="CONFIG", help="a JSON file with the names of the flags"
    )
    run_options = parser.add_argument_group("the run")
    defaults = _run_defaults()
    for name, text in RUN_OPTIONS.items():
        default = defaults.get(name, REQUIRED if name in NEEDED else name not in SWITCHES and None)
        options: dict[str, Any] = dict(default=argparse.SUPPRESS, help=_help(text, default))
        if name in SWITCHES:
            options |= dict(action="store_true")
        elif name in LISTS:
            options |= dict(nargs="+", metavar="COLUMN")
        else:
            options |= dict(type=str if name in TEXTS else _value, metavar=name.upper())
        run_options.add_argument(_flag(name), **options)
    recipe_options = parser.add_argument_group("fields of the recipe (defaults apply without --recipe)")
    for name, field in recipe_fields().items():
        recipe_options.add_argument(
            _flag(name),
            default=argparse.SUPPRESS,
            type=_value,
            metavar=_metavar(field.type),
            help=_help(field.text, field.default),
        )


def read_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of the file, overridden by those of the flags. Raises ValueError for an unknown name.

    An option of the run that is None, or null in the file, counts as not given; a field of the recipe may be None.
    """
    from vivit.files.json_files import Fields, read_object

    known = [*RUN_OPTIONS, *recipe_fields()]
    given: dict[str, Any] = {}
    if options.file is not None:
        fields_in_file = read_object(options.file)
        if unknown := shortened(", ".join(sorted(fields_in_file.values.keys() - set(known)))):
            raise ValueError(f"{options.file} has {unknown}: it must have names such as data, recipe, model")
        given = check_types(fields_in_file)
    flags = {name: value for name, value in vars(options).items() if name in known}
    if isinstance(flags.get("mesh"), tuple):
        flags["mesh"] = list(flags["mesh"])
    return given | check_types(Fields(flags, "the command line"))


def check_required(given: dict[str, Any], *, only_recipe: bool = False) -> None:
    """Raises ValueError that names all missing options at once. only_recipe: ignores options that only a run needs."""
    missing = [] if only_recipe else [f"--{name} is missing: it must be {RUN_OPTIONS[name]}" for name in _needed(given)]
    if "recipe" not in given:
        if "learning_rate" not in given:
            missing.append("--learning-rate is missing: it must be a number, unless --recipe names a published recipe")
        if given.get("epochs") is None and given.get("steps") is None:
            missing.append("--epochs is missing: it must be a number, unless --steps or --recipe is given")
    some = [name for name in TOGETHER if name in given]
    if not only_recipe and some and len(some) < len(TOGETHER):
        lacking = ", ".join(f"--{name}" for name in TOGETHER if name not in given)
        missing.append(f"--{some[0]} is given without {lacking}: they must be given together")
    if not only_recipe:
        missing += _missing_packages()
    if missing:
        raise ValueError("; ".join(missing))


def build_recipe(given: dict[str, Any]) -> "tuple[Recipe, Config | None]":
    """Returns the recipe with the given fields, and the model's config. A published recipe has its own config."""
    from vivit.cli.convert import read_config
    from vivit.training.recipe import Recipe, recipe

    chosen = {name: given[name] for name in recipe_fields() if name in given}
    if isinstance(chosen.get("freeze"), str):
        chosen["freeze"] = tuple(chosen["freeze"].split(","))
    config = read_config(given["model"]) if "model" in given else None
    if "recipe" not in given:
        return Recipe(**chosen), config
    base = recipe(given["recipe"])
    for one, other in (("epochs", "steps"), ("warmup_epochs", "warmup_steps")):
        for name, rival in ((one, other), (other, one)):
            if name in chosen and rival not in chosen:
                chosen[rival] = None
    made = replace(base.recipe, **chosen)
    return made, config or (None if "start" in given and "image" not in given else base.config)


def comparison_options(given: dict[str, Any]) -> dict[str, Any]:
    """Returns all options of the carousel's comparison. Raises ValueError for options that it does not take."""
    from vivit.training.carousel import RECIPE

    values = dict(recipe=COMPARISON, folder="carousel", threads=2) | asdict(RECIPE)
    free = ("folder", "threads")
    rejected = [
        name for name, value in given.items() if name not in free and value != _plain(values.get(name, MISSING))
    ]
    if rejected:
        flags = ", ".join(map(_flag, rejected))
        raise ValueError(f"--recipe {COMPARISON} takes only --folder and --threads: omit {flags}")
    return values | given


def resolved_options(given: dict[str, Any], recipe: "Recipe") -> dict[str, Any]:
    """Returns every option of a run by name, as JSON data: given values, defaults, and the recipe's values."""
    return dict.fromkeys(RUN_OPTIONS) | _run_defaults() | given | asdict(recipe)


def _needed(given: dict[str, Any]) -> list[str]:
    """Returns the required names of RUN_OPTIONS that are not given."""
    needed = [*NEEDED]
    if "image" in given:
        needed.append("start")
    if "recipe" not in given and ("start" not in given or "image" in given):
        needed.append("model")
    return [name for name in needed if name not in given]


def _missing_packages() -> list[str]:
    from vivit.figures import check_installed

    try:
        check_installed()
    except ValueError as error:
        return [str(error)]
    return []


def _run_defaults() -> dict[str, Any]:
    """Returns the defaults of Run for the names that are flags too."""
    from vivit.training.run import Run

    return {
        field.name: field.default for field in fields(Run) if field.name in RUN_OPTIONS and field.default is not MISSING
    }


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _help(text: str, default: Any) -> str:
    shown = ",".join(map(str, default)) or "none" if isinstance(default, tuple) else default
    return f"{text} ({'required' if default == REQUIRED else f'default: {shown}'})".replace("%", "%%")


def _metavar(type_: Any) -> str:
    """Returns a placeholder for a value of this type."""
    if get_origin(type_) is Literal:
        return "{" + ",".join(get_args(type_)) + "}"
    if isinstance(type_, UnionType):
        return _metavar(get_args(type_)[0])
    if get_origin(type_) is tuple:
        return "PATTERN,…" if get_args(type_)[-1] is Ellipsis else ",".join("X" for _ in get_args(type_))
    return {bool: "{True,False}", int: "N", float: "X"}[type_]


def _plain(value: Any) -> Any:
    """Returns the value as JSON would return it."""
    return list(value) if isinstance(value, tuple) else value


def _value(text: str) -> Any:
    """Converts text to a number, True, None or a tuple as in Python; other text is returned unchanged."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # literal_eval's errors for other text
        return text


def check_types(given: Fields) -> dict[str, Any]:
    """Returns the given options after checking their types; drops those that are None. Recipe checks its own fields.

    Raises ValueError that names the file, the option, its value and the requirement.
    """
    kept = {name: value for name, value in given.values.items() if value is not None or name not in RUN_OPTIONS}
    given = Fields(kept, given.source)
    for name in given.values.keys() & {*TEXTS}:
        if given.text(name) == "":
            raise given.wrong(name, "a text that is not empty")
    for name in given.values.keys() & {*COUNTS}:
        given.count(name)
    for name in given.values.keys() & {*SWITCHES}:
        given.flag(name)
    given.count("process", None, least=0)
    if "heads" in given and not given.texts("heads"):
        raise given.wrong("heads", "names of columns, at least one")
    given.counts("mesh", 3, None)
    if "memory" in given and not 0 < given.number("memory") <= 1e9:
        raise given.wrong("memory", "gigabytes, more than 0 and at most 1e9")
    return given.values
