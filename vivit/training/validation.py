"""Validates a model during training with the recipe's clips, and tracks the best validation."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from vivit.data.clips import Broken
from vivit.data.sources import Dataset
from vivit.inference import metrics
from vivit.inference.evaluation import Result, evaluate
from vivit.pretrained import Model
from vivit.training.logs import METRICS, read_metrics
from vivit.training.recipe import Recipe
from vivit.video.cache import Cache


def evaluate_recipe(
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    *,
    views: tuple[int, int] = (1, 1),
    batch: int = 32,
    broken: Broken = "fail",
    threads: int = 2,
    cache: Cache | None = None,
) -> Result:
    """Evaluates a model on a dataset with the recipe's stride, frame size, short-video handling and frame shuffling."""
    return evaluate(
        model,
        dataset,
        stride=recipe.stride,
        views=views,
        batch=batch,
        short=recipe.short,
        broken=broken,
        threads=threads,
        shorter_side=recipe.resize,
        dtype=recipe.dtype,
        cache=cache,
        forward=_shuffling(model, recipe) if recipe.shuffle_frames else None,
    )


def figures(result: Result) -> dict[str, float]:
    """Returns the scalar metrics of an evaluation, by names such as "verb/top_1"."""
    return metrics.scalars(result.report)


def _shuffling(model: Model, recipe: Recipe) -> Callable[[np.ndarray | jax.Array, np.ndarray | None], jax.Array]:
    """Returns a forward function that shuffles the frames of every clip, with the same orders in every evaluation."""
    generator = np.random.default_rng(recipe.seed)

    def forward(video: np.ndarray | jax.Array, frames_valid: np.ndarray | None) -> jax.Array:
        shuffled = np.stack([clip[generator.permutation(len(clip))] for clip in np.asarray(video)])
        return model.logits(shuffled, frames_valid=frames_valid, dtype=recipe.dtype)

    return forward


SCORES = ("action/top_1", "map", "top_1")  # the first available one selects the best model; higher is better


@dataclass
class Best:
    """The best validation of a run.

    score: of the best so far. step: of the best, 0 if there is none. since_best: number of validations since. last:
    step of the last validation.
    """

    score: float = -np.inf
    step: int = 0
    since_best: int = 0
    last: int = 0

    def update(self, step: int, figures: dict[str, float]) -> bool:
        """Records the validation of a step. Returns whether it is the best so far; of equal scores the first is."""
        self.last = step
        score = next((figures[name] for name in SCORES if figures.get(name) is not None), -np.inf)
        if isfinite(score) and score > self.score:
            self.score, self.step, self.since_best = score, step, 0
            return True
        self.since_best += 1
        return False


def read_best(folder: Path) -> Best:
    """Returns the best validation in a run's log. In a cluster process 0 reads it for all processes."""
    best = Best()
    if jax.process_index() == 0 and (folder / METRICS).exists():
        for event in read_metrics(folder / METRICS):
            if event["kind"] == "validation":
                best.update(event["step"], event)
    if jax.process_count() > 1:
        # as uint32, since JAX would round float64
        packed = np.array([best.score, best.step, best.since_best, best.last]).view(np.uint32)
        score, *steps = np.asarray(multihost_utils.broadcast_one_to_all(packed)).view(np.float64).tolist()
        best = Best(score, *map(int, steps))
    return best
