"""`python -m bench NAME …`: runs one of the programs in this folder."""

import importlib
import sys
from typing import NoReturn

from vivit.cli.main import missing
from vivit.cli.process import open_streams, run
from vivit.reference.values import one_line

PROGRAMS = {
    "forward": "the four models at ViViT-B/16x2 on this device, beside other implementations",
    "attention": "the attention cores on this device, timed",
    "device": "every kernel checked on the attached TPU, timed, and set beside its schedule",
    "gpu": "cuDNN's attention checked on the attached CUDA GPU, and timed beside PyTorch",
    "schedule": "cycles of attention and of the models as scheduled for a TPU, without one",
    "tune": "block sizes of the attention kernels, by schedule or by time, into the kernels' table",
    "load": "seconds and memory to load a checkpoint, beside plain safetensors",
    "compile": "seconds to compile each model, B, L and H",
    "train": "a training step on this device, beside PyTorch; how long steps wait for their clips",
    "probe": "a new head on frozen features: vivit probe beside vivit train --freeze",
    "bulk": "videos a second of vivit bulk, beside the plain loop and a transformers pipeline",
    "scale": "the training step compiled for slices of TPUs: memory a device, collectives",
    "decode": "frames of a clip from a file, beside PyAV alone",
    "classify": "ten seconds of 720p, decoded, preprocessed, computed, beside Hugging Face's processor and model",
    "lessons": "seconds and memory of each lesson of docs/lessons",
    "mutants": "changes in the code, one at a time, that the tests find",
    "fuzz": "wrong checkpoints, run files, tables, flags and videos: no crash, no hang, bounded memory",
}


def main() -> NoReturn:
    """Runs a program of this folder and ends the process."""
    run("python -m bench", _program)


def _program() -> int:
    from vivit.cli.parser import Parser  # here, so that Ctrl-C is understood while it is imported

    open_streams()
    listed = "\n".join(f"  {name:10} {what}" for name, what in PROGRAMS.items())
    asked = Parser(prog="python -m bench", description=f"Measures one thing:\n{listed}", add_help=False)
    asked.show_examples("python -m bench forward --help")
    asked.add_argument("name", nargs="?", choices=PROGRAMS, metavar="NAME")
    name, rest = sys.argv[1:2], sys.argv[2:]
    if name in ([], ["-h"], ["--help"]):
        asked.print_help()
        return 0
    asked.parse_args(name)
    try:
        return importlib.import_module(f"bench.{name[0]}").main(rest)
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        print(f"python -m bench {name[0]}: {one_line(str(error))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"python -m bench {name[0]}: {missing(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    main()
