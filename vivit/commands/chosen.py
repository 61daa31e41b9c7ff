"""What the commands that run a model have in common: which checkpoint, which videos and views, and their limits."""

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from vivit.commands import outputs
from vivit.reference.values import MOST, quoted

if TYPE_CHECKING:
    from vivit.data.opening import Limits
    from vivit.model import Model

SAID = ("frames", "height", "width", "labels", "preprocessing")  # of vivit.load


def add_checkpoint(
    parser: argparse.ArgumentParser,
    *,
    required: bool = False,
    default: str = "the demo model that ships with the package",
) -> None:
    """--checkpoint, and what it may leave open. default: what there is in its place, unless it is required."""
    told = "what `vivit convert` reads" + ("" if required else f" (default: {default})")
    parser.add_argument("--checkpoint", required=required, metavar="PATH", help=told)
    said = parser.add_argument_group("what the checkpoint does not say, or the clips that you want")
    said.add_argument("--labels", help="kinetics400, something_something_v2, or a file: names in the logits' order")
    said.add_argument("--preprocessing", choices=("published", "hugging_face"), help="-1…1 or -3…1")
    for name in ("--frames", "--height", "--width"):
        said.add_argument(name, type=int, metavar="N")
    add_memory(parser)


def add_memory(parser: argparse.ArgumentParser) -> None:
    """--memory."""
    told = "that the model and its clips may take (default: 16, or what the machine has if that is less)"
    parser.add_argument("--memory", type=float, metavar="GB", help=told)


def add_videos(parser: argparse.ArgumentParser, *, several: bool = True) -> None:
    """VIDEO, one or several."""
    if several:
        parser.add_argument("videos", nargs="+", metavar="VIDEO", help="files, folders, or - for standard input")
    else:
        parser.add_argument("video", metavar="VIDEO", help="a file, or - for standard input")


def add_limits(parser: argparse.ArgumentParser) -> None:
    """--max-pixels and --max-packets."""
    allowed = parser.add_argument_group("what a file may ask of this machine")
    allowed.add_argument("--max-pixels", type=int, metavar="N", help="of one picture (default: 4096 x 4096)")
    allowed.add_argument("--max-packets", type=int, metavar="N", help="of one file (default: 16,777,216)")


def add_clips(parser: argparse.ArgumentParser, *, batch: int = 4, dtype: bool = True, of: str = "views") -> None:
    """How clips are taken and computed. dtype: whether that can be chosen. of: what a batch holds."""
    parser.add_argument("--stride", type=int, metavar="N", help="from frame to frame (default: the checkpoint's)")
    parser.add_argument("--batch", type=int, default=batch, metavar="N", help=f"{of} at once (default: {batch})")
    if dtype:
        parser.add_argument(
            "--dtype", choices=("float32", "bfloat16"), help="of the matmuls' operands (default: float32)"
        )


def add_views(parser: argparse.ArgumentParser) -> None:
    """--views."""
    parser.add_argument(
        "--views",
        type=_views,
        default=(4, 3),
        metavar="TxS",
        help="views of a video: clips in time x crops of each (default: 4x3)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json, and -o for the same in a file."""
    parser.add_argument("--json", action="store_true", help="print JSON in place of the text")
    parser.add_argument(
        "-o", "--output", metavar="FILE.json", type=outputs.path, help="write that JSON to a file as well"
    )


def loaded(options: argparse.Namespace) -> "tuple[Model, str]":
    """The model that is meant, and what to call it."""
    from vivit.checkpoints.load import load  # here, so that `vivit info` need not load JAX
    from vivit.demonstration import demo_checkpoint

    said: dict[str, Any] = {name: getattr(options, name) for name in SAID} | {"limits": limits(options)}
    if options.checkpoint is None:
        return load(demo_checkpoint(), **said), "the demo model"
    return load(options.checkpoint, **said), options.checkpoint


def announce(options: argparse.Namespace, *, numbered: bool = False) -> None:
    """Says on standard error, beside a result, what it is worth: whose it is, if no checkpoint was named.

    numbered: its classes are called by their numbers.
    """
    if options.checkpoint is None:
        said = (
            "no --checkpoint: the demo model that ships with the package, which knows hopping digits (vivit data "
            "carousel writes some) and nothing else"
        )
        print(f"vivit {options.command}: {said}", file=sys.stderr)
    if numbered:
        said = "does not name its classes: --labels takes kinetics400, something_something_v2, or a file of names"
        print(f"vivit {options.command}: {options.checkpoint} {said}", file=sys.stderr)


def limits(options: argparse.Namespace) -> "Limits":
    """What --max-pixels, --max-packets (where a command has them) and --memory allow, all of them positive."""
    from vivit.data.opening import Limits
    from vivit.memory import GB

    said = {name: getattr(options, f"max_{name}", None) for name in ("pixels", "packets")}
    for name, value in said.items():
        if value is not None and value < 1:
            raise ValueError(f"--max-{name} is {quoted(value)}: it must be at least 1")
    if options.memory is not None and not 0 < options.memory <= MOST:
        raise ValueError(f"--memory is {options.memory}: it must be gigabytes, more than 0 and at most {MOST}")
    said["memory"] = None if options.memory is None else max(1, round(options.memory * GB))
    return Limits(**{name: value for name, value in said.items() if value is not None})


def _views(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{quoted(text)} must be clips x crops, such as 4x3")
    return int(found[1]), int(found[2])
