"""`python -m bench NAME …`: runs one of the programs of this folder."""

import importlib
import sys

from vivit.extras import missing

PROGRAMS = {
    "forward": "the four models at ViViT-B/16x2 on this device, beside other implementations",
    "attention": "the attention cores on this device, timed",
    "schedule": "cycles of attention and of the models as scheduled for a TPU, without one",
    "load": "seconds and memory to load a checkpoint, beside plain safetensors",
    "compile": "seconds to compile each model, B, L and H",
    "train": "a training step on this device, beside PyTorch; how long steps wait for their clips",
    "scale": "the training step compiled for slices of TPUs: memory a device, collectives",
    "decode": "frames of a clip from a file, beside PyAV alone",
    "classify": "ten seconds of 720p, decoded, preprocessed, computed, beside Hugging Face's processor and model",
    "fuzz": "damaged real videos, decoded: no crash, no hang, bounded memory",
}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in PROGRAMS:
        listed = "; ".join(f"{name}: {what}" for name, what in PROGRAMS.items())
        print(f"usage: python -m bench NAME [OPTION ...]   with NAME one of   {listed}", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(f"bench.{sys.argv[1]}").main(sys.argv[2:])
    except ModuleNotFoundError as error:
        print(f"bench {sys.argv[1]}: {missing(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
