"""Why what a model made of a clip is no answer: the first stage, in the order of computation, that is not finite."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vivit import compiled
from vivit.model import Model
from vivit.reference.config import Config
from vivit.reference.params import Params

WEIGHTS = "weights"  # ends the names of attention weights: they take gigabytes, and overflow with what they weigh


def not_finite(model: Model, clip: np.ndarray, name: str, dtype: str | None = None) -> ValueError:
    """The error, in one line, for a clip [frames height width 3] whose logits or stages are not finite.

    name: what the clip's video is called. dtype: as vivit.forward's.
    """
    video = np.asarray(model.preprocessed(clip[np.newaxis]))
    frames = np.isfinite(video.astype(np.float32)).all(axis=(0, 2, 3, 4))
    if not frames.all():
        return ValueError(f"{name} has pixels that are not finite, in frame {int(frames.argmin())} of a clip")
    stages = tuple(stage for stage in compiled.stage_shapes(model.config) if not stage.endswith(WEIGHTS))
    finite = _finite(model.params, video, config=model.config, names=stages, dtype=dtype)
    first = next((stage for stage in stages if not finite[stage]), stages[-1])
    return ValueError(
        f"{name} has no answer: {first} is the first stage of the model that is not finite, its weights overflow"
    )


@partial(jax.jit, static_argnames=("config", "names", "dtype"))
def _finite(
    params: Params, video: np.ndarray, *, config: Config, names: tuple[str, ...], dtype: str | None
) -> dict[str, jax.Array]:
    """bool of every stage of these names."""
    found = compiled.stages(params, video, config=config, names=names, dtype=dtype)
    return {name: jnp.isfinite(values).all() for name, values in found.items()}
