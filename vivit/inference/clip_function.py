"""The function that an exported program holds: from uint8 clips to logits, of a fixed or of any number of clips."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vivit.model_data import ModelData
from vivit.ops import Ops
from vivit.reference.config import COLORS, Config


def clip_function(model: ModelData, batch: int | None, dtype: str | None, ops: Ops) -> Callable[[jax.Array], jax.Array]:
    """Returns the function from clips uint8[b frames height width 3] to logits float32[b v]; it includes the weights.

    batch: the number of clips, which are computed at once; None: any number, computed one by one. dtype: as in
    models.forward.
    """

    def at_once(clips: jax.Array) -> jax.Array:
        return model.logits(clips, dtype=dtype, attention=ops)

    def one_by_one(clips: jax.Array) -> jax.Array:
        return jax.lax.map(lambda clip: at_once(clip[jnp.newaxis])[0], clips)

    return one_by_one if batch is None else at_once


def clip_shape(config: Config) -> tuple[int, int, int, int]:
    """Returns the shape of a clip: (frames, height, width, colors)."""
    return config.frames, config.height, config.width, COLORS
