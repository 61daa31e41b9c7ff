"""The command line `vivit`: runs a command, and turns errors into one line on standard error and exit code 2."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from functools import partial

import vivit
from vivit.cli import process
from vivit.cli.parser import Parser
from vivit.reference.values import one_line

COMMANDS = {
    "classify": "print the most probable labels of videos",
    "features": "write features of videos, clip by clip, as arrays",
    "bulk": "features or labels of millions of videos on Ray, as resumable Parquet shards",
    "timeline": "print the labels of a long video over time; write subtitles or a page",
    "explain": "show which parts of a video a model attended to, as an HTML page",
    "audit": "compare production with the reference on a real video: all variants, or a checkpoint",
    "conform": "examine another implementation of attention or of the models, property by property",
    "puzzles": "write puzzles for learners: functions to be written; grade the solutions of one or many",
    "info": "print parameters and GFLOPs of the named variants, beside the paper's",
    "convert": "convert a checkpoint to another format, or start from an image model",
    "export": "write a program that runs without this package: StableHLO or ONNX",
    "data": "write a built-in dataset of real video files",
    "train": "train on your own videos, or run the carousel's comparison",
    "probe": "fit a new head for your own classes on a checkpoint's features, in one pass",
    "evaluate": "measure the accuracy of a checkpoint on labelled videos",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code: 0, 1 if an audit failed, 2 for bad input (one line on stderr)."""
    process.open_streams()
    options = _parser().parse_args(arguments)
    try:
        code = _run(options)
        sys.stdout.flush()  # raises BrokenPipeError here, not when the interpreter exits
        return code
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        process.discard_output()
        return 0
    except ModuleNotFoundError as error:
        print(f"vivit {options.command}: {missing(error)}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        if not process.interrupted():
            print(f"vivit {options.command}: {one_line(str(error))}", file=sys.stderr)
            return 2
    except KeyboardInterrupt:
        pass
    print(f"vivit {options.command}: interrupted", file=sys.stderr)
    return process.INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    if options.version:
        print(f"vivit {vivit.__version__}")
    elif options.command is None:
        _parser().print_help()
    else:
        return options.run(options)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="vivit", description="ViViT, the Video Vision Transformer.")
    parser.show_examples("vivit classify vivit/demo/*.mp4\nvivit COMMAND --help")
    parser.add_argument("--version", action="store_true", help="print the version, and stop")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, fill=partial(_add_arguments, name))
    return parser


def _add_arguments(name: str, parser: Parser) -> None:
    importlib.import_module(f"vivit.cli.{name}").add(parser)


EXTRAS = {
    "train": ("grain", "optax", "orbax", "tensorboardX"),
    "plot": ("matplotlib",),
    "probe": ("sklearn",),
    "bulk": ("ray", "pyarrow"),
    "onnx": ("jax2onnx", "onnxruntime"),
    "hub": ("huggingface_hub",),
    "sign": ("model_signing", "OpenSSL"),
    "tpu": ("libtpu",),
    "test": ("scikit-video",),
    "peers": ("torch", "transformers", "vit_pytorch", "einops", "openvino"),
    "conformance": ("hypothesis", "pytest"),
}


def missing(error: ModuleNotFoundError) -> str:
    """Returns one line that names the missing package and how to install it."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if module in modules:
            return f'{module} is not installed: install it with: pip install "vivit[{extra}]"'
    return f"{module or error} is not installed"
