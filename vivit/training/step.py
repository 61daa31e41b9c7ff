"""Computes one update of a model, as one jitted function of state and batch.

An update has the loss, its gradient, the optimiser and the running average. The loss is the cross entropy of each head,
softmax or sigmoid. All random numbers are functions of the recipe's seed, the step and an example's index in the batch,
so they do not depend on microbatches or sharding. The sharding is defined in sharding.py.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vivit.backend import backend
from vivit.models import forward
from vivit.ops import Ops
from vivit.reference.config import Config
from vivit.reference.params import Params, check, convert
from vivit.training import sharding
from vivit.training.optimiser import frozen, learning_rate, optimiser
from vivit.training.recipe import Recipe, Steps
from vivit.training.tensor_parallel import replicate_outer, sharded

Metrics = dict[str, jax.Array]
Mixup = Callable[[jax.Array, jax.Array, jax.Array, float], tuple[jax.Array, jax.Array]]
Smooth = Callable[[jax.Array, tuple[int, ...], float], jax.Array]


class Examples(NamedTuple):
    """The batch of one update."""

    video: Any  # [b frames height width colors] or patches [b t s p], as vivit.forward takes them
    labels: Any  # float32[b v]: one-hot per head, heads concatenated, or multi-hot
    frames_valid: Any = None  # int32[b]; None: no clip is padded, which is faster
    weight: Any = None  # float32[b], 0 for padding; None: all 1


class TrainState(NamedTuple):
    """The state that training carries from one update to the next: arrays only, so that it can be saved as it is."""

    params: Params  # float32, for any dtype of the matrix products
    optimiser: Any
    ema: Params | None  # the running average of params
    step: jax.Array  # int32[], updates done
    rng: jax.Array  # uint32[2], the seed's key data


def init_state(params: Params, config: Config, recipe: Recipe, steps: Steps) -> TrainState:
    """Returns the state before the first update. params: of any float dtype; copied to float32. Pure: can be jitted.

    Raises ValueError if params or the recipe do not fit the config (see optimiser).
    """
    check(params, config)
    params = convert(params, lambda _, leaf: jnp.array(leaf, jnp.float32))
    start: Callable[..., Any] = optimiser(recipe, config, steps).init
    return TrainState(
        params,
        start(params),
        None if recipe.ema_decay is None else jax.tree.map(jnp.copy, params),
        jnp.zeros((), jnp.int32),
        jax.random.key_data(jax.random.key(recipe.seed)),
    )


@lru_cache(maxsize=8)
def make_step(
    config: Config,
    recipe: Recipe,
    steps: Steps,
    *,
    mixup: Mixup | None = None,
    smooth: Smooth | None = None,
    attention: str | Ops = "auto",
    mesh: jax.sharding.Mesh | None = None,
) -> Callable[[TrainState, Examples], tuple[TrainState, Metrics]]:
    """Returns the jitted function (state, examples) → (state, metrics). The state that it is given is donated.

    Calls with equal arguments return the same function, so that nothing is compiled twice in a process.

    mixup(key, video, labels, strength) → (video, labels) and smooth(labels, classes, amount) → labels: as in
    vivit.data.mixing; required if the recipe uses them. attention: as in vivit.forward. mesh: devices to shard over
    (sharding.py); state and examples must then be those of sharding.shard_state and shard_examples.

    Metrics, all float32[]: loss (weighted mean, with mixed and smoothed labels), gradient_norm (of the trained leaves,
    before clipping), learning_rate (of this update), weight (sum of the examples' weights).

    Raises ValueError for an invalid recipe or mesh, and while tracing for invalid examples.
    """
    if recipe.mixup and mixup is None:
        raise ValueError(f"mixup is {recipe.mixup}: make_step needs mixup=, such as vivit.data.mixing.mixup")
    if recipe.label_smoothing and smooth is None:
        raise ValueError(
            f"label_smoothing is {recipe.label_smoothing}: make_step needs smooth=, such as vivit.data.mixing.smooth"
        )
    update: Callable[..., Any] = optimiser(recipe, config, steps).update
    rate = learning_rate(recipe, steps)
    frozen_leaves = frozen(config, recipe.freeze)
    ops = backend(attention, None if mesh is None else mesh.devices.flat[0].platform)
    if mesh is not None:
        sharding.check_mesh(config, mesh, recipe.batch_size // recipe.accumulation)
        ops = sharded(ops, mesh, config)

    def constrained(tree: Any) -> Any:
        if mesh is None:
            return tree
        return jax.lax.with_sharding_constraint(tree, sharding.state_shardings(tree, config, mesh))

    def prepare(key: jax.Array, examples: Examples) -> Examples:
        video, labels = examples.video, jnp.asarray(examples.labels, jnp.float32)
        if recipe.label_smoothing and smooth is not None:
            labels = smooth(labels, config.classes, recipe.label_smoothing)
        if recipe.mixup and mixup is not None:
            video, labels = mixup(key, video, labels, recipe.mixup)
        weight = jnp.ones(labels.shape[0], jnp.float32) if examples.weight is None else examples.weight
        return Examples(video, labels, examples.frames_valid, jnp.asarray(weight, jnp.float32))

    def summed_loss(params: Params, keys: jax.Array, examples: Examples, total: jax.Array) -> jax.Array:
        params = jax.tree.map(lambda leaf, stop: jax.lax.stop_gradient(leaf) if stop else leaf, params, frozen_leaves)
        if mesh is not None:
            params = replicate_outer(params, mesh)
        logits = forward(
            params,
            examples.video,
            config,
            rng=keys,
            frames_valid=examples.frames_valid,
            dtype=recipe.dtype,
            dropout=recipe.dropout,
            attention_dropout=recipe.attention_dropout,
            stochastic_depth=recipe.stochastic_depth,
            remat=recipe.remat,
            attention=ops,
        )
        each = example_losses(logits, examples.labels, config.classes, loss=recipe.loss, heads=recipe.head_losses)
        return (examples.weight * each).sum() / total

    def step(state: TrainState, examples: Examples) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        mix_key, drop_key = jax.random.split(key)
        examples = prepare(mix_key, examples)
        weight = examples.weight.sum()
        keys = jax.vmap(partial(jax.random.fold_in, drop_key))(jnp.arange(examples.labels.shape[0], dtype=jnp.uint32))
        total = jnp.where(weight == 0.0, 1.0, weight)

        def loss_and_gradient(keys: jax.Array, examples: Examples) -> tuple[jax.Array, Params]:
            return constrained(jax.value_and_grad(summed_loss)(state.params, keys, examples, total))

        loss, gradient = accumulate(loss_and_gradient, (keys, examples), recipe.accumulation)
        updates, optimiser_state = update(gradient, state.optimiser, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        ema = None
        if recipe.ema_decay is not None:
            decay = recipe.ema_decay
            ema = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.ema, params)
        metrics = {
            "loss": loss,
            "gradient_norm": jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradient))),
            "learning_rate": rate(state.step),
            "weight": weight,
        }
        return constrained(TrainState(params, optimiser_state, ema, state.step + 1, state.rng)), metrics

    return jax.jit(step, donate_argnums=0)


def accumulate(function: Callable[..., Any], batch: tuple, microbatches: int) -> Any:
    """Returns the sum of function(*microbatch) over the microbatches, computed one after the other: a tree of float32.

    batch: a tuple of trees of arrays [b ...]. Microbatch i of k has the rows i, i + k, …, so that every device that
    holds a slice of the batch holds an equal slice of every microbatch. Raises ValueError if b is not a multiple of
    microbatches.
    """
    if microbatches == 1:
        return function(*batch)
    b = jax.tree.leaves(batch)[0].shape[0]
    if b % microbatches:
        raise ValueError(f"the batch has {b} examples: they must be a multiple of accumulation, {microbatches}")
    stacked = jax.tree.map(
        lambda leaf: leaf.reshape(b // microbatches, microbatches, *leaf.shape[1:]).swapaxes(0, 1), batch
    )
    start = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, jnp.float32),
        jax.eval_shape(function, *jax.tree.map(lambda leaf: leaf[0], stacked)),
    )

    def add(total: Any, microbatch: tuple) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(*microbatch)), None

    return jax.lax.scan(add, start, stacked)[0]


def example_losses(
    logits: jax.Array, labels: jax.Array, classes: Sequence[int], *, loss: str = "softmax", heads: str = "mean"
) -> jax.Array:
    """Returns the loss of every example over all heads, float32[b].

    "softmax": −Σ y log softmax(z) over the classes of each head. "sigmoid": −Σ y log σ(z) + (1 − y) log σ(−z), averaged
    over the classes of each head. heads: "mean" or "sum" of the heads' losses.

    logits: float[b v], the heads concatenated. labels: float[b v], one-hot, smoothed, mixed or multi-hot. classes:
    number of classes of each head. Raises ValueError for other shapes or names.
    """
    if logits.shape != labels.shape or logits.ndim != 2 or logits.shape[1] != sum(classes):
        raise ValueError(
            f"logits are {logits.shape} and labels {labels.shape}: both must be [b {sum(classes)}], one column a class"
        )
    if loss not in _HEAD_LOSSES or heads not in ("mean", "sum"):
        raise ValueError(f"loss is {loss!r} and heads is {heads!r}: they must be softmax or sigmoid, and mean or sum")
    total, start = jnp.zeros(logits.shape[0], jnp.float32), 0
    for count in classes:
        columns = slice(start, start + count)
        total = total + _HEAD_LOSSES[loss](
            logits[:, columns].astype(jnp.float32), labels[:, columns].astype(jnp.float32)
        )
        start += count
    return total / len(classes) if heads == "mean" else total


def _softmax(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return -(labels * jax.nn.log_softmax(logits, axis=-1)).sum(axis=-1)


def _sigmoid(logits: jax.Array, labels: jax.Array) -> jax.Array:
    losses = labels * jax.nn.log_sigmoid(logits) + (1.0 - labels) * jax.nn.log_sigmoid(-logits)
    return -losses.mean(axis=-1)


_HEAD_LOSSES = {"softmax": _softmax, "sigmoid": _sigmoid}
