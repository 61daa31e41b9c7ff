"""The two halves of a layer through the Pallas kernels: how a layer is laid out on a TPU, and when that is chosen.

XLA's form (encoder.py) makes a pass over HBM for every layer norm, bias, activation and residual, and copies [b t s c]
to another layout around each product when s is no multiple of 8. Here a layer is six kernels that read and write tokens
as they lie: layer norm with the projection to query, key and value; the attention; the projection back with the
residual; and the MLP with its layer norm and residual. On a TPU v3 query, key and value stay float32 between kernels,
since its matrix unit takes nothing else and casts cost more than HBM's traffic.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from vivit.kernels import attention as kernels
from vivit.kernels import chip
from vivit.kernels.dense import norm_dense, residual_dense, residual_mlp
from vivit.layers import drop
from vivit.reference.dropout import AttentionDrops, MlpDrops
from vivit.reference.params import Attention, LayerNorm, Mlp
from vivit.reverse_once import reverse_once

ATTENTION = ("auto", "pallas", "xla")


def choose(
    attention: str, kernel: Callable[..., jax.Array], xla: Callable[..., jax.Array], *operands: Any
) -> jax.Array:
    """kernel(*operands, interpret=…) or xla(*operands).

    attention: "auto": kernels where the program is lowered for a TPU, else XLA. "pallas": kernels everywhere, off a TPU
    in Pallas's interpreter. "xla": never kernels. With kernels other derivatives than one in reverse mode raise
    TypeError.
    """
    if attention == "xla":
        return xla(*operands)

    def through_kernels(interpret: bool, *operands: Any) -> jax.Array:
        return kernel(*reverse_once(operands), interpret=interpret)

    elsewhere = xla if attention == "auto" else partial(through_kernels, True)
    return jax.lax.platform_dependent(*operands, tpu=partial(through_kernels, False), default=elsewhere)


def core_of(cores: Any, core: str, exchange: Callable[..., jax.Array] | None) -> Callable[..., jax.Array]:
    """cores.<core>, or what is called in its place where tokens are split over devices (encoder.Kind)."""
    return getattr(cores, core) if exchange is None else partial(exchange, cores)


def attention_residual(
    tokens: jax.Array,
    norm: LayerNorm,
    params: Attention,
    mask: jax.Array | None,
    drops: AttentionDrops,
    *,
    core: str,
    exchange: Callable[..., jax.Array] | None,
    heads: int,
    epsilon: float,
    dtype: str,
    interpret: Any,
) -> jax.Array:
    """MSA(LN(z)) + z with one of kernels/attention.py's cores. tokens: float32[... n c]. Returns float32[... n c]."""
    between = chip.operand_dtype(dtype)
    qkv, kept = norm_dense(
        tokens, norm, params.qkv, epsilon, dtype, out_dtype=between, residual=True, interpret=interpret
    )
    attend = core_of(kernels, core, exchange)
    mixed = attend(qkv, heads, mask=mask, dropout=drops.weights, interpret=interpret)
    added = residual_dense(kept, mixed, params.out, dtype, interpret=interpret)
    return _dropped(tokens, added, drops.out, drops.depth)


def mlp_residual(
    tokens: jax.Array,
    norm: LayerNorm,
    params: Mlp,
    drops: MlpDrops,
    *,
    gelu: str,
    epsilon: float,
    dtype: str,
    interpret: Any,
) -> jax.Array:
    """MLP(LN(y)) + y; nothing of the hidden layer is dropped. tokens: float32[... n c]. Returns float32[... n c]."""
    added = residual_mlp(tokens, norm, params, gelu, epsilon, dtype, interpret=interpret)
    return _dropped(tokens, added, drops.out, drops.depth)


def _dropped(tokens: jax.Array, added: jax.Array, *multipliers: jax.Array | None) -> jax.Array:
    """The residual with its branch multiplied, where anything is dropped."""
    if all(multiplier is None for multiplier in multipliers):
        return added
    branch = added - tokens
    for multiplier in multipliers:
        branch = drop(branch, multiplier)
    return tokens + branch
