"""The two forms of the GELU in JAX, for XLA and for the inside of kernels."""

import math

import jax
import jax.numpy as jnp


def gelu(x: jax.Array, form: str) -> jax.Array:
    """x · Φ(x), Φ exact ("erf") or approximated ("tanh"). x: float32."""
    if form == "erf":
        return x * (1.0 + jax.lax.erf(x * math.sqrt(0.5))) * 0.5
    return x * (1.0 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))) * 0.5
