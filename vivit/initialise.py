"""Draws the parameters of a new model with the initialisers that reference/params.py names."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from vivit.reference.config import Config
from vivit.reference.params import Leaf, Params, convert, leaves, shapes


def init(rng: jax.Array, config: Config) -> Params:
    """Returns the parameters of a new model, all float32.

    Attention and MLP kernels: Xavier uniform (query, key and value separately). Embedding: LeCun normal. Positions:
    N(0, 0.02). MLP biases: N(0, 1e-6). Class token, head and other biases: zero. Layer norms: scale one, bias zero.
    Source: the published training code. rng: a random key; the same key and config give the same parameters.
    """
    drawn = draws(rng, config)
    return convert(shapes(config), lambda path, _: drawn[path]())


def draws(rng: jax.Array, config: Config) -> dict[str, Callable[[], jax.Array]]:
    """Returns, for every leaf by its path and in order, a function that draws it. Each can be called alone."""
    tree = list(leaves(shapes(config)))
    keys = jax.random.split(rng, len(tree))
    each = zip(tree, keys, strict=True)
    return {path: partial(_INITIALISERS[leaf.initialiser], leaf, key) for (path, leaf), key in each}


def _zeros(leaf: Leaf, key: jax.Array) -> jax.Array:
    return jnp.zeros(leaf.shape, jnp.float32)


def _ones(leaf: Leaf, key: jax.Array) -> jax.Array:
    return jnp.ones(leaf.shape, jnp.float32)


def _xavier_uniform(leaf: Leaf, key: jax.Array) -> jax.Array:
    """U(±√(6 / (fan in + fan out))). A qkv leaf holds three kernels, so its fan out is a third of its width."""
    fan_in, fan_out = leaf.shape[-2:]
    limit = math.sqrt(6 / (fan_in + (fan_out // 3 if leaf.axes[-1] == "3c" else fan_out)))
    return jax.random.uniform(key, leaf.shape, jnp.float32, -limit, limit)


def _lecun_normal(leaf: Leaf, key: jax.Array) -> jax.Array:
    """A normal distribution truncated at two standard deviations, with variance 1 / fan in after truncation."""
    deviation = math.sqrt(leaf.shape[-1] / leaf.size) / 0.87962566103423978
    return deviation * jax.random.truncated_normal(key, -2.0, 2.0, leaf.shape, jnp.float32)


def _normal(deviation: float):
    return lambda leaf, key: deviation * jax.random.normal(key, leaf.shape, jnp.float32)


_INITIALISERS = {
    "zeros": _zeros,
    "ones": _ones,
    "xavier_uniform": _xavier_uniform,
    "lecun_normal": _lecun_normal,
    "positions": _normal(0.02),
    "mlp_bias": _normal(1e-6),
}
