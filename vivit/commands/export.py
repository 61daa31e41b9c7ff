"""`vivit export`: a checkpoint as one file that runs wherever JAX is, without this package."""

import argparse
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vivit.commands import outputs
from vivit.commands.chosen import add_checkpoint, announce, limits, loaded

if TYPE_CHECKING:
    from vivit.inference.export import Exported

NOTE = (
    "The program takes uint8 video [b frames height width 3] and returns float32 logits [b v]; weights and the scaling "
    "of pixels are inside. FILE.json beside it says sizes, resizing, labels and hash. It runs in any process with jax "
    "and flatbuffers (pip install jax flatbuffers): jax.export.deserialize(open('FILE', 'rb').read()).call(clips). "
    "Attention: for tpu alone the Pallas kernels; for any other choice of platforms XLA's form, on a TPU too. "
    "Without --batch any number of clips is taken, one after the other; with --batch N exactly N, at once. "
    "JAX must be of the version that wrote it or newer, and promises half a year of newer ones: keep the checkpoint."
)


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "export",
        help="write a program that runs without this package",
        example="vivit export -o model.stablehlo --platforms cpu,tpu",
        epilog=textwrap.fill(NOTE, 79, break_on_hyphens=False),
    )
    add_checkpoint(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE.stablehlo",
        type=outputs.path,
        help="the program to write, or - for standard output, without its FILE.json",
    )
    parser.add_argument(
        "--platforms", default="cpu,cuda,tpu", metavar="A,B", help="of cpu,cuda,rocm,tpu (default: cpu,cuda,tpu)"
    )
    parser.add_argument("--batch", type=int, metavar="N", help="clips in a call (default: any number)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the matmuls' operands (default: float32)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0."""
    from vivit.inference.export import check_export, export  # here, so that `vivit info` need not load JAX

    settings: dict[str, Any] = dict(
        platforms=tuple(options.platforms.split(",")), batch=options.batch, dtype=options.dtype
    )
    inputs = outputs.read_by(options)
    check_export(options.output, **settings, inputs=inputs)
    model, _ = loaded(options)
    written = export(model, options.output, **settings, inputs=inputs, limits=limits(options))
    for line in _lines(written):
        outputs.say_written(options.output, line)
    announce(options)
    return 0


def _lines(written: "Exported") -> Iterator[str]:
    said = written.description
    video, logits = (_shape(said[name]) for name in ("input", "output"))
    yield f"wrote {written.path}: {said['bytes']:,} bytes, {video} to {logits}, for {', '.join(said['platforms'])}"
    if said["attention"] == "pallas":
        yield "attention: the Pallas kernels"
    else:
        kernels = "; a program for tpu alone (--platforms tpu) has the Pallas kernels" * ("tpu" in said["platforms"])
        yield f"attention: XLA's form{kernels}"
    if said["input"]["shape"][0] == "b":
        yield "batch: any number of clips, one after the other; with --batch N exactly N, at once"
    if written.description_path is not None:
        labels = "labels, " if said["labels"] is not None else "no labels (the checkpoint names none), "
        yield f"wrote {written.description_path}: {labels}sizes, resizing, config, sha256 {said['sha256']}"


def _shape(array: dict) -> str:
    return f"{array['dtype']}[{' '.join(map(str, array['shape']))}]"
