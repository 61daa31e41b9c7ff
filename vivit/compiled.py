"""A model jitted as a whole, once for each shape and kind: its logits, or the stages that are asked for."""

from functools import cache, partial

import jax
import numpy as np

from vivit import models
from vivit.reference.config import Config
from vivit.reference.nearest import did_you_mean
from vivit.reference.params import Params, convert, shapes
from vivit.reference.values import quoted

Array = np.ndarray | jax.Array


@partial(jax.jit, static_argnames=("config", "dtype"))
def logits(
    params: Params, video: Array, frames_valid: Array | None = None, *, config: Config, dtype: str | None = None
) -> jax.Array:
    """float[b v], as vivit.forward computes them. Arguments as vivit.forward's."""
    return models.forward(params, video, config, frames_valid=frames_valid, dtype=dtype)


@partial(jax.jit, static_argnames=("config", "names", "dtype"))
def stages(
    params: Params, video: Array, *, config: Config, names: tuple[str, ...], dtype: str | None = None
) -> dict[str, jax.Array]:
    """The stages of these names (as capture= calls them); the compiler leaves out what none of them needs.

    video: [b frames height width 3], as vivit.forward's. Raises ValueError for a name that the model does not have.
    """
    captured: dict[str, jax.Array] = {}
    models.forward(params, video, config, dtype=dtype, capture=captured)
    check_stages(names, tuple(captured))
    return {name: captured[name] for name in names}


@cache
def stage_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Every stage of one clip by name, in order, with its shape without the batch axis. Nothing is computed."""
    found: dict[str, tuple[int, ...]] = {}

    def run(params: Params, video: jax.Array) -> None:
        captured: dict[str, jax.Array] = {}
        models.forward(params, video, config, capture=captured)
        found.update((name, tuple(value.shape[1:])) for name, value in captured.items())

    params = convert(shapes(config), lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float32))
    jax.eval_shape(run, params, jax.ShapeDtypeStruct((1, config.frames, config.height, config.width, 3), np.uint8))
    return found


def check_stages(names: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raises ValueError, naming some that there are, if a name is none of the stages."""
    for name in names:
        if name not in known:
            few = ", ".join([*known[:8], "…", *known[-3:]])
            hint = did_you_mean(name, known)
            raise ValueError(f"stage is {quoted(name)}: {hint}it must be one of the model's {len(known)}: {few}")
