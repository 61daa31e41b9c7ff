"""`python -m bench train`: times a training step of ViViT-B/16x2 FE on this device, and the same model in PyTorch.

Both use the same weights, clip and labels; the loss and the gradient norm of the first step must agree. The PyTorch
model is built from nn.TransformerEncoderLayer. Momentum SGD, float32, no dropout. `python -m bench train --input`
measures the input pipeline: it trains ViViT-Ti on real video files and prints how long steps wait for clips.
"""

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import peers
from bench.film import films
from bench.harness import in_turns, machine, measure, parser, report
from vivit.audit.variants import random_params
from vivit.cli.table import Table
from vivit.data.sources import Dataset, Example
from vivit.pretrained import Model
from vivit.reference.config import named
from vivit.training.loop import Progress, Run, train
from vivit.training.recipe import Recipe, Steps, recipe
from vivit.training.step import Examples, init_state, make_step

AGREEMENT = 1e-3  # of loss and gradient norm, beyond which the two do not do the same work
RATE = 1e-4


def main(arguments: Sequence[str]) -> int:
    asked = parser("train", __doc__, "--rounds 1")
    asked.add_argument(
        "--name", default="vivit-b/16x2-fe", help="a named variant of model 2 (default: vivit-b/16x2-fe)"
    )
    asked.add_argument("--batch", type=int, default=1, help="clips in a step (default: 1)")
    asked.add_argument("--runs", type=int, default=3, help="steps in each process, after the first (default: 3)")
    asked.add_argument("--rounds", type=int, default=2, help="processes for each row, in turns (default: 2)")
    asked.add_argument("--input", action="store_true", help="how long the steps of ViViT-Ti wait for their clips")
    asked.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)  # IMPLEMENTATION FOLDER
    options = asked.parse_args(arguments)
    if options.input:
        return _input()
    if options.worker:
        implementation, folder = options.worker
        print(json.dumps(_work(implementation, Path(folder), options)))
        return 0
    names = [name for name in STEPS if name == "vivit" or importlib.util.find_spec("torch")]
    sizes = ("--name", options.name, "--batch", str(options.batch), "--runs", str(options.runs))
    with tempfile.TemporaryDirectory() as folder:
        commands: dict[str, Sequence[str]] = {
            name: ("-m", "bench", "train", *sizes, "--worker", name, folder) for name in names
        }
        results = in_turns(commands, options.rounds)
    columns = ("implementation", "seconds", "CPU seconds", "peak MB", "first step, s", "time ÷ vivit's")
    rows: list[tuple[str, ...]] = []
    for name, row in results.items():
        if isinstance(row, str):
            rows.append((name, row))
            continue
        ours = results["vivit"]
        ratio = "-" if isinstance(ours, str) else f"{row['seconds'] / ours['seconds']:.2f}"
        seconds = f"{row['seconds']:.3g}", f"{row['cpu_seconds']:.3g}"
        rows.append((name, *seconds, f"{row['peak_megabytes']:,.0f}", f"{row['first_seconds']:.3g}", ratio))
    title = f"A training step of {options.name}, {options.batch} clip(s), float32: medians"
    report([Table(columns, rows, title=title)], [machine()], options)
    return 1 if any(isinstance(row, str) for row in results.values()) else 0


def _work(implementation: str, folder: Path, options: argparse.Namespace) -> Any:
    """Runs one implementation in this process. The first writes its loss and norm; the others are compared."""
    config = named(options.name)
    generator = np.random.default_rng(1)
    shape = (options.batch, config.frames, config.height, config.width, 3)
    video = generator.uniform(-1, 1, shape).astype(np.float32)
    labels = np.eye(sum(config.classes), dtype=np.float32)[generator.integers(0, sum(config.classes), options.batch)]
    step = STEPS[implementation](random_params(config), video, labels, config)

    def check(first: np.ndarray) -> float:
        path = folder / "first.npy"
        if not path.exists():
            np.save(path, first)
        error = float(np.abs(first / np.load(path) - 1).max())
        if not error <= AGREEMENT:
            raise ValueError(f"loss and gradient norm are {first}: the other implementation has {np.load(path)}")
        return error

    return measure(step, check, options.runs)


def _ours(params: Any, video: np.ndarray, labels: np.ndarray, config: Any) -> Callable[[], np.ndarray]:
    chosen = Recipe(learning_rate=RATE, steps=1000, batch_size=len(video), clip_norm=None, dtype="float32")
    steps = Steps(1000, 0)
    update = make_step(config, chosen, steps)
    state = [init_state(jax.tree.map(jnp.asarray, params), config, chosen, steps)]
    examples = jax.device_put(Examples(video, labels))

    def step() -> np.ndarray:
        state[0], metrics = update(state[0], examples)
        return np.array([metrics["loss"], metrics["gradient_norm"]])

    return step


STEPS: dict[str, Callable[..., Callable[[], np.ndarray]]] = {"vivit": _ours, "pytorch": peers.torch_step}


def _input() -> int:
    """Trains ViViT-Ti, model 2, on segments of a real video with Kinetics' augmentation."""
    config = replace(named("vivit-b/16x2-fe"), channels=192, heads=3, hidden=768, classes=(4,))
    path = str(films()["bikes.mp4"])
    stretches = tuple(Example(path, ((index % 4,),), start=index / 4, end=index / 4 + 3) for index in range(24))
    dataset = Dataset(stretches, ("label",), (("a", "b", "c", "d"),))
    chosen = replace(
        recipe("k400-b-fe").recipe, batch_size=4, steps=8, epochs=None, warmup_epochs=None, dtype="float32"
    )
    waits: list[Progress] = []
    with tempfile.TemporaryDirectory() as folder:
        model = Model(config=config, params=random_params(config))
        train(model, dataset, chosen, Run(folder=Path(folder), mesh=(1, 1, 1)), show=waits.append)
    steady = waits[2:]  # the first steps compile, and find the buffer full
    seconds, waiting = (median(one.figures[name] for one in steady) for name in ("seconds", "waiting"))
    print(f"ViViT-Ti/16x2 FE, {chosen.batch_size} clips of 32x224x224 a step: {seconds:.2f} s, {waiting:.1%} waiting")
    print(machine())
    return 0
