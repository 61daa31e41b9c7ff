"""The named workloads that benchmarks and tests share: shapes, heads, required multiply-adds and bytes.

A core is attention without projections, from qkv to out. A layer is layer norm → qkv projection → core → out projection
→ residual. Both exist here in the baseline formulation; this package's layer is one function, `layer`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vivit import attention, encoder, gpu_ops
from vivit.audit import baseline
from vivit.kernels import attention as kernels
from vivit.layers import LayerConfig, aligned
from vivit.ops import Ops
from vivit.pallas_ops import PALLAS
from vivit.reference import attention as reference
from vivit.reference import gradients
from vivit.reference.dropout import AttentionDrops
from vivit.reference.params import Attention, Dense, LayerNorm

SUFFIXES = ("", "-fe", "-fsa", "-fdp")  # of the named variants: models 1 to 4
DTYPES = ("float32", "bfloat16")
EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One attention variant at one size, with the multiply-adds and bytes that every formulation needs."""

    variant: str  # the name of the core
    tokens: tuple[int, ...]  # [b t s], for joint [b n]
    channels: int = 768
    heads: int = 12

    @property
    def count(self) -> int:
        """Tokens in the batch."""
        return math.prod(self.tokens)

    @property
    def core_multiply_adds(self) -> int:
        """Q Kᵀ and W V."""
        seen = {"joint": 2 * self.tokens[-1], "spatial": 2 * self.tokens[-1], "temporal": 2 * self.tokens[1]}
        seen["factorised_dot_product"] = self.tokens[1] + self.tokens[-1]  # half of the heads for each axis
        return self.count * seen[self.variant] * self.channels

    @property
    def projection_multiply_adds(self) -> int:
        """Query, key, value and out."""
        return 4 * self.count * self.channels**2

    def core_bytes(self, dtype: str, *, backward: bool = False) -> int:
        """Bytes of qkv and out; with the backward pass also of their cotangents."""
        passes = 2 if backward else 1
        return passes * self.count * 4 * self.channels * jnp.dtype(dtype).itemsize

    def layer_bytes(self, dtype: str, *, backward: bool = False) -> int:
        """Bytes of float32 tokens (in, out) and weights in `dtype`; backward: also of cotangents and the tokens."""
        weights = 4 * self.channels**2 * jnp.dtype(dtype).itemsize
        return (5 if backward else 2) * self.count * self.channels * 4 + (3 if backward else 1) * weights


def _clips(variant: str) -> Workload:
    return Workload(variant=variant, tokens=(8, 16, 196))


WORKLOADS = {
    "spatial": _clips("spatial"),
    "temporal": _clips("temporal"),
    "factorised_dot_product": _clips("factorised_dot_product"),
    "joint": Workload(variant="joint", tokens=(1, 3136)),
}
SMALL = {  # for a look at whether everything works
    name: Workload(variant=name, tokens=(1, 37) if name == "joint" else (1, 4, 37), channels=256, heads=4)
    for name in WORKLOADS
}


def pallas_core(workload: Workload, **options: Any) -> Callable[[jax.Array], jax.Array]:
    """This package's Pallas kernel, qkv to out."""
    return partial(getattr(kernels, workload.variant), heads=workload.heads, **options)


def cudnn_core(workload: Workload) -> Callable[[jax.Array], jax.Array]:
    """This package's call of cuDNN's attention (vivit/gpu_ops.py)."""
    return partial(getattr(gpu_ops, workload.variant), heads=workload.heads)


def xla_core(workload: Workload) -> Callable[[jax.Array], jax.Array]:
    """This package's formulation for XLA (vivit/attention.py)."""
    return partial(getattr(attention, workload.variant), heads=workload.heads)


def plain_core(workload: Workload) -> Callable[[jax.Array], jax.Array]:
    """The baseline (vivit/audit/baseline.py)."""
    return partial(getattr(baseline, workload.variant), heads=workload.heads)


def oracle(workload: Workload) -> Callable[..., Any]:
    """The float64 reference of the core: NumPy."""
    return partial(getattr(reference, workload.variant), heads=workload.heads)


def oracle_gradient(workload: Workload) -> Callable[..., Any]:
    """The float64 reference of its vector-Jacobian product, (qkv, cotangent) to the cotangent of qkv."""
    vjp = getattr(gradients, f"{workload.variant}_vjp")
    return lambda qkv, cotangent: vjp(qkv, cotangent, workload.heads)


def layer(workload: Workload, dtype: str, ops: Ops = PALLAS) -> Callable[..., jax.Array]:
    """This package's layer, by default as it lowers for a TPU: (tokens float32[b t s c], params) to tokens.

    params: (LayerNorm, Attention).
    """
    config, attend = LayerConfig(workload.heads, "tanh", EPSILON, "time_space", dtype), getattr(ops, workload.variant)

    def run(tokens: jax.Array, params: tuple[LayerNorm, Attention]) -> jax.Array:
        return encoder.attention_residual(
            tokens, *params, AttentionDrops(), attend, "attention", None, ops, config, None
        )

    return run


def layer_params(workload: Workload, leaf: Callable[[tuple[int, ...]], Any]) -> tuple[LayerNorm, Attention]:
    """The parameters of `layer`, each made by leaf(shape)."""
    c = workload.channels
    return LayerNorm(leaf((c,)), leaf((c,))), Attention(
        Dense(leaf((c, 3 * c)), leaf((3 * c,))), Dense(leaf((c, c)), leaf((c,)))
    )


_EQUATIONS = {
    "joint": ("bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd"),
    "spatial": ("btqhd,btkhd->bthqk", "bthqk,btkhd->btqhd"),
    "temporal": ("bqshd,bkshd->bshqk", "bshqk,bkshd->bqshd"),
}


def plain_layer(workload: Workload) -> Callable[..., jax.Array]:
    """The baseline's layer: einsums with heads as an axis, tokens and weights in the tested dtype.

    (tokens [b t s c], (LayerNorm, three Dense with kernel [c h d], Dense with kernel [h d c])) to tokens. Layer norm,
    scores and softmax are in float32.
    """

    def core(query: jax.Array, key: jax.Array, value: jax.Array, variant: str) -> jax.Array:
        scores_equation, out_equation = _EQUATIONS[variant]
        scores = jnp.einsum(scores_equation, query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores / math.sqrt(query.shape[-1]), axis=-1).astype(value.dtype)
        return jnp.einsum(out_equation, weights, value)

    def run(tokens: jax.Array, params: tuple[LayerNorm, tuple[Dense, Dense, Dense], Dense]) -> jax.Array:
        norm, projections, out = params
        normal = jax.nn.standardize(tokens.astype(jnp.float32), axis=-1, epsilon=EPSILON)
        normal = (normal * aligned(norm.scale, normal) + aligned(norm.bias, normal)).astype(tokens.dtype)
        parts = [_biased(jnp.einsum("...c,chd->...hd", normal, one.kernel), one.bias) for one in projections]
        if workload.variant == "factorised_dot_product":
            half = workload.heads // 2
            over_time = core(*(part[..., :half, :] for part in parts), variant="temporal")
            over_space = core(*(part[..., half:, :] for part in parts), variant="spatial")
            mixed = jnp.concatenate([over_time, over_space], axis=-2)
        else:
            mixed = core(*parts, variant=workload.variant)
        return tokens + _biased(jnp.einsum("...hd,hdc->...c", mixed, out.kernel), out.bias)

    return run


def _biased(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + aligned(bias, x).astype(x.dtype)


def plain_layer_params(workload: Workload, leaf: Callable[[tuple[int, ...]], Any]) -> tuple:
    """The parameters of `plain_layer`, each made by leaf(shape)."""
    c, h, d = workload.channels, workload.heads, workload.channels // workload.heads
    projections = tuple(Dense(leaf((c, h, d)), leaf((h, d))) for _ in range(3))
    return LayerNorm(leaf((c,)), leaf((c,))), projections, Dense(leaf((h, d, c)), leaf((c,)))
