"""A layer through the Pallas TPU kernels.

XLA's form (layers.py, attention.py) makes a pass over HBM for every layer norm, bias, activation and residual, and
copies [b t s c] to another layout around each product when s is no multiple of 8. Here a layer is five kernels, or
three where VMEM holds the weights of its last three products, that read and write tokens as they lie. On a TPU v3
query, key and value stay float32 between kernels, since its matrix unit takes nothing else and casts cost more than
HBM's traffic.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from vivit.kernels import attention as kernels
from vivit.kernels import chip, dense, stacks
from vivit.kernels.stacks import Tape
from vivit.layers import LayerConfig, drop
from vivit.ops import XLA, Ops
from vivit.reference.dropout import AttentionDrops, MlpDrops
from vivit.reference.params import Dense, LayerNorm, Mlp
from vivit.reverse_once import reverse_once
from vivit.scan_in_place import scan_in_place


def pallas(interpret: Any = False) -> Ops:
    """The kernels' ops. interpret: run them in Pallas's interpreter, on any device."""
    return XLA._replace(
        norm_dense=partial(_norm_dense, interpret=interpret),
        joint=partial(_attend, kernels.joint, interpret=interpret),
        spatial=partial(_attend, kernels.spatial, interpret=interpret),
        temporal=partial(_attend, kernels.temporal, interpret=interpret),
        factorised_dot_product=partial(_attend, kernels.factorised_dot_product, interpret=interpret),
        residual_dense=partial(_residual_dense, interpret=interpret),
        residual_mlp=partial(_residual_mlp, interpret=interpret),
        residual_dense_mlp=partial(_residual_dense_mlp, interpret=interpret),
        scan=scan_in_place,
    )


def _norm_dense(
    tokens: jax.Array, norm: LayerNorm, params: Dense, layer: LayerConfig, *, interpret: Any, tape: Tape | None = None
) -> tuple[jax.Array, jax.Array]:
    tokens, norm, params = reverse_once((tokens, norm, params))
    between = chip.operand_dtype(layer.dtype)
    out, tokens = dense.norm_dense(
        tokens, norm, params, layer.epsilon, layer.dtype,
        out_dtype=between, residual=True, interpret=interpret, tape=tape,
    )  # fmt: skip
    return out, tokens


def _attend(
    attend: Callable[..., jax.Array], qkv: jax.Array, heads: int, *, mask: Any, dropout: Any, interpret: Any,
    tape: Tape | None = None,
) -> jax.Array:  # fmt: skip
    return attend(reverse_once(qkv), heads, mask=mask, dropout=dropout, interpret=interpret, tape=tape)


def _residual_dense(
    tokens: jax.Array, x: jax.Array, params: Dense, drops: AttentionDrops, layer: LayerConfig, *, interpret: Any,
    tape: Tape | None = None, keep: bool = False,
) -> jax.Array:  # fmt: skip
    """keep: in the tape, for the MLP; an attention that follows keeps x̂ instead."""
    tokens, x, params = reverse_once((tokens, x, params))
    dropping = drops.out is not None or drops.depth is not None
    alone = keep and not dropping
    added = dense.residual_dense(tokens, x, params, layer.dtype, interpret=interpret, tape=tape, keep=alone)
    out = _dropped(tokens, added, drops.out, drops.depth)
    return tape.keep_array(out) if tape is not None and keep and dropping else out


def _residual_mlp(
    tokens: jax.Array, norm: LayerNorm, params: Mlp, drops: MlpDrops, layer: LayerConfig, *, interpret: Any,
    tape: Tape | None = None,
) -> jax.Array:  # fmt: skip
    if drops.hidden is not None:  # the kernel does not drop
        return XLA.residual_mlp(*stacks.arrays((tokens, norm, params)), drops, layer)
    tokens, norm, params = reverse_once((tokens, norm, params))
    added = dense.residual_mlp(
        tokens, norm, params, layer.gelu, layer.epsilon, layer.dtype, interpret=interpret, tape=tape
    )
    return _dropped(tokens, added, drops.out, drops.depth)


def _residual_dense_mlp(
    tokens: jax.Array, x: jax.Array, params: Dense, drops: AttentionDrops, norm: LayerNorm, mlp: Mlp,
    mlp_drops: MlpDrops, layer: LayerConfig, *, interpret: Any, in_place: bool, tape: Tape | None = None,
) -> jax.Array:  # fmt: skip
    if any(multiplier is not None for multiplier in (drops.out, drops.depth, *mlp_drops)):
        tokens = _residual_dense(tokens, x, params, drops, layer, interpret=interpret, tape=tape, keep=True)
        return _residual_mlp(tokens, norm, mlp, mlp_drops, layer, interpret=interpret, tape=tape)
    tokens, x, params, norm, mlp = reverse_once((tokens, x, params, norm, mlp))
    return dense.residual_dense_mlp(
        tokens, x, params, norm, mlp, layer.gelu, layer.epsilon, layer.dtype,
        interpret=interpret, tape=tape, in_place=in_place,
    )  # fmt: skip


def _dropped(tokens: jax.Array, added: jax.Array, *multipliers: jax.Array | None) -> jax.Array:
    """The residual with its branch multiplied, where anything is dropped."""
    if all(multiplier is None for multiplier in multipliers):
        return added
    tokens = stacks.arrays(tokens)
    branch = added - tokens
    for multiplier in multipliers:
        branch = drop(branch, multiplier)
    return tokens + branch


PALLAS, INTERPRETED = pallas(), pallas(interpret=True)
