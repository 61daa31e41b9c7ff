"""Break it: a layer norm that is exact on paper.

Hint: E[x²] − E[x]² is the variance. What is left of it in float32 if x is large and nearly the same everywhere?
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

EPSILON = 1e-6


def _kernel(x, out):
    mean = x[...].mean(axis=1, keepdims=True)
    variance = (x[...] * x[...]).mean(axis=1, keepdims=True) - mean * mean
    out[...] = (x[...] - mean) / jnp.sqrt(jnp.maximum(variance, 0.0) + EPSILON)


def layer_norm(x: np.ndarray) -> jax.Array:
    """(x − mean) / √(variance + EPSILON) over the last axis, with a fault. x: float32[n c]."""
    return pl.pallas_call(_kernel, out_shape=jax.ShapeDtypeStruct(x.shape, jnp.float32), interpret=True)(x)


def break_layer_norm() -> np.ndarray:
    """Returns the smallest x, counted in numbers, of which layer_norm is wrong: float32[n c].

    Wrong means: further off than float32 explains, by the bound of docs/correctness.md. No number may be above a
    million, and no axis above 64. The kernel that is graded is the one above, whatever you change in it.
    """
    raise NotImplementedError
