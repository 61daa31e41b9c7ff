"""The two forms of the GELU in JAX, for XLA and for the inside of kernels."""

import math

import jax
import jax.numpy as jnp

LINEAR = math.sqrt(2 / math.pi)
CUBIC = 0.044715  # tanh(LINEAR (x + CUBIC x³)) approximates 2 Φ(x) − 1


def gelu(x: jax.Array, form: str) -> jax.Array:
    """x · Φ(x), Φ exact ("erf") or approximated ("tanh"). x: float32."""
    if form == "erf":
        return x * (1.0 + jax.lax.erf(x * math.sqrt(0.5))) * 0.5
    return x * (1.0 + jnp.tanh(LINEAR * (x + CUBIC * x * x * x))) * 0.5


def gelu_and_slope(x: jax.Array, form: str) -> tuple[jax.Array, jax.Array]:
    """(GELU(x), GELU'(x)) in fewer operations than differentiation takes, each rounded otherwise. x: float32."""
    if form == "erf":
        share = 0.5 * jax.lax.erf(x * math.sqrt(0.5)) + 0.5
        return x * share, share + x * jnp.exp(-0.5 * x * x) * math.sqrt(0.5 / math.pi)
    square = CUBIC * LINEAR * (x * x)
    share = 0.5 * jnp.tanh(x * (LINEAR + square)) + 0.5
    active = x * share
    return active, share + active * (1.0 - share) * (2 * LINEAR + 6 * square)
