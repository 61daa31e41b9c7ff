"""The whole forward and a training step of the four models of ViViT-B/16x2, scheduled: for `schedule --model`.

Compiled with one and with two layers, every layer by itself, and extended in a straight line to all layers; model 2
also with a second temporal layer. Ours takes uint8 patches cut on the host (`vivit.cut`), the plain graph the video,
which it embeds by convolution; both have float32 parameters. A step is the mean cross entropy's gradient with respect
to the parameters.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

import vivit
from vivit import baseline
from vivit.info import PAPER
from vivit.reference.config import Config, named
from vivit.reference.params import Params, convert, shapes

IMPLEMENTATIONS = ("ours", "plain")
SIZE = "vivit-b/16x2"


def clips(suffix: str) -> int:
    """Clips in the batch: 8, for model 1 as many as fit."""
    return 8 if suffix else 2


def paper_milliseconds(suffix: str) -> float:
    """Milliseconds a clip on TPU-v3, Arnab et al. 2021, table 2."""
    return PAPER[SIZE + suffix][2]


def extrapolated(compiler: Any, dtype: str, suffix: str, implementation: str, direction: str) -> dict:
    """The schedule of all layers: cycles, those that are kernels', megabytes of temporaries with one and two layers."""
    config = replace(named(SIZE + suffix), layers=1)
    temporal = config.model == "factorised_encoder"
    config = replace(config, temporal_layers=1) if temporal else config

    def schedule(config: Config):
        function, arguments = program(compiler, dtype, config, clips(suffix), implementation, direction)
        return compiler.schedule(function, *arguments)

    one, two = schedule(config), schedule(replace(config, layers=2))
    added = [(two, named(SIZE + suffix).layers - 1)]
    if temporal:
        added.append((schedule(replace(config, temporal_layers=2)), named(SIZE + suffix).temporal_layers - 1))

    def extended(value: Callable[[Any], float]) -> float:
        return value(one) + sum(times * (value(more) - value(one)) for more, times in added)

    return {
        "cycles": extended(lambda schedule: schedule.cycles),
        "kernel_cycles": extended(lambda schedule: sum(kernel["cycles"] for kernel in schedule.kernels)),
        "kinds": {
            kind: extended(lambda schedule, kind=kind: schedule.estimates.get(kind, 0)) for kind in two.estimates
        },
        "unknown": two.unknown,
        "first_layer_and_ends": one.cycles,
        "layer": two.cycles - one.cycles,
        "temporary_bytes": extended(lambda schedule: schedule.temporary_bytes),
        "compile_seconds": one.compile_seconds + sum(more.compile_seconds for more, _ in added),
    }


def program(
    compiler: Any, dtype: str, config: Config, batch: int, implementation: str, direction: str
) -> tuple[Callable[..., Any], tuple]:
    """(function, arguments) of one forward, or of the gradient of a training step."""
    params = convert(shapes(config), lambda leaf: compiler.abstract(leaf.shape, "float32"))
    video = compiler.abstract((batch, config.frames, config.height, config.width, 3), "float32")
    if implementation == "ours":  # as vivit.cut makes them on the host
        time, height, width = config.grid
        values = math.prod(config.tubelet) * 3
        video = compiler.abstract((batch, time, height * width, values), "uint8")

    def forward(params: Params, video: jax.Array) -> jax.Array:
        if implementation == "plain":
            return baseline.forward(params, video, config, dtype=dtype)
        return vivit.forward(params, video, config, dtype=dtype, unroll=True)

    def loss(params: Params, video: jax.Array, labels: jax.Array) -> jax.Array:
        logs = jax.nn.log_softmax(forward(params, video).astype(jnp.float32))
        return -jnp.take_along_axis(logs, labels[:, jnp.newaxis], axis=-1).mean()

    if direction == "forward":
        return forward, (params, video)
    return jax.grad(loss), (params, video, compiler.abstract((batch,), "int32"))
