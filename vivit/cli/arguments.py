"""Arguments that several commands share: checkpoint, videos, views and limits."""

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from vivit.cli import outputs
from vivit.reference.values import MAX_COUNT, quoted

if TYPE_CHECKING:
    from vivit.pretrained import Model
    from vivit.video.container import Limits

LOAD_OPTIONS = ("frames", "height", "width", "labels", "preprocessing")  # arguments of vivit.load


def add_checkpoint(
    parser: argparse.ArgumentParser,
    *,
    required: bool = False,
    default: str = "the demo model that ships with the package",
) -> None:
    """Adds --checkpoint and its overrides. default: describes the checkpoint that is used without --checkpoint."""
    text = "any checkpoint that `vivit convert` reads" + ("" if required else f" (default: {default})")
    parser.add_argument("--checkpoint", required=required, metavar="PATH", help=text)
    overrides = parser.add_argument_group("fields that the checkpoint does not record, and another clip size")
    overrides.add_argument(
        "--labels", help="kinetics400, something_something_v2, or a file of names in the order of the logits"
    )
    overrides.add_argument(
        "--preprocessing", choices=("published", "hugging_face"), help="range of the pixels: -1…1 or -3…1"
    )
    for name in ("--frames", "--height", "--width"):
        overrides.add_argument(name, type=int, metavar="N")
    add_memory(parser)


def add_memory(parser: argparse.ArgumentParser) -> None:
    """Adds --memory."""
    text = "memory limit of the model and its clips (default: 16, or the machine's memory if that is less)"
    parser.add_argument("--memory", type=float, metavar="GB", help=text)


def add_videos(parser: argparse.ArgumentParser, *, several: bool = True) -> None:
    """Adds VIDEO, one or several."""
    if several:
        parser.add_argument("videos", nargs="+", metavar="VIDEO", help="files, folders, or - for standard input")
    else:
        parser.add_argument("video", metavar="VIDEO", help="a file, or - for standard input")


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Adds --max-pixels and --max-packets."""
    limited = parser.add_argument_group("limits of a video file")
    limited.add_argument("--max-pixels", type=int, metavar="N", help="pixels of one frame (default: 4096 x 4096)")
    limited.add_argument("--max-packets", type=int, metavar="N", help="packets of one file (default: 16,777,216)")


def add_clips(parser: argparse.ArgumentParser, *, batch: int = 4, dtype: bool = True, unit: str = "views") -> None:
    """Adds --stride, --batch and, if `dtype`, --dtype. unit: what a batch holds."""
    parser.add_argument(
        "--stride", type=int, metavar="N", help="frames from one sampled frame to the next (default: the checkpoint's)"
    )
    parser.add_argument("--batch", type=int, default=batch, metavar="N", help=f"{unit} per batch (default: {batch})")
    if dtype:
        parser.add_argument(
            "--dtype", choices=("float32", "bfloat16"), help="dtype of the matrix products (default: float32)"
        )


def add_views(parser: argparse.ArgumentParser, *, default: tuple[int, int] = (4, 3)) -> None:
    """Adds --views."""
    parser.add_argument(
        "--views",
        type=_views,
        default=default,
        metavar="TxS",
        help=f"views of a video: temporal clips x spatial crops (default: {default[0]}x{default[1]})",
    )


def add_stages(parser: argparse.ArgumentParser) -> None:
    """Adds --stages and --clip-stride, of features."""
    parser.add_argument(
        "--stages",
        nargs="+",
        default=("prelogits", "frames"),
        metavar="STAGE",
        help="prelogits, features, logits, frames (one representation per time index), last_tokens, or any stage of "
        "capture=, such as tokens or encoder/3/out (default: prelogits frames)",
    )
    parser.add_argument(
        "--clip-stride", type=int, metavar="N", help="frames from clip to clip (default: no gap, no overlap)"
    )


def add_top(parser: argparse.ArgumentParser) -> None:
    """Adds --top."""
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes per head (default: 5)")


def add_json(parser: argparse._ActionsContainer, *, page: bool = False) -> None:
    """Adds --json, and -o to write the same JSON to a file. page: -o can also write a page."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    text = "also write the JSON to a file" + (", or a page to one that ends in .html" if page else "")
    metavar = "FILE" if page else "FILE.json"
    parser.add_argument("-o", "--output", metavar=metavar, type=outputs.path, help=text)


def load_model(options: argparse.Namespace) -> "tuple[Model, str]":
    """Returns the model of --checkpoint and its name."""
    from vivit.demo import demo_checkpoint
    from vivit.pretrained import load  # here, so that `vivit info` need not load JAX

    chosen: dict[str, Any] = {name: getattr(options, name) for name in LOAD_OPTIONS} | {"limits": limits(options)}
    if options.checkpoint is None:
        return load(demo_checkpoint(), **chosen), "the demo model"
    return load(options.checkpoint, **chosen), options.checkpoint


def warn_demo_model(options: argparse.Namespace, *, unlabelled: bool = False) -> None:
    """Warns on standard error if the result is of the demo model, because no checkpoint was named.

    unlabelled: warns as well that the classes have numbers instead of names.
    """
    if options.checkpoint is None:
        warning = (
            "no --checkpoint: using the demo model that ships with the package; it knows seven camera moves (vivit "
            "data camera writes examples) and nothing else"
        )
        print(f"vivit {options.command}: {warning}", file=sys.stderr)
    if unlabelled:
        warning = "has no class names: pass --labels kinetics400, something_something_v2, or a file of names"
        print(f"vivit {options.command}: {options.checkpoint} {warning}", file=sys.stderr)


def limits(options: argparse.Namespace) -> "Limits":
    """Returns the Limits of --max-pixels, --max-packets (if the command has them) and --memory.

    Each must be positive.
    """
    from vivit.memory import GB
    from vivit.video.container import Limits

    values = {name: getattr(options, f"max_{name}", None) for name in ("pixels", "packets")}
    for name, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"--max-{name} is {quoted(value)}: it must be at least 1")
    if options.memory is not None and not 0 < options.memory <= MAX_COUNT:
        raise ValueError(f"--memory is {options.memory}: it must be gigabytes, more than 0 and at most {MAX_COUNT}")
    values["memory"] = None if options.memory is None else max(1, round(options.memory * GB))
    return Limits(**{name: value for name, value in values.items() if value is not None})


def _views(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{quoted(text)} must be clips x crops, such as 4x3")
    return int(found[1]), int(found[2])
