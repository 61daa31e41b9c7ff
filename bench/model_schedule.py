"""Schedules the forward and the training step of the four models of ViViT-B/16x2, for `schedule --model`.

As users run it, layers are scanned: the forward, the gradient of a step for every choice of `remat`, and whole updates
(vivit/training/step.py) with their optimiser and donated state. For comparison "ours" and the plain graph with
unrolled layers, compiled with one and with two layers and extended linearly; model 2 also with a second temporal layer.
Ours takes uint8 patches cut on the host (`vivit.cut`); the baseline takes the video and embeds it by convolution.
Parameters are float32. A gradient is that of the mean cross entropy.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import vivit
from vivit.audit import baseline
from vivit.cli.info import PAPER
from vivit.ops import Ops
from vivit.pallas_ops import PALLAS
from vivit.reference.config import Config, named
from vivit.reference.costs import multiply_adds
from vivit.reference.params import Params, convert, shapes
from vivit.training.recipe import Dtype, Optimiser, Recipe, Steps, recipe_fields
from vivit.training.step import Examples, init_state, make_step

SIZE = "vivit-b/16x2"
STEPS = Steps(1000, 100)
BACKWARD = "forward+backward"
REMAT: str = recipe_fields()["remat"].default


class Variant(NamedTuple):
    """One way to compile a model. fields: of the Recipe."""

    direction: str | None = None  # the only one that it has; None: both
    unrolled: bool = False
    remat: str = REMAT
    dropout: float = 0.0
    optimiser: Optimiser | None = None  # of the whole update; None: only the gradient


IMPLEMENTATIONS = {
    "plain": Variant(unrolled=True),
    "ours": Variant(unrolled=True, remat="none"),
    "scanned": Variant("forward"),
    **{f"scanned {remat}": Variant(BACKWARD, remat=remat) for remat in ("none", "fast", "lean")},
    "scanned dropout": Variant(BACKWARD, dropout=0.1),
    "update sgd": Variant(BACKWARD, optimiser="sgd"),
    "update adamw": Variant(BACKWARD, optimiser="adamw"),
}


def directions(implementation: str, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the directions that this implementation has."""
    only = IMPLEMENTATIONS[implementation].direction
    return tuple(direction for direction in asked if only in (None, direction))


def clips(suffix: str) -> int:
    """Returns the batch size: 8, for model 1 as many clips as fit."""
    return 8 if suffix else 2


def paper_milliseconds(suffix: str) -> float:
    """Returns milliseconds per clip on TPU-v3 from Arnab et al. 2021, table 2."""
    return PAPER[SIZE + suffix][2]


def useful(suffix: str, direction: str) -> int:
    """Multiply-adds of a batch; the backward pass counts twice the forward's."""
    return (1 if direction == "forward" else 3) * clips(suffix) * multiply_adds(named(SIZE + suffix))


def model_schedule(compiler: Any, dtype: Dtype, suffix: str, implementation: str, direction: str) -> dict:
    """The schedule of a whole model: cycles, those of them that are kernels', bytes of temporaries and arguments."""
    config = named(SIZE + suffix)
    variant = IMPLEMENTATIONS[implementation]

    def schedule(config: Config):
        function, arguments = program(compiler, dtype, config, clips(suffix), implementation, direction)
        return compiler.schedule(function, *arguments)

    added = []
    if variant.unrolled:
        temporal = config.model == "factorised_encoder"
        fewest = replace(config, layers=1, **({"temporal_layers": 1} if temporal else {}))
        first, more = schedule(fewest), schedule(replace(fewest, layers=2))
        added.append((config.layers - 1, more))
        if temporal:
            added.append((config.temporal_layers - 1, schedule(replace(fewest, temporal_layers=2))))
    else:
        first = more = schedule(config)

    def extended(value: Callable[[Any], float]) -> float:
        return value(first) + sum(times * (value(more) - value(first)) for times, more in added)

    def kernel_cycles(schedule: Any, name: str | None = None) -> float:
        return sum(kernel["cycles"] for kernel in schedule.kernels if name in (None, kernel["base"]))

    names = {kernel["base"] for kernel in more.kernels}
    return {
        "cycles": extended(lambda schedule: schedule.cycles),
        "kernel_cycles": extended(kernel_cycles),
        "kernels": {name: extended(partial(kernel_cycles, name=name)) for name in sorted(names)},
        "kinds": {
            kind: extended(lambda schedule, kind=kind: schedule.estimates.get(kind, 0)) for kind in more.estimates
        },
        "unknown": more.unknown,
        "temporary_bytes": extended(lambda schedule: schedule.temporary_bytes),
        "held_bytes": extended(lambda schedule: schedule.held_bytes),
        "compile_seconds": first.compile_seconds + sum(more.compile_seconds for _, more in added),
    }


def program(
    compiler: Any,
    dtype: str,
    config: Config,
    batch: int,
    implementation: str,
    direction: str,
    *,
    ops: Ops = PALLAS,
) -> tuple[Callable[..., Any], tuple]:
    """(function, arguments) of one forward, of the gradient of a step, or of a whole update. ops: our layers'."""
    variant = IMPLEMENTATIONS[implementation]
    params = convert(shapes(config), lambda _, leaf: compiler.abstract(leaf.shape, "float32"))
    video = compiler.abstract((batch, config.frames, config.height, config.width, 3), "float32")
    if implementation != "plain":  # as vivit.cut makes them on the host
        time, height, width = config.grid
        values = math.prod(config.tubelet) * 3
        video = compiler.abstract((batch, time, height * width, values), "uint8")
    if variant.optimiser is not None:
        fields: dict[str, Any] = dict(optimiser=variant.optimiser, dtype=dtype)
        recipe = Recipe(learning_rate=0.1, steps=STEPS.total, batch_size=batch, **fields)
        state = jax.eval_shape(lambda params: init_state(params, config, recipe, STEPS), params)
        state = jax.tree.map(lambda leaf: compiler.abstract(leaf.shape, leaf.dtype), state)
        examples = Examples(video, compiler.abstract((batch, sum(config.classes)), "float32"))
        return make_step(config, recipe, STEPS, attention=ops), (state, examples)

    def forward(params: Params, video: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        if implementation == "plain":
            return baseline.forward(params, video, config, dtype=dtype)
        return vivit.forward(
            params,
            video,
            config,
            rng=keys,
            dtype=dtype,
            dropout=variant.dropout,
            attention_dropout=variant.dropout,
            remat=variant.remat,
            unroll=variant.unrolled,
            attention=ops,
        )

    def loss(params: Params, video: jax.Array, labels: jax.Array, seeds: jax.Array) -> jax.Array:
        keys = jax.vmap(jax.random.key)(seeds) if variant.dropout else None
        logs = jax.nn.log_softmax(forward(params, video, keys).astype(jnp.float32))
        return -jnp.take_along_axis(logs, labels[:, jnp.newaxis], axis=-1).mean()

    if direction == "forward":
        return forward, (params, video)
    return jax.grad(loss), (params, video, compiler.abstract((batch,), "int32"), compiler.abstract((batch,), "uint32"))
