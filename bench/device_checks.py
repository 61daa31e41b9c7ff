"""The kernels of `bench device`, each compared with the float64 reference on the device: values and gradients.

Small batches of ViViT-B's heads and sequences, where the oracle is quick. Cores with a mask, with dropout, exactly
multiplied and longer than a whole sequence; the layer's dense kernels; the four models from patches to logits.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vivit
from bench import workloads
from bench.device_programs import SMALL_SIZE, core_values, layer_oracle, layer_values
from bench.harness import product_dtype
from bench.workloads import DTYPES, SUFFIXES, Workload
from vivit.audit import baseline
from vivit.audit.baseline import BASELINE
from vivit.audit.bound import compare, depth_of
from vivit.audit.variants import random_params, rounded
from vivit.dropout import all_weights, weights_shape
from vivit.kernels import attention as kernels
from vivit.layers import LayerConfig
from vivit.numerics.hash_dropout import Dropout
from vivit.ops import Ops
from vivit.pallas_ops import pallas
from vivit.reference import attention, gradients
from vivit.reference import layers as reference_layers
from vivit.reference import models as reference
from vivit.reference.config import named
from vivit.reference.dropout import MlpDrops
from vivit.reference.params import Dense, Mlp

SHAPES = {  # [b t s], for joint [b n]: a sequence taken whole, and for joint one in blocks as well
    "spatial": (2, 2, 197),
    "temporal": (2, 16, 20),
    "factorised_dot_product": (2, 16, 20),
    "joint": (2, 197),
    "joint, long": (1, 700),
}
SMALL_SHAPES = {name: (1, 13) if name.startswith("joint") else (1, 3, 13) for name in SHAPES}
CASES = ("alone", "masked", "dropout", "exact")
RATE = 0.25


class Check(NamedTuple):
    """A program of kernels, the plain one, and what the oracle says of both."""

    what: str
    dtype: str
    kernels: Callable[..., Any]
    plain: Callable[..., Any]
    arguments: tuple
    expected: Callable[[], Any]  # a tree of float64, as the programs give it
    depth: int
    precision: str | None = None


class Verdict(NamedTuple):
    """What came of a check: the result with the largest error in its bound."""

    what: str
    dtype: str
    error: float
    bound: float
    passed: bool
    message: str


def checks(*, small: bool, interpret: bool) -> Iterator[Check]:
    """Every kernel, forward and backward. interpret: in Pallas's interpreter."""
    ops = pallas(interpret)
    shapes = SMALL_SHAPES if small else SHAPES
    channels, heads = (128, 2) if small else (768, 12)
    for name, tokens in shapes.items():
        work = Workload(variant=name.partition(",")[0], tokens=tokens, channels=channels, heads=heads)
        for case in CASES:
            for dtype in DTYPES[:1] if case == "exact" else DTYPES:
                yield _core(name, work, case, dtype, interpret)
    for dtype in DTYPES:
        yield _layer(Workload(variant="spatial", tokens=shapes["spatial"], channels=channels, heads=heads), dtype, ops)
        for form in ("tanh", "erf"):
            yield _mlp(shapes["spatial"], channels, form, dtype, ops)
        for suffix in SUFFIXES:
            yield _model(SMALL_SIZE + suffix, dtype, ops)


def judge(check: Check, kernels: Callable[..., Any], plain: Callable[..., Any]) -> Verdict:
    """Runs a check's two programs, compiled, and compares them."""
    results = [jax.tree.leaves(program(*check.arguments)) for program in (kernels, plain)]
    rounding = product_dtype(check.dtype, check.precision)
    found = [
        compare(actual, base, exact, rounding, depth=check.depth)
        for actual, base, exact in zip(*results, jax.tree.leaves(check.expected()), strict=True)
    ]
    worst = max(found, key=lambda one: (not one.passed, one.error / one.bound if one.bound else 0.0))
    return Verdict(check.what, check.dtype, worst.error, worst.bound, worst.passed, str(worst))


def _core(name: str, work: Workload, case: str, dtype: str, interpret: bool) -> Check:
    qkv, cotangent = core_values(work)
    generator = np.random.default_rng(4)
    mask = generator.random(work.tokens) >= 0.3 if case == "masked" else None
    seeds = generator.integers(-(2**31), 2**31, (work.tokens[0], work.heads, 2))
    dropout = Dropout(jnp.asarray(seeds, jnp.int32), RATE) if case == "dropout" else None
    precision = "highest" if case == "exact" else None

    def both(core: Callable[..., jax.Array]) -> Callable[..., Any]:
        def run(qkv: jax.Array, cotangent: jax.Array, mask: Any, dropout: Any) -> Any:
            out, pull = jax.vjp(lambda qkv: core(qkv, work.heads, mask=mask, dropout=dropout), qkv)
            return out, *pull(cotangent)

        return run

    def expected() -> Any:
        options = {"mask": mask, "dropout": None if dropout is None else _drawn(work, dropout)}
        inputs = np.float64(qkv), np.float64(cotangent)
        out = getattr(attention, work.variant)(inputs[0], work.heads, **options)
        return out, getattr(gradients, f"{work.variant}_vjp")(*inputs, work.heads, **options)

    return Check(
        f"core {name}, {case}",
        dtype,
        both(partial(getattr(kernels, work.variant), precision=precision, interpret=interpret)),
        both(getattr(baseline, work.variant)),
        (jnp.asarray(qkv, dtype), jnp.asarray(cotangent, dtype), mask, dropout),
        expected,
        2,
        precision,
    )


def _drawn(work: Workload, dropout: Dropout) -> Any:
    """The multipliers that a core draws, as the reference takes them."""
    drawn = all_weights(dropout, weights_shape(work.variant, work.tokens, work.heads))
    return jax.tree.map(lambda one: np.asarray(one, np.float64), drawn)


def _layer(work: Workload, dtype: str, ops: Ops) -> Check:
    """norm_dense, a core and residual_dense."""
    tokens, params = layer_values(work)

    def both(ops: Ops) -> Callable[..., Any]:
        return _with_gradient(workloads.layer(work, dtype, ops))

    def expected() -> Any:
        out, *cotangents = layer_oracle(work, *jax.tree.map(np.float64, (tokens, params)))
        return out, tuple(cotangents)

    return Check(
        "norm_dense, spatial, residual_dense",
        dtype,
        both(ops),
        both(BASELINE),
        jax.tree.map(jnp.asarray, (tokens, params)),
        expected,
        2,
    )


def _mlp(tokens: tuple[int, ...], c: int, form: str, dtype: str, ops: Ops) -> Check:
    generator = np.random.default_rng(5)
    norm, _ = layer_values(Workload(variant="spatial", tokens=tokens, channels=c, heads=2))[1]

    def dense(inputs: int, outputs: int) -> Dense:
        kernel = generator.standard_normal((inputs, outputs)) / np.sqrt(inputs)
        return Dense(rounded(kernel), rounded(generator.standard_normal(outputs) / 4))

    params = Mlp(dense(c, 4 * c), dense(4 * c, c))
    z = rounded(generator.standard_normal((*tokens, c)))
    config = LayerConfig(1, form, workloads.EPSILON, "time_space", dtype)

    def both(ops: Ops) -> Callable[..., Any]:
        return _with_gradient(lambda z, params: ops.residual_mlp(z, *params, MlpDrops(), config))

    def expected() -> Any:
        tokens, exact_norm, exact = jax.tree.map(np.float64, (z, norm, params))
        normal = reference_layers.layer_norm(tokens, exact_norm, workloads.EPSILON)
        out = tokens + reference_layers.mlp(normal, exact, form)
        through, *cotangents = gradients.mlp_branch_vjp(tokens, exact_norm, exact, form, workloads.EPSILON, out)
        return out, (out + through, tuple(cotangents))

    arguments = jax.tree.map(jnp.asarray, (z, (norm, params)))
    return Check(f"residual_mlp, {form}", dtype, both(ops), both(BASELINE), arguments, expected, 2)


def _model(name: str, dtype: str, ops: Ops) -> Check:
    config = named(name)
    params = random_params(config)
    video = np.random.default_rng(6).integers(0, 256, (2, config.frames, config.height, config.width, 3), np.uint8)
    return Check(
        f"model {name}",
        dtype,
        partial(vivit.forward, config=config, dtype=dtype, attention=ops),
        partial(baseline.forward, config=config, dtype=dtype),
        (jax.tree.map(jnp.asarray, params), video),
        lambda: reference.forward(params, video, config),
        depth_of(config),
    )


def _with_gradient(function: Callable[..., jax.Array]) -> Callable[..., Any]:
    """(tokens, params) to (out, (tokens' cotangent, params')), those of Σ out² / 2."""

    def run(tokens: jax.Array, params: Any) -> Any:
        out, pull = jax.vjp(function, tokens, params)
        return out, pull(out)

    return run
