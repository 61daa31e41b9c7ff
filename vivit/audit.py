"""The main job: every variant of the paper on a real video, production against the reference, one table.

Weights are random in every leaf, since fresh ones (zero head, zero biases) would hide errors. What is compared are the
logits of each variant in float32 and bfloat16; where they fail, every stage in order, to find the first that departs.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from statistics import median
from typing import Any, get_args

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from vivit import baseline, models
from vivit.accuracy import compare, depth_of
from vivit.costs import compiler_multiply_adds
from vivit.reference import models as reference
from vivit.reference.config import Config, Model, Order, Pooling, named
from vivit.reference.costs import multiply_adds
from vivit.reference.params import Leaf, Params, convert, leaves, parameters, shapes

DTYPES = ("float32", "bfloat16")
SIZES = {"tiny": "vivit-tiny/8x2", "base": "vivit-b/16x2"}
REPEATS = 3
LARGEST_STAGE = 2**24  # numbers in one captured stage


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: one variant in one dtype."""

    variant: str
    dtype: str
    tokens: int
    parameters: int
    formula_multiply_adds: int
    compiler_multiply_adds: float
    milliseconds: float
    error: float
    bound: float
    passed: bool
    departs: str  # the first stage beyond its bound, with the worst place; "" where all is well


def variants(size: str = "tiny", only: str | None = None) -> dict[str, Config]:
    """Every model x embedding x pooling variant by its name; `only` keeps one of the four models.

    Raises ValueError for an unknown size or model.
    """
    if size not in SIZES:
        raise ValueError(f"size is {size!r}: it must be one of {', '.join(SIZES)}")
    if only is not None and only not in get_args(Model):
        raise ValueError(f"model is {only!r}: it must be one of {', '.join(get_args(Model))}")
    base = replace(named(SIZES[size]), classes=(97, 300))  # two heads, verb and noun
    sampled = replace(base, tubelet=(1, *base.tubelet[1:]), sampled_frames=base.frames // base.tubelet[0])
    every = {}
    for embedding, config in (("tubelet", base), ("sampled frames", sampled)):
        for pooling in get_args(Pooling):
            every[f"spatio_temporal, {embedding}, {pooling}"] = replace(config, pooling=pooling)
        config = replace(config, model="factorised_encoder")
        for pooling in get_args(Pooling):
            every[f"factorised_encoder, {embedding}, {pooling}"] = replace(config, pooling=pooling)
        every[f"factorised_encoder, {embedding}, token, frames averaged"] = replace(config, temporal_layers=0)
        for pooling, order in product(("mean", "max", "sum"), get_args(Order)):
            blocks = replace(config, model="factorised_self_attention", pooling=pooling, order=order)
            every[f"factorised_self_attention, {embedding}, {pooling}, {order}"] = blocks
        for pooling in ("mean", "max", "sum"):
            blocks = replace(config, model="factorised_dot_product", pooling=pooling)
            every[f"factorised_dot_product, {embedding}, {pooling}"] = blocks
    return {name: config for name, config in every.items() if only in (None, config.model)}


def random_params(config: Config, seed: int = 0) -> Params:
    """Random weights in every leaf, large enough that softmax and GELU matter; float32, exact in bfloat16."""
    generator = np.random.default_rng(seed)

    def kernel(leaf: Leaf) -> np.ndarray:  # one that keeps its input's variance
        inputs = [size for axis, size in zip(leaf.axes, leaf.shape, strict=True) if axis != "l"][:-1]
        return generator.standard_normal(leaf.shape) / np.sqrt(np.prod(inputs))

    def other(leaf: Leaf) -> np.ndarray:
        return (leaf.initialiser == "ones") + generator.standard_normal(leaf.shape) / 4

    def draw(path_and_leaf: tuple[str, Leaf]) -> np.ndarray:
        path, leaf = path_and_leaf
        return rounded(kernel(leaf) if path.endswith("kernel") else other(leaf))

    tree = shapes(config)
    drawn = iter([draw(pair) for pair in leaves(tree)])
    return convert(tree, lambda leaf: next(drawn))


def rounded(values: np.ndarray) -> np.ndarray:
    """float32 values that bfloat16 holds exactly, so that every dtype computes from the same numbers."""
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def audit(video: np.ndarray, configs: dict[str, Config]) -> Iterator[Row]:
    """Two rows a variant, float32 then bfloat16. video: uint8[frames height width colors] of the configs' size."""
    clip = video[np.newaxis]
    for name, config in configs.items():
        params = random_params(config)
        expected = reference.forward(params, clip, config)
        params = convert(params, jnp.asarray)
        counted = compiler_multiply_adds(config)
        for dtype in DTYPES:
            run = partial(models.forward, params, clip, config, dtype=dtype)
            comparison = compare(
                run(), baseline.forward(params, clip, config, dtype=dtype), expected, dtype, depth=depth_of(config)
            )
            yield Row(
                variant=name,
                dtype=dtype,
                tokens=math.prod(config.grid),
                parameters=parameters(config),
                formula_multiply_adds=multiply_adds(config),
                compiler_multiply_adds=counted,
                milliseconds=_milliseconds(run),
                error=comparison.error,
                bound=comparison.bound,
                passed=comparison.passed,
                departs="" if comparison.passed else first_departure(params, clip, config, dtype),
            )


def first_departure(params: Params, clip: np.ndarray, config: Config, dtype: str) -> str:
    """The first stage, in the order of computation, whose error is beyond its bound, and its worst place."""
    stages, yardstick, expected = _Stages(), _Stages(), _Stages()
    reference.forward(params, clip, config, capture=expected)
    baseline.forward(params, clip, config, dtype=dtype, capture=yardstick)
    models.forward(params, clip, config, dtype=dtype, capture=stages)
    for stage, values in expected.items():
        comparison = compare(stages[stage], yardstick[stage], values, dtype, depth=depth_of(config))
        if not comparison.passed:
            return f"{stage}: {comparison}"
    return "logits only: every captured stage is within its bound"


class _Stages(dict):
    """Captured stages but for the attention weights of long clips, which would take gigabytes."""

    def __setitem__(self, name: str, value: Any) -> None:
        if value.size <= LARGEST_STAGE:
            super().__setitem__(name, value)


def _milliseconds(run: Callable[[], jax.Array]) -> float:
    """The median of a few runs, in milliseconds; the first was made before."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(1e3 * (time.perf_counter() - start))
    return median(times)
