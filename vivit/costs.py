"""What a model costs, as the compiler counts it; reference/costs.py counts the same from the equations."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vivit import baseline
from vivit.initialise import init
from vivit.reference.config import COLORS, Config


def compiler_multiply_adds(config: Config) -> float:
    """Half of XLA's floating-point operations for one clip, in the plain formulation; nothing is compiled or run.

    It counts element by element work too, so it lies about one part in a hundred above the formula.
    """
    params = jax.eval_shape(partial(init, config=config), jax.random.key(0))
    video = jax.ShapeDtypeStruct((1, config.frames, config.height, config.width, COLORS), jnp.float32)
    lowered = jax.jit(partial(baseline.forward, config=config)).lower(params, video)
    analysis: Any = lowered.cost_analysis()
    return float(analysis["flops"]) / 2
