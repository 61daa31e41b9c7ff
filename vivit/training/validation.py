"""How good a model is while it learns: one evaluation with the recipe's own clips, as a few figures for the log."""

from collections.abc import Callable

import jax
import numpy as np

from vivit.data.cache import Cache
from vivit.data.loading import Broken
from vivit.data.sources import Dataset
from vivit.model import Model
from vivit.training import metrics
from vivit.training.evaluate import Result, evaluate
from vivit.training.recipe import Recipe


def evaluated(
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
    """The model on a dataset, with the recipe's stride, size and treatment of short videos, and its control."""
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
    """The scalars of an evaluation, by names such as "verb/top_1"."""
    return metrics.scalars(result.report)


def _shuffling(model: Model, recipe: Recipe) -> Callable[[np.ndarray | jax.Array, np.ndarray | None], jax.Array]:
    """The forward of a model whose clips' frames come in random order, the same whenever it is evaluated."""
    generator = np.random.default_rng(recipe.seed)

    def forward(video: np.ndarray | jax.Array, frames_valid: np.ndarray | None) -> jax.Array:
        mixed = np.stack([clip[generator.permutation(len(clip))] for clip in np.asarray(video)])
        return model.logits(mixed, frames_valid=frames_valid, dtype=recipe.dtype)

    return forward
