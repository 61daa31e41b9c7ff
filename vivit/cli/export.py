"""`vivit export`: writes a checkpoint as one file that runs without this package: with JAX alone, or as ONNX."""

import argparse
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vivit.cli import outputs
from vivit.cli.arguments import add_checkpoint, limits, load_model, warn_demo_model
from vivit.cli.parser import Parser

if TYPE_CHECKING:
    from vivit.inference.export import Exported

NOTE = (
    "The program takes uint8 video [b frames height width 3] and returns float32 logits [b v]; it includes the weights "
    "and the scaling of pixels. FILE.json beside it has sizes, resizing, labels and hash. It runs in any process with "
    "jax and flatbuffers (pip install jax flatbuffers): jax.export.deserialize(open('FILE', 'rb').read()).call(clips). "
    "Attention: the Pallas kernels for tpu alone; XLA's operations for any other platforms, on a TPU too. "
    "Without --batch it takes any number of clips, one after the other; with --batch N exactly N, as one batch. "
    "It needs the JAX version that wrote it or a newer one; JAX guarantees compatibility for six months, so keep the "
    "checkpoint. --to onnx writes the same for ONNX Runtime, OpenVINO and other engines (extra [onnx])."
)


def add(parser: Parser) -> None:
    """Adds the arguments of the command."""
    note = textwrap.fill(NOTE, 79, break_on_hyphens=False)
    parser.show_examples(
        "vivit export -o model.stablehlo --platforms cpu,tpu\nvivit export -o model.onnx --to onnx", note
    )
    add_checkpoint(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        type=outputs.path,
        help="the program to write, .stablehlo or .onnx; - writes it to standard output, without FILE.json",
    )
    parser.add_argument("--to", choices=("stablehlo", "onnx"), default="stablehlo", help="format (default: stablehlo)")
    parser.add_argument(
        "--platforms",
        metavar="A,B",
        help="platforms of StableHLO, of cpu,cuda,rocm,tpu (default: cpu,cuda,tpu)",
    )
    parser.add_argument("--batch", type=int, metavar="N", help="clips per call (default: any number)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="dtype of the matrix products (default: float32)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the program and prints its description. Returns the exit code 0."""
    from vivit.inference.export import check_export, export  # here, so that `vivit info` need not load JAX

    platforms = None if options.platforms is None else tuple(options.platforms.split(","))
    settings: dict[str, Any] = dict(to=options.to, platforms=platforms, batch=options.batch, dtype=options.dtype)
    inputs = outputs.input_files(options)
    check_export(options.output, **settings, inputs=inputs)
    model, _ = load_model(options)
    written = export(model, options.output, **settings, inputs=inputs, limits=limits(options))
    for line in _lines(written):
        outputs.report_written(options.output, line)
    warn_demo_model(options)
    return 0


def _lines(written: "Exported") -> Iterator[str]:
    description = written.description
    video, logits = (_shape(description[name]) for name in ("input", "output"))
    platforms = description.get("platforms", ())
    engine = ", ".join(platforms) or f"ONNX opset {description['opset']}"
    yield f"wrote {written.path}: {description['bytes']:,} bytes, {video} to {logits}, for {engine}"
    if description["attention"] == "pallas":
        yield "attention: the Pallas kernels"
    else:
        kernels = "; a program for tpu alone (--platforms tpu) has the Pallas kernels" * ("tpu" in platforms)
        yield f"attention: XLA's operations{kernels}"
    if description["input"]["shape"][0] == "b":
        yield "batch: any number of clips, one after the other; with --batch N exactly N, as one batch"
    if written.description_path is not None:
        labels = "labels, " if description["labels"] is not None else "no labels (the checkpoint has none), "
        yield f"wrote {written.description_path}: {labels}sizes, resizing, config, sha256 {description['sha256']}"


def _shape(array: dict) -> str:
    return f"{array['dtype']}[{' '.join(map(str, array['shape']))}]"
