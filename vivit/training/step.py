"""One update of a model: loss, gradient, optimiser and running average, as one jitted function of state and batch.

Everything random is a function of the recipe's seed, the step and an example's place in the batch: it does not depend
on how the batch is taken in parts or split over devices. How it is split is sharding.py's.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vivit.backend import backend
from vivit.models import forward
from vivit.ops import Ops
from vivit.reference.config import Config
from vivit.reference.params import Params, check, convert
from vivit.training import losses, sharding
from vivit.training.optimiser import frozen, learning_rate, optimiser
from vivit.training.recipe import Recipe, Steps
from vivit.training.tensor_parallel import replicate_outer, sharded

Metrics = dict[str, jax.Array]
Mixup = Callable[[jax.Array, jax.Array, jax.Array, float], tuple[jax.Array, jax.Array]]
Smooth = Callable[[jax.Array, tuple[int, ...], float], jax.Array]


class Examples(NamedTuple):
    """What one update learns from."""

    video: Any  # [b frames height width colors] or patches [b t s p], as vivit.forward takes them
    labels: Any  # float32[b v]: one-hot a head, the heads' one after the other, or multi-hot
    frames_valid: Any = None  # int32[b]; None: all frames of all clips are real, which is faster
    weight: Any = None  # float32[b], 0 for what only fills the batch; None: all count


class TrainState(NamedTuple):
    """All that training carries from one update to the next; arrays only, so that it can be stored as it is."""

    params: Params  # float32, whatever the products' dtype
    optimiser: Any
    ema: Params | None  # the running average of params
    step: jax.Array  # int32[], updates done
    rng: jax.Array  # uint32[2], the seed's key data


def init_state(params: Params, config: Config, recipe: Recipe, steps: Steps) -> TrainState:
    """The state before the first update. params: of any float dtype; copied to float32. Pure: it can be jitted.

    Raises ValueError if params do not fit the config, or the recipe does not fit it (see optimiser).
    """
    check(params, config)
    params = convert(params, lambda leaf: jnp.array(leaf, jnp.float32))
    start: Callable[..., Any] = optimiser(recipe, config, steps).init
    return TrainState(
        params,
        start(params),
        None if recipe.ema_decay is None else convert(params, jnp.copy),
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
    """The jitted function (state, examples) → (state, metrics). The state that it is given is used up (donated).

    The same choices give the same function, so that nothing is compiled twice in a process.

    mixup(key, video, labels, strength) → (video, labels) and smooth(labels, classes, amount) → labels, as in
    vivit.data.mixing; needed where the recipe asks for them. attention: as forward's. mesh: devices to split the work
    over, see sharding.py; the state and examples are then as sharding.place_state and place_examples put them.

    Metrics, all float32[]: loss (the weighted mean, of mixed and smoothed labels), gradient_norm (of what is trained,
    before it is clipped), learning_rate (of this update), weight (how many examples counted).

    Raises ValueError for a recipe or a mesh that does not fit, and when traced for examples that do not.
    """
    if recipe.mixup and mixup is None:
        raise ValueError(f"mixup is {recipe.mixup}: make_step needs mixup=, such as vivit.data.mixing.mixup")
    if recipe.label_smoothing and smooth is None:
        raise ValueError(
            f"label_smoothing is {recipe.label_smoothing}: make_step needs smooth=, such as vivit.data.mixing.smooth"
        )
    update: Callable[..., Any] = optimiser(recipe, config, steps).update
    rate = learning_rate(recipe, steps)
    still = frozen(config, recipe.freeze)
    ops = backend(attention, None if mesh is None else mesh.devices.flat[0].platform)
    if mesh is not None:
        sharding.check_mesh(config, mesh, recipe.batch_size // recipe.accumulation)
        ops = sharded(ops, mesh, config)

    def placed(tree: Any) -> Any:
        if mesh is None:
            return tree
        return jax.lax.with_sharding_constraint(tree, sharding.state_shardings(tree, config, mesh))

    def prepared(key: jax.Array, examples: Examples) -> Examples:
        video, labels = examples.video, jnp.asarray(examples.labels, jnp.float32)
        if recipe.label_smoothing and smooth is not None:
            labels = smooth(labels, config.classes, recipe.label_smoothing)
        if recipe.mixup and mixup is not None:
            video, labels = mixup(key, video, labels, recipe.mixup)
        weight = jnp.ones(labels.shape[0], jnp.float32) if examples.weight is None else examples.weight
        return Examples(video, labels, examples.frames_valid, jnp.asarray(weight, jnp.float32))

    def summed_loss(params: Params, keys: jax.Array, examples: Examples, total: jax.Array) -> jax.Array:
        params = jax.tree.map(lambda leaf, stays: jax.lax.stop_gradient(leaf) if stays else leaf, params, still)
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
        each = losses.example_losses(
            logits, examples.labels, config.classes, loss=recipe.loss, heads=recipe.head_losses
        )
        return (examples.weight * each).sum() / total

    def step(state: TrainState, examples: Examples) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        mix_key, drop_key = jax.random.split(key)
        examples = prepared(mix_key, examples)
        weight = examples.weight.sum()
        keys = jax.vmap(partial(jax.random.fold_in, drop_key))(jnp.arange(examples.labels.shape[0], dtype=jnp.uint32))
        total = jnp.where(weight == 0.0, 1.0, weight)

        def loss_and_gradient(keys: jax.Array, examples: Examples) -> tuple[jax.Array, Params]:
            return placed(jax.value_and_grad(summed_loss)(state.params, keys, examples, total))

        loss, gradient = accumulated(loss_and_gradient, (keys, examples), recipe.accumulation)
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
        return placed(TrainState(params, optimiser_state, ema, state.step + 1, state.rng)), metrics

    return jax.jit(step, donate_argnums=0)


def accumulated(function: Callable[..., Any], batch: tuple, parts: int) -> Any:
    """The sum of function(*part) over the batch's parts, one after the other: a tree of float32.

    batch: a tuple of trees of arrays [b ...]. Part i of k has the places i, i + k, …: whatever devices split the batch
    by, each has its share of every part. Raises ValueError if b is not a multiple of parts.
    """
    if parts == 1:
        return function(*batch)
    b = jax.tree.leaves(batch)[0].shape[0]
    if b % parts:
        raise ValueError(f"the batch has {b} examples: they must be a multiple of accumulation, {parts}")
    stacked = jax.tree.map(lambda leaf: leaf.reshape(b // parts, parts, *leaf.shape[1:]).swapaxes(0, 1), batch)
    start = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, jnp.float32),
        jax.eval_shape(function, *jax.tree.map(lambda leaf: leaf[0], stacked)),
    )

    def add(total: Any, part: tuple) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(*part)), None

    return jax.lax.scan(add, start, stacked)[0]
