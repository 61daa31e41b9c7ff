"""`python -m bench probe`: `vivit probe` beside `vivit train --freeze`, which trains the same head by gradient descent.

Both commands run as a user runs them, on the same videos and from the same checkpoint; seconds include starting the
process and compiling. `vivit evaluate` then finds the accuracy of both, with one clip of each video. Without --data,
the task is a small digit carousel: four motions and ten digits, on which the demo model was not trained.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness import machine, parser, report
from vivit.cli import outputs
from vivit.cli.arguments import add_json
from vivit.cli.table import Table
from vivit.demo import demo_checkpoint
from vivit.pretrained import load

SPLITS = ("validation", "test")
PROBE, TRAIN = "vivit probe", "vivit train --freeze"


def main(arguments: Sequence[str]) -> int:
    asked = parser("probe", __doc__, "--epochs 20")
    asked.add_argument("--data", type=outputs.path, help="labelled videos in three splits (default: a small carousel)")
    asked.add_argument("--checkpoint", default=str(demo_checkpoint()), help="what to start from (default: the demo)")
    asked.add_argument("--stride", type=int, default=1, help="frames from one sampled frame to the next (default: 1)")
    asked.add_argument("--videos", type=int, default=800, help="of the carousel's training split (default: 800)")
    asked.add_argument("--epochs", type=int, default=20, help="of train (default: 20)")
    asked.add_argument("--learning-rate", type=float, default=0.03, help="of train, by AdamW (default: 0.03)")
    asked.add_argument("--batch-size", type=int, default=32, help="of train (default: 32)")
    add_json(asked)
    options = asked.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.data is None:
            options.data = folder / "carousel"
            held_out = ("--validation", "200", "--test", "200")
            _vivit("data", "carousel", str(options.data), "--train", str(options.videos), *held_out)
        found = {
            PROBE: _measured(_probe(options), "-o", folder / "probed", options),
            TRAIN: _measured(_train(options, folder / "cache"), "--folder", folder / "run", options),
        }
    heads = [(split, head) for split in SPLITS for head in found[PROBE]["top_1"][split]]
    columns = ("command", "seconds", "CPU seconds", "time ÷ train's", *(f"{head}, {split}" for split, head in heads))
    rows = [
        (
            name,
            f"{row['seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}",
            f"{row['seconds'] / found[TRAIN]['seconds']:.2f}",
            *(f"{100 * row['top_1'][split][head]:.1f}" for split, head in heads),
        )
        for name, row in found.items()
    ]
    title = f"A new head on frozen features, {options.epochs} epochs of train; top-1 in percent"
    report([Table(columns, rows, title=title)], [machine()], options, found)
    return 0


def _probe(options: argparse.Namespace) -> tuple[str, ...]:
    return ("probe", "--checkpoint", options.checkpoint, "--stride", str(options.stride), "--data", str(options.data))


def _train(options: argparse.Namespace, cache: Path) -> tuple[str, ...]:
    """Trains the head alone, without augmentation, in float32 and from cached frames: what the probe computes."""
    model = load(options.checkpoint)
    size = str(model.config.height)
    chosen = {
        "start": options.checkpoint,
        "freeze": "^(?!head)",
        "optimiser": "adamw",
        "weight_decay": 0,
        "learning_rate": options.learning_rate,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "stride": options.stride,
        "resize": model.preprocessing.resize or size,
        "crop": size,
        "scale_jitter": "1,1",
        "random_crop": False,
        "flip": 0,
        "dtype": "float32",
        "mesh": "1,1,1",
        "cache": cache,
        "data": options.data,
    }
    flags = ((f"--{name.replace('_', '-')}", str(value)) for name, value in chosen.items())
    return ("train", *(word for flag in flags for word in flag))


def _measured(command: Sequence[str], flag: str, output: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Returns seconds, CPU seconds and top-1 accuracies, by split and head, of a command that writes a checkpoint."""
    start, cpu = time.perf_counter(), _cpu_seconds()
    _vivit(*command, flag, str(output))
    row: dict[str, Any] = {"seconds": time.perf_counter() - start, "cpu_seconds": _cpu_seconds() - cpu, "top_1": {}}
    for split in SPLITS:
        evaluation = ("--checkpoint", str(output), "--views", "1x1", "--split", split, "--json")
        metrics = json.loads(_vivit("evaluate", str(options.data), *evaluation))
        row["top_1"][split] = {head: own["top_1"] for head, own in metrics["heads"].items()}
    return row


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _vivit(*words: str) -> str:
    """Runs a command of vivit and returns what it prints. Raises ValueError if it fails."""
    done = subprocess.run([sys.executable, "-m", "vivit", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"vivit {words[0]} fails: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return done.stdout
