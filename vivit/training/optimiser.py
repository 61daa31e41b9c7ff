"""From a Recipe to an optax optimiser: schedule, clipping, momentum or Adam, weight decay, layer decay, freezing."""

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vivit.reference.config import Config
from vivit.reference.params import Leaf, Params, leaves, shapes
from vivit.training.recipe import Recipe, Steps


def learning_rate(recipe: Recipe, steps: Steps) -> Callable[[Any], jax.Array]:
    """base · min(1, s/w) · ½(1 + cos π·max(0, s−w)/(S−w)) of update s, from 0; float32.

    Source: the published training code. w: steps.warmup, S: steps.total.
    """

    def rate(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        warm = jnp.minimum(1.0, step / steps.warmup) if steps.warmup else jnp.ones_like(step)
        done = jnp.clip((step - steps.warmup) / (steps.total - steps.warmup), 0.0, 1.0)
        return recipe.learning_rate * warm * 0.5 * (1.0 + jnp.cos(np.pi * done))

    return rate


def optimiser(recipe: Recipe, config: Config, steps: Steps) -> optax.GradientTransformation:
    """The optimiser of a model's parameters.

    The gradient's norm is that of what is trained, all devices together. Its state is float32, and none is kept for
    what is frozen. Raises ValueError for a pattern of recipe.freeze that no leaf has, or if everything is frozen.
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
    still = frozen(config, recipe.freeze)
    whole = optax.chain(*chain)
    if any(jax.tree.leaves(still)):
        labels = jax.tree.map(lambda leaf: "frozen" if leaf else "trained", still)
        whole = optax.multi_transform({"trained": whole, "frozen": optax.set_to_zero()}, labels)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to the power of an integer
            return whole.update(updates, state, params)

    return optax.GradientTransformation(whole.init, update)


def decayed(params: Any) -> Any:
    """Which leaves weight decay acts on, as a tree of bool: kernels; no biases, norms, positions, class tokens."""
    return _with_paths(params, lambda path, _: path.endswith("/kernel"))


def frozen(config: Config, patterns: Sequence[str]) -> Params:
    """Which leaves are not trained, as a tree of bool.

    patterns: of whole paths as params.leaves gives them, either with * and ? ("embedding/*", "encoder/blocks/*") or
    regular expressions that begin with ^ ("^(?!head)" is everything but the head). Layers share a leaf: all or none.
    Raises ValueError for a pattern that no path matches, or if nothing is left to train.
    """
    paths = [path for path, _ in leaves(shapes(config))]
    still = set()
    for pattern in patterns:
        found = [path for path in paths if _matches(path, pattern)]
        if not found:
            raise ValueError(f"freeze has {pattern!r}: it must match a leaf, such as {paths[0]} or {paths[-1]}")
        still |= set(found)
    if len(still) == len(paths):
        raise ValueError(f"freeze is {tuple(patterns)}: it must leave something to train")
    return _with_paths(shapes(config), lambda path, _: path in still)


def layer_multipliers(config: Config, decay: float) -> Params:
    """What each leaf's learning rate is multiplied by: decay^(L + 1 − depth), arrays that broadcast with the leaf.

    The embedding has depth 0, layer i of all L has i + 1, the head and what stands before it L + 1. A temporal
    encoder's layers come after the spatial one's; its class token and positions count as the layer before it, and the
    spatial encoder's last norm as the layer that it follows. Layers are stacked in one leaf: there the multiplier is
    float32[l 1 …], else float32[].
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

    return _with_paths(shapes(config), multiplier)


def _matches(path: str, pattern: str) -> bool:
    if not pattern.startswith("^"):
        return fnmatchcase(path, pattern)
    try:
        return re.match(pattern, path) is not None
    except re.error as error:
        raise ValueError(f"freeze has {pattern!r}: it must be a regular expression ({error})") from None


def _with_paths(tree: Any, function: Callable[[str, Any], Any], path: str = "") -> Any:
    """The same tree with function(path, leaf) in place of every leaf; what optax masks stays."""
    if tree is None or isinstance(tree, optax.MaskedNode):
        return tree
    if not hasattr(tree, "_fields"):
        return function(path, tree)
    parts = zip(tree._fields, tree, strict=True)
    return type(tree)(*(_with_paths(part, function, f"{path}/{field}" if path else field) for field, part in parts))


def _scale_by(multipliers: Params) -> optax.GradientTransformation:
    """Multiplies every update by its leaf's multiplier."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def scaled(leaf: Any, multiplier: np.ndarray) -> Any:
            if isinstance(leaf, optax.MaskedNode):
                return leaf
            trailing = (1,) * (leaf.ndim - multiplier.ndim)
            return leaf * jnp.asarray(multiplier).reshape(*multiplier.shape, *trailing)

        masked = jax.tree.map(scaled, updates, multipliers, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))
        return masked, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
