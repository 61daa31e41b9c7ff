"""Builds the optax optimiser of a Recipe: schedule, clipping, momentum or Adam, weight decay, layer decay, freezing."""

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vivit.reference.config import Config
from vivit.reference.params import Leaf, Params, convert, leaves, shapes
from vivit.training.recipe import Recipe, Steps


def learning_rate(recipe: Recipe, steps: Steps) -> Callable[[Any], jax.Array]:
    """Returns the schedule, a function of the update s from 0: base · min(1, s/w) · ½(1 + cos π·max(0, s−w)/(S−w)).

    w: steps.warmup, S: steps.total. Returns float32. Source: the published training code.
    """

    def rate(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        warm = jnp.minimum(1.0, step / steps.warmup) if steps.warmup else jnp.ones_like(step)
        done = jnp.clip((step - steps.warmup) / (steps.total - steps.warmup), 0.0, 1.0)
        return recipe.learning_rate * warm * 0.5 * (1.0 + jnp.cos(np.pi * done))

    return rate


def optimiser(recipe: Recipe, config: Config, steps: Steps) -> optax.GradientTransformation:
    """Returns the optimiser of a model's parameters.

    The gradient norm is computed over the trained leaves, on all devices together. The optimiser's state is float32;
    frozen leaves have none. Raises ValueError for a pattern of recipe.freeze that matches no leaf, or if every leaf is
    frozen.
    """
    chain = []
    if recipe.clip_norm is not None:
        chain.append(optax.clip_by_global_norm(recipe.clip_norm))
    decay = optax.add_decayed_weights(recipe.weight_decay, decayed) if recipe.weight_decay else None
    if recipe.optimiser == "sgd":
        chain += [*([decay] if decay else []), optax.trace(recipe.momentum)]
    else:
        chain += [optax.scale_by_adam(recipe.beta1, recipe.beta2), *([decay] if decay else [])]
    chain.append(optax.scale_by_learning_rate(learning_rate(recipe, steps)))
    if recipe.layer_decay != 1:
        chain.append(_scale_by(layer_multipliers(config, recipe.layer_decay)))
    frozen_leaves = frozen(config, recipe.freeze)
    chained = optax.chain(*chain)
    if any(jax.tree.leaves(frozen_leaves)):
        labels = jax.tree.map(lambda leaf: "frozen" if leaf else "trained", frozen_leaves)
        chained = optax.multi_transform({"trained": chained, "frozen": optax.set_to_zero()}, labels)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to the power of an integer
            return chained.update(updates, state, params)

    return optax.GradientTransformation(chained.init, update)


def decayed(params: Any) -> Any:
    """Returns a tree of bool: True for the leaves with weight decay, which are the kernels.

    optax's MaskedNode, a NamedTuple without fields, stays.
    """
    return convert(params, lambda path, _: path.endswith("/kernel"))


def frozen(config: Config, patterns: Sequence[str]) -> Params:
    """Returns a tree of bool: True for the leaves that are not trained.

    patterns: matched against whole paths as in params.leaves, either with * and ? ("embedding/*", "encoder/blocks/*")
    or as regular expressions that begin with ^ ("^(?!head)" matches everything but the head). All layers of a stack
    share one leaf, so a pattern freezes all of them or none. Raises ValueError for a pattern that matches no path, or
    if no leaf is left to train.
    """
    paths = [path for path, _ in leaves(shapes(config))]
    matched = set()
    for pattern in patterns:
        found = [path for path in paths if _matches(path, pattern)]
        if not found:
            raise ValueError(f"freeze has {pattern!r}: it must match a leaf, such as {paths[0]} or {paths[-1]}")
        matched |= set(found)
    if len(matched) == len(paths):
        raise ValueError(f"freeze is {tuple(patterns)}: it must leave at least one leaf to train")
    return convert(shapes(config), lambda path, _: path in matched)


def layer_multipliers(config: Config, decay: float) -> Params:
    """Returns the factor of each leaf's learning rate: decay^(L + 1 − depth), arrays that broadcast with the leaf.

    The embedding has depth 0, layer i of L has depth i + 1, the head and the representation layer have depth L + 1. The
    layers of a temporal encoder follow those of the spatial one; its class token and positions have the depth of the
    last spatial layer, and so has the spatial encoder's final norm. Leaves with stacked layers have float32[l 1 …], all
    others float32[].
    """
    first = {"encoder": 0}
    last = config.layers
    if config.model == "factorised_encoder" and config.temporal_layers:
        first["temporal_encoder"] = config.layers
        last += config.temporal_layers

    def multiplier(path: str, leaf: Leaf) -> np.ndarray:
        part, _, rest = path.partition("/")
        if part not in first:
            depth = np.array(0 if part == "embedding" else last + 1)
        elif rest.startswith("blocks/"):
            depth = (first[part] + 1 + np.arange(leaf.shape[0])).reshape(leaf.shape[0], *(1 for _ in leaf.shape[1:]))
        elif rest.startswith("norm/"):
            follows = part == "encoder" and "temporal_encoder" in first
            depth = np.array(config.layers if follows else last + 1)
        else:  # class token, positions
            depth = np.array(first[part])
        return (decay ** (last + 1.0 - depth)).astype(np.float32)

    return convert(shapes(config), multiplier)


def _matches(path: str, pattern: str) -> bool:
    if not pattern.startswith("^"):
        return fnmatchcase(path, pattern)
    try:
        return re.match(pattern, path) is not None
    except re.error as error:
        raise ValueError(f"freeze has {pattern!r}: it must be a regular expression ({error})") from None


def _scale_by(multipliers: Params) -> optax.GradientTransformation:
    """Multiplies every update by the multiplier of its leaf."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def scaled(leaf: Any, multiplier: np.ndarray) -> Any:
            if isinstance(leaf, optax.MaskedNode):
                return leaf
            trailing = (1,) * (leaf.ndim - multiplier.ndim)
            return leaf * jnp.asarray(multiplier).reshape(*multiplier.shape, *trailing)

        masked = jax.tree.map(scaled, updates, multipliers, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))
        return masked, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
