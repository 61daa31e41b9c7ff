"""The attention variants as Pallas TPU kernels, forward and backward: the public face of this folder.

Oracle: reference/attention.py and reference/gradients.py; names and leading arguments are theirs. Sequences that fit in
VMEM go through whole.py, longer ones through blocked.py; model 4's two halves of the heads are two kernels that write
into one array. Nothing but the kernels touches the tokens, unless heads have other sizes than 32, 64 or multiples of
128 channels (heads.py), or a sequence over time or of model 4 is too long to be taken whole (then axes are swapped, or
halves split, around the kernels).

Every function takes, by keyword:
mask: bool, True for tokens that may be attended to. dropout: a `Dropout`, drawn in the kernels, or the multipliers as
the reference takes them, float32 and all in memory, which is for tests. precision: None, or "highest" to multiply
float32 exactly. operands: the dtype in which operands reach the matrix unit; None: the chip's (chip.py). interpret: run
in Pallas's interpreter, on any device.
They raise ValueError for what does not fit, naming it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vivit.kernels import blocked, chip, whole
from vivit.kernels.heads import Windows, fits, pad_heads, unpad_heads, windows
from vivit.kernels.window import Arithmetic
from vivit.numerics.hash_dropout import Dropout, halves
from vivit.reference.attention import check_core

LONGEST = 512  # rows of a product that is taken whole


class _Tools(NamedTuple):
    """How to compute, as opposed to what."""

    arithmetic: Arithmetic
    interpret: Any
    budget: int  # bytes of VMEM


def joint(
    qkv: jax.Array,
    heads: int,
    *,
    mask: jax.Array | None = None,
    dropout: jax.Array | Dropout | None = None,
    precision: str | None = None,
    operands: DTypeLike | None = None,
    interpret: Any = False,
) -> jax.Array:
    """Every token attends to every token (model 1, and the temporal encoder of model 2).

    Source: Arnab et al. 2021, section 3.3, model 1. qkv: float[b n 3c]. mask: bool[b n]. dropout: float32[b h q k].
    Returns float[b n c], dtype of qkv.
    """
    check_core(qkv, "b n 3c", heads, mask)
    if mask is not None:
        mask = mask[:, np.newaxis]
    if dropout is not None and not isinstance(dropout, Dropout):
        dropout = dropout[:, np.newaxis]
    tools = _tools(qkv, heads, dropout, precision, operands, interpret)
    out = _over_space(_stored(qkv, tools)[:, np.newaxis], heads, mask, dropout, tools)[:, 0]
    return out.astype(qkv.dtype)


def spatial(
    qkv: jax.Array,
    heads: int,
    *,
    mask: jax.Array | None = None,
    dropout: jax.Array | Dropout | None = None,
    precision: str | None = None,
    operands: DTypeLike | None = None,
    interpret: Any = False,
) -> jax.Array:
    """A token attends to the tokens of its own time (models 2 and 3).

    Source: Arnab et al. 2021, section 3.3, models 2 and 3. qkv: float[b t s 3c]. mask: bool[b t s].
    dropout: float32[b t h q k]. Returns float[b t s c], dtype of qkv.
    """
    check_core(qkv, "b t s 3c", heads, mask)
    tools = _tools(qkv, heads, dropout, precision, operands, interpret)
    return _over_space(_stored(qkv, tools), heads, mask, dropout, tools).astype(qkv.dtype)


def temporal(
    qkv: jax.Array,
    heads: int,
    *,
    mask: jax.Array | None = None,
    dropout: jax.Array | Dropout | None = None,
    precision: str | None = None,
    operands: DTypeLike | None = None,
    interpret: Any = False,
) -> jax.Array:
    """A token attends to the tokens of its own place (model 3).

    Source: Arnab et al. 2021, section 3.3, model 3. qkv: float[b t s 3c]. mask: bool[b t s].
    dropout: float32[b s h q k]. Returns float[b t s c], dtype of qkv.
    """
    check_core(qkv, "b t s 3c", heads, mask)
    tools = _tools(qkv, heads, dropout, precision, operands, interpret)
    return _over_time(_stored(qkv, tools), heads, mask, dropout, tools).astype(qkv.dtype)


def factorised_dot_product(
    qkv: jax.Array,
    heads: int,
    *,
    mask: jax.Array | None = None,
    dropout: tuple[jax.Array, jax.Array] | Dropout | None = None,
    precision: str | None = None,
    operands: DTypeLike | None = None,
    interpret: Any = False,
) -> jax.Array:
    """The first half of the heads attends over time, the second half over space (model 4).

    Source: Arnab et al. 2021, section 3.3, model 4. qkv: float[b t s 3c]. mask: bool[b t s].
    dropout: (float32[b s h/2 q k] over time, float32[b t h/2 q k] over space). Returns float[b t s c], dtype of qkv.
    """
    if heads % 2:
        raise ValueError(f"heads is {heads}: factorised_dot_product needs an even number, half for each axis")
    check_core(qkv, "b t s 3c", heads, mask)
    tools = _tools(qkv, heads, dropout, precision, operands, interpret)
    dtype, qkv = qkv.dtype, _stored(qkv, tools)
    b, t, s, fused = qkv.shape
    half = heads // 2
    dropouts = halves(dropout)
    if not _whole_over_time(t) or s > LONGEST:
        parts = qkv.reshape(b, t, s, 3, 2, fused // 6)
        time_half, space_half = (parts[..., i, :].reshape(b, t, s, fused // 2) for i in (0, 1))
        over_time = _over_time(time_half, half, mask, dropouts[0], tools)
        over_space = _over_space(space_half, half, mask, dropouts[1], tools)
        return jnp.concatenate([over_time, over_space], axis=-1).astype(dtype)
    return _taken_whole(qkv, heads, mask, ((True, dropouts[0]), (False, dropouts[1])), tools).astype(dtype)


def _tools(
    qkv: jax.Array, heads: int, dropout: Any, precision: str | None, operands: DTypeLike | None, interpret: Any
) -> _Tools:
    if isinstance(dropout, Dropout) and dropout.seeds.shape != (qkv.shape[0], heads, 2):
        raise ValueError(f"dropout has seeds {[*dropout.seeds.shape]}: they must be {[qkv.shape[0], heads, 2]}")
    if np.dtype(qkv.dtype).name not in ("float32", "bfloat16"):
        raise ValueError(f"qkv has dtype {np.dtype(qkv.dtype).name}: it must be float32 or bfloat16")
    if precision not in (None, "highest"):
        raise ValueError(f"precision is {precision!r}: it must be None or 'highest'")
    exact = jax.lax.Precision.HIGHEST if precision else None
    if operands is None:
        operands = np.float32 if precision else chip.operand_dtype(qkv.dtype)
    return _Tools(Arithmetic(np.dtype(operands), exact), interpret, chip.vmem_bytes())


def _stored(qkv: jax.Array, tools: _Tools) -> jax.Array:
    """qkv as the kernels read it: where operands are float32, casting a block in VMEM costs more than HBM's traffic."""
    operands = tools.arithmetic.operands
    return qkv.astype(operands) if operands.itemsize > qkv.dtype.itemsize else qkv


def _over_space(qkv: jax.Array, heads: int, mask: Any, dropout: Any, tools: _Tools) -> jax.Array:
    """float[b t s c] from float[b t s 3c], mask bool[b t s], dropout a Dropout or float32[b t h q k]."""
    b, t, s, fused = qkv.shape
    if s <= LONGEST:
        return _taken_whole(qkv, heads, mask, ((False, dropout),), tools)
    c = fused // 3
    layout = windows(c, heads)
    rate, seeds, multiplier = _dropped(dropout, layout)
    rows = b * t
    extras = blocked.Extras(
        None if mask is None else mask.reshape(rows, s).astype(jnp.int32),
        None if seeds is None else jnp.repeat(seeds, t, axis=0),
        jnp.tile(jnp.arange(t, dtype=jnp.int32), b),
        None if multiplier is None else multiplier.reshape(rows, *multiplier.shape[2:]),
    )
    flat = qkv.reshape(rows, s, fused)
    plan = blocked.Plan(layout, rate, *tools)
    return _in_windows(lambda qkv: _in_blocks(plan, qkv, extras), flat, heads).reshape(b, t, s, c)


def _over_time(qkv: jax.Array, heads: int, mask: Any, dropout: Any, tools: _Tools) -> jax.Array:
    """float[b t s c] from float[b t s 3c], mask bool[b t s], dropout a Dropout or float32[b s h q k]."""
    if _whole_over_time(qkv.shape[1]):
        return _taken_whole(qkv, heads, mask, ((True, dropout),), tools)
    swapped = _over_space(qkv.swapaxes(1, 2), heads, None if mask is None else mask.swapaxes(1, 2), dropout, tools)
    return swapped.swapaxes(1, 2)


def _whole_over_time(t: int) -> bool:
    return whole.PLACES * t <= LONGEST


def _taken_whole(qkv: jax.Array, heads: int, mask: Any, axes: tuple[tuple[bool, Any], ...], tools: _Tools) -> jax.Array:
    """axes: for each equal part of the heads whether it attends over time, and its dropout."""
    c, parts = qkv.shape[-1] // 3, len(axes)
    layout = windows(c, heads, parts)
    plans, extras = [], []
    for part, (over_time, dropout) in enumerate(axes):
        rate, seeds, multiplier = _dropped(dropout, layout)
        plans.append(whole.Plan(over_time, layout, part, parts, rate, *tools))
        extras.append(whole.Extras(None if mask is None else mask.astype(jnp.int32), seeds, multiplier))
    return _in_windows(lambda qkv: _whole(tuple(plans), qkv, tuple(extras)), qkv, heads, parts)


def _in_windows(core: Callable[[jax.Array], Any], qkv: jax.Array, heads: int, parts: int = 1) -> jax.Array:
    """core(qkv), with heads padded around it where they do not fill whole windows."""
    c = qkv.shape[-1] // 3
    if fits(c, heads, parts):
        return core(qkv)
    return unpad_heads(core(pad_heads(qkv, heads, 3, parts)), c, heads, parts)


def _dropped(dropout: Any, layout: Windows) -> tuple[float, jax.Array | None, jax.Array | None]:
    """(rate, seeds [b h 2], multiplier [.. .. h q k]) with heads padded to whole windows."""

    def padded(x: jax.Array, axis: int) -> jax.Array:
        missing = layout.count * layout.per - x.shape[axis]
        return jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])

    if isinstance(dropout, Dropout):
        return dropout.rate, padded(dropout.seeds, 1), None
    return 0.0, None, None if dropout is None else padded(dropout, 2)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _whole(plans: tuple[whole.Plan, ...], qkv: jax.Array, extras: tuple[whole.Extras, ...]) -> jax.Array:
    out = whole.forward(qkv, extras[0], plans[0], None)
    for plan, beside in zip(plans[1:], extras[1:], strict=True):
        out = whole.forward(qkv, beside, plan, out)
    return out


def _whole_forward(plans, qkv, extras):
    return _whole(plans, qkv, extras), (qkv, extras)


def _whole_backward(plans, residuals, cotangent):
    qkv, extras = residuals
    return whole.backward(qkv, cotangent, extras, plans), None


_whole.defvjp(_whole_forward, _whole_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _in_blocks(plan: blocked.Plan, qkv: jax.Array, extras: blocked.Extras) -> jax.Array:
    return blocked.forward(qkv, extras, plan, statistics=False)[0]


def _in_blocks_forward(plan, qkv, extras):
    out, log_sums = blocked.forward(qkv, extras, plan, statistics=True)
    return out, (qkv, out, log_sums, extras)


def _in_blocks_backward(plan, residuals, cotangent):
    qkv, out, log_sums, extras = residuals
    parts = blocked.backward(qkv, out, log_sums, cotangent, extras, plan)
    return jnp.concatenate(parts, axis=-1).astype(qkv.dtype), None


_in_blocks.defvjp(_in_blocks_forward, _in_blocks_backward)
