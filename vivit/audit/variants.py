"""Audits every variant of the paper on a real video: production against the reference, one row per variant and dtype.

Every parameter is random, because a new model's zero head and zero biases would hide errors. The logits of each variant
are compared in float32 and bfloat16. If they fail, the stages are compared in order to find the first that fails.
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

from vivit import models
from vivit.audit import baseline
from vivit.audit.bound import compare, depth_of
from vivit.initialise import init
from vivit.reference import models as reference
from vivit.reference.config import COLORS, Config, Model, Order, Pooling, named
from vivit.reference.costs import multiply_adds
from vivit.reference.params import Leaf, Params, convert, parameters, shapes

DTYPES = ("float32", "bfloat16")
SIZES = {"tiny": "vivit-tiny/8x2", "base": "vivit-b/16x2"}
REPEATS = 3
LARGEST_STAGE = 2**24  # elements; larger stages are not stored


@dataclass(frozen=True, kw_only=True)
class VariantComparison:
    """One row of the table: one variant in one dtype."""

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
    departs: str  # the first stage beyond its bound, with its largest difference; "" if the row passed


def variants(size: str = "tiny", only: str | None = None) -> dict[str, Config]:
    """Returns every variant by name: model x embedding x pooling. only: one of the four models.

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
    """Returns random float32 parameters, exact in bfloat16, large enough that softmax and GELU are nonlinear."""
    generator = np.random.default_rng(seed)

    def kernel(leaf: Leaf) -> np.ndarray:  # preserves the variance of its input
        inputs = [size for axis, size in zip(leaf.axes, leaf.shape, strict=True) if axis != "l"][:-1]
        return generator.standard_normal(leaf.shape) / np.sqrt(np.prod(inputs))

    def other(leaf: Leaf) -> np.ndarray:
        return (leaf.initialiser == "ones") + generator.standard_normal(leaf.shape) / 4

    return convert(shapes(config), lambda path, leaf: rounded((kernel if path.endswith("kernel") else other)(leaf)))


def rounded(values: np.ndarray) -> np.ndarray:
    """Rounds values to bfloat16 and returns them as float32, so that every dtype computes with the same numbers."""
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def audit(video: np.ndarray, configs: dict[str, Config]) -> Iterator[VariantComparison]:
    """Yields two rows per variant, float32 then bfloat16. video: uint8[frames height width colors] of the configs."""
    clip = video[np.newaxis]
    for name, config in configs.items():
        params = random_params(config)
        expected = reference.forward(params, clip, config)
        params = jax.tree.map(jnp.asarray, params)
        counted = compiler_multiply_adds(config)
        for dtype in DTYPES:
            run = partial(models.forward, params, clip, config, dtype=dtype)
            comparison = compare(
                run(), baseline.forward(params, clip, config, dtype=dtype), expected, dtype, depth=depth_of(config)
            )
            yield VariantComparison(
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
                departs="" if comparison.passed else first_failure(params, clip, config, dtype),
            )


def first_failure(params: Params, clip: np.ndarray, config: Config, dtype: str) -> str:
    """Returns the first stage, in order of computation, whose error exceeds its bound, and its largest difference."""
    stages, baseline_stages, expected = _Stages(), _Stages(), _Stages()
    reference.forward(params, clip, config, capture=expected)
    baseline.forward(params, clip, config, dtype=dtype, capture=baseline_stages)
    models.forward(params, clip, config, dtype=dtype, capture=stages)
    for stage, values in expected.items():
        comparison = compare(stages[stage], baseline_stages[stage], values, dtype, depth=depth_of(config))
        if not comparison.passed:
            return f"{stage}: {comparison}"
    return "logits only: every captured stage is within its bound"


class _Stages(dict):
    """A capture dict without stages above LARGEST_STAGE, such as the attention weights of long clips."""

    def __setitem__(self, name: str, value: Any) -> None:
        if value.size <= LARGEST_STAGE:
            super().__setitem__(name, value)


def _milliseconds(run: Callable[[], jax.Array]) -> float:
    """Returns the median time of REPEATS runs in milliseconds, after a first run that the caller made."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(1e3 * (time.perf_counter() - start))
    return median(times)


def compiler_multiply_adds(config: Config) -> float:
    """Returns half of XLA's floating-point operations for one clip in the baseline, without compiling or running it.

    XLA counts elementwise operations too; the result is about one percent above the formula.
    """
    params = jax.eval_shape(partial(init, config=config), jax.random.key(0))
    video = jax.ShapeDtypeStruct((1, config.frames, config.height, config.width, COLORS), jnp.float32)
    lowered = jax.jit(partial(baseline.forward, config=config)).lower(params, video)
    analysis: Any = lowered.cost_analysis()
    return float(analysis["flops"]) / 2
