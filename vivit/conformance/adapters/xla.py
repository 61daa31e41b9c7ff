"""Ours, by XLA's operations: vivit/attention.py, tubelet.py and models.py."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vivit import attention, models, tubelet
from vivit.conformance.adapters.of_jax import with_vjp
from vivit.reference.config import Config
from vivit.reference.params import Dense, Params

joint, joint_vjp = with_vjp(attention.joint)
spatial, spatial_vjp = with_vjp(attention.spatial)
temporal, temporal_vjp = with_vjp(attention.temporal)
factorised_dot_product, factorised_dot_product_vjp = with_vjp(attention.factorised_dot_product)


def tubelet_embed(video: np.ndarray, params: Dense) -> jax.Array:
    """Calls tubelet.embed."""
    return tubelet.embed(jnp.asarray(video), params).astype(video.dtype)


@partial(jax.jit, static_argnames="config")
def forward(params: Params, video: jax.Array, config: Config) -> jax.Array:
    """Calls models.forward."""
    return models.forward(params, video, config, attention="xla")
