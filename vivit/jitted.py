"""Jits the whole model: functions for its logits and for single stages, compiled once per shape.

`not_finite` finds the first stage, in the order of computation, that has NaN or infinity.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from vivit import models
from vivit.model_data import ModelData
from vivit.reference.config import Config
from vivit.reference.nearest import did_you_mean
from vivit.reference.params import Params, convert, shapes
from vivit.reference.values import quoted

Array = np.ndarray | jax.Array


@partial(jax.jit, static_argnames=("config", "dtype"))
def logits(
    params: Params, video: Array, frames_valid: Array | None = None, *, config: Config, dtype: str | None = None
) -> jax.Array:
    """Returns the logits of vivit.forward, float[b v]. Arguments as there."""
    return models.forward(params, video, config, frames_valid=frames_valid, dtype=dtype)


@partial(jax.jit, static_argnames=("config", "names", "dtype"))
def stages(
    params: Params, video: Array, *, config: Config, names: tuple[str, ...], dtype: str | None = None
) -> dict[str, jax.Array]:
    """Returns the stages with these names (those of capture=). The compiler omits computations that they do not need.

    video: [b frames height width 3], as in vivit.forward. Raises ValueError if the model has no such stage.
    """
    captured: dict[str, jax.Array] = {}
    models.forward(params, video, config, dtype=dtype, capture=captured)
    check_stages(names, tuple(captured))
    return {name: captured[name] for name in names}


@cache
def stage_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all stages of a clip by name, in order, without the batch axis. Computes no stage."""
    result: dict[str, tuple[int, ...]] = {}

    def run(params: Params, video: jax.Array) -> None:
        captured: dict[str, jax.Array] = {}
        models.forward(params, video, config, capture=captured)
        result.update((name, tuple(value.shape[1:])) for name, value in captured.items())

    params = convert(shapes(config), lambda _, leaf: jax.ShapeDtypeStruct(leaf.shape, np.float32))
    jax.eval_shape(run, params, jax.ShapeDtypeStruct((1, config.frames, config.height, config.width, 3), np.uint8))
    return result


def check_stages(names: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raises ValueError, naming some of the stages, if a name is not among them."""
    for name in names:
        if name not in known:
            few = ", ".join([*known[:8], "…", *known[-3:]])
            hint = did_you_mean(name, known)
            raise ValueError(f"stage is {quoted(name)}: {hint}it must be one of the model's {len(known)}: {few}")


WEIGHTS = (
    "weights"  # suffix of attention weights; not checked: they take gigabytes, and the next stage shows an overflow
)


def not_finite(model: ModelData, clip: np.ndarray, name: str, dtype: str | None = None) -> ValueError:
    """Returns the one-line error for a clip [frames height width 3] whose logits or stages are not finite.

    name: of the clip's video. dtype: as in vivit.forward.
    """
    video = np.asarray(model.preprocessed(clip[np.newaxis]))
    frames = np.isfinite(video.astype(np.float32)).all(axis=(0, 2, 3, 4))
    if not frames.all():
        return ValueError(f"{name} has pixels that are not finite, in frame {int(frames.argmin())} of a clip")
    names = tuple(stage for stage in stage_shapes(model.config) if not stage.endswith(WEIGHTS))
    finite = _finite(model.params, video, config=model.config, names=names, dtype=dtype)
    first = next((stage for stage in names if not finite[stage]), names[-1])
    return ValueError(
        f"{name} has no finite result: {first} is the first stage of the model that is not finite, its weights overflow"
    )


@partial(jax.jit, static_argnames=("config", "names", "dtype"))
def _finite(
    params: Params, video: np.ndarray, *, config: Config, names: tuple[str, ...], dtype: str | None
) -> dict[str, jax.Array]:
    """Returns for every stage with one of these names whether it is finite."""
    values = stages(params, video, config=config, names=names, dtype=dtype)
    return {name: jnp.isfinite(value).all() for name, value in values.items()}
