"""What the tests of training share: a small recipe, its examples, and steps taken."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from strategies import random_params, video

from vivit.conformance.quickly import QUICKLY
from vivit.reference.config import Config
from vivit.reference.params import leaves
from vivit.training import sharding
from vivit.training.recipe import Recipe, Steps
from vivit.training.step import Examples, init_state, make_step

STEPS = Steps(10, 2)
DROPS = {"dropout": 0.2, "attention_dropout": 0.3, "stochastic_depth": 0.4}


def small_recipe(**fields) -> Recipe:
    return Recipe(**{"learning_rate": 0.3, "steps": 10, "batch_size": 8, "dtype": "float32", "resize": 224, **fields})


def examples(config: Config, seed: int = 0, batch: int = 8, **fields) -> Examples:
    """Clips of which some are shorter than others, all of weight 1, unless the fields say otherwise."""
    rng = np.random.default_rng(seed)
    heads = [np.eye(count, dtype=np.float32)[rng.integers(count, size=batch)] for count in config.classes]
    valid = np.resize([6, 5, 4, 3, 2, 1, 6], batch).astype(np.int32)
    weight = np.ones(batch, np.float32)
    return Examples(video(config, seed, batch), np.concatenate(heads, axis=1), valid, weight)._replace(**fields)


def taken(config: Config, recipe: Recipe, *batches: Examples, **options) -> tuple[Any, dict]:
    """The state and metrics after a step for each of the batches, from random parameters. options: make_step's."""
    state = init_state(jax.tree.map(jnp.asarray, random_params(config, 1)), config, recipe, STEPS)
    mesh = options.get("mesh")
    if mesh is not None:
        state = sharding.shard_state(state, config, mesh)
        mine = sharding.local_rows(recipe.batch_size, mesh)
        read = [jax.tree.map(lambda leaf: leaf[mine], batch) for batch in batches]
        batches = tuple(sharding.shard_examples(batch, mesh) for batch in read)
    step = _compiled(
        config, replace(recipe, seed=0), tuple(options.items()), (state, batches[0])
    )  # the state has the seed
    metrics = {}
    for batch in batches:
        state, metrics = step(state, batch)
    return state, metrics


_STEPS: dict[Any, Any] = {}


def _compiled(config: Config, recipe: Recipe, options: tuple, arguments: tuple) -> Any:
    """A step compiled once."""
    key = (config, recipe, options, str(jax.tree.map(jnp.shape, arguments)))
    if key not in _STEPS:
        lowered = make_step(config, recipe, STEPS, **dict(options)).lower(*arguments)
        _STEPS[key] = lowered.compile(QUICKLY)
    return _STEPS[key]


def assert_same(actual: Any, expected: Any, tolerance: float = 2e-5) -> None:
    """Equal but for rounding, which is measured against the largest value of each leaf."""
    for (path, one), (_, other) in zip(leaves(actual), leaves(expected), strict=True):
        one, other = np.asarray(jax.device_get(one)), np.asarray(jax.device_get(other))
        largest = max(1e-3, float(np.abs(other).max()))
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * largest, err_msg=path)
