"""The attention variants as Pallas TPU kernels, forward and backward: the public face of this folder.

Oracle: reference/attention.py and reference/gradients.py; names and leading arguments are theirs. Nothing but the
kernels touches the tokens, unless heads have other sizes than 32, 64 or multiples of 128 channels (heads.py), or a
sequence over time or of model 4 is too long to be taken whole (then axes are swapped, or halves split, around the
kernels).

All have one signature: qkv, heads, and by keyword
mask: bool, True for tokens that may be attended to. A masked token is never read, whatever it holds.
dropout: a `Dropout`, drawn in the kernels.
precision: None, or "highest" to multiply float32 exactly.
operands: the dtype in which operands reach the matrix unit; None: the chip's (chip.py).
block_sizes: how the work is cut; None: as block_sizes.json says, or as much at once as fits.
interpret: run in Pallas's interpreter, on any device.
tape: keeps the result and what the backward pass needs (stacks.py); qkv and the result may be Slices.
They raise ValueError for what does not fit, naming it. An empty batch gives an empty result.
"""

from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from vivit.kernels import chip
from vivit.kernels.block_sizes import BlockSizes, Shape, tuned
from vivit.kernels.factorised import factorised as _over_both
from vivit.kernels.softmax_av import KernelOptions
from vivit.kernels.spatial import spatial as _over_space
from vivit.kernels.stacks import Tape
from vivit.kernels.temporal import temporal as _over_time
from vivit.numerics.hash_dropout import Dropout
from vivit.reference.attention import check_core

__all__ = ["BlockSizes", "Keywords", "factorised_dot_product", "joint", "spatial", "temporal"]


class Keywords(TypedDict, total=False):
    """The keyword arguments of every variant."""

    mask: jax.Array | None
    dropout: Dropout | None
    precision: str | None
    operands: DTypeLike | None
    block_sizes: BlockSizes | None
    interpret: Any
    tape: Tape | None


def joint(qkv: Float[Array, "b n qkv"], heads: int, **keywords: Unpack[Keywords]) -> Float[Array, "b n c"]:
    """Every token attends to every token (model 1, and the temporal encoder of model 2).

    Source: Arnab et al. 2021, section 3.3, model 1. qkv: float[b n 3c]. mask: bool[b n]. Returns float[b n c], dtype of
    qkv.
    """
    check_core(qkv, "b n 3c", heads, keywords.get("mask"))
    mask = keywords.get("mask")
    keywords["mask"] = None if mask is None else mask[:, np.newaxis]
    b, n, fused = qkv.shape
    return _attend("joint", _over_space, qkv.reshape(b, 1, n, fused), heads, **keywords).reshape(b, n, fused // 3)


def spatial(qkv: Float[Array, "b t s qkv"], heads: int, **keywords: Unpack[Keywords]) -> Float[Array, "b t s c"]:
    """A token attends to the tokens of its own time (models 2 and 3).

    Source: Arnab et al. 2021, section 3.3, models 2 and 3. qkv: float[b t s 3c]. mask: bool[b t s]. Returns
    float[b t s c], dtype of qkv.
    """
    check_core(qkv, "b t s 3c", heads, keywords.get("mask"))
    return _attend("spatial", _over_space, qkv, heads, **keywords)


def temporal(qkv: Float[Array, "b t s qkv"], heads: int, **keywords: Unpack[Keywords]) -> Float[Array, "b t s c"]:
    """A token attends to the tokens of its own position (model 3).

    Source: Arnab et al. 2021, section 3.3, model 3. qkv: float[b t s 3c]. mask: bool[b t s]. Returns float[b t s c],
    dtype of qkv.
    """
    check_core(qkv, "b t s 3c", heads, keywords.get("mask"))
    return _attend("temporal", _over_time, qkv, heads, **keywords)


def factorised_dot_product(
    qkv: Float[Array, "b t s qkv"], heads: int, **keywords: Unpack[Keywords]
) -> Float[Array, "b t s c"]:
    """The first half of the heads attends over time, the second half over space (model 4).

    Source: Arnab et al. 2021, section 3.3, model 4. qkv: float[b t s 3c]. mask: bool[b t s]. Returns float[b t s c],
    dtype of qkv.
    """
    if heads % 2:
        raise ValueError(f"heads is {heads}: factorised_dot_product needs an even number, half for each axis")
    check_core(qkv, "b t s 3c", heads, keywords.get("mask"))
    return _attend("factorised_dot_product", _over_both, qkv, heads, **keywords)


def _attend(
    name: str,
    core: Callable[..., jax.Array],
    qkv: Float[Array, "b t s qkv"],
    heads: int,
    *,
    mask: Bool[Array, "b t s"] | None = None,
    dropout: Dropout | None = None,
    precision: str | None = None,
    operands: DTypeLike | None = None,
    block_sizes: BlockSizes | None = None,
    interpret: Any = False,
    tape: Tape | None = None,
) -> Float[Array, "b t s c"]:
    """core on qkv as the kernels read it."""
    *tokens, fused = qkv.shape
    if dropout is not None and dropout.seeds.shape != (tokens[0], heads, 2):
        raise ValueError(f"dropout has seeds {[*dropout.seeds.shape]}: they must be {[tokens[0], heads, 2]}")
    if np.dtype(qkv.dtype).name not in ("float32", "bfloat16"):
        raise ValueError(f"qkv has dtype {np.dtype(qkv.dtype).name}: it must be float32 or bfloat16")
    if precision not in (None, "highest"):
        raise ValueError(f"precision is {precision!r}: it must be None or 'highest'")
    if qkv.size == 0:
        return jnp.zeros((*tokens, fused // 3), qkv.dtype)
    if operands is None:
        operands = np.float32 if precision else chip.operand_dtype(qkv.dtype)
    operands, vmem = np.dtype(operands), chip.vmem_bytes()
    # where operands are float32, casting a block in VMEM costs more than HBM's traffic
    stored = operands if operands.itemsize > qkv.dtype.itemsize else np.dtype(qkv.dtype)
    if block_sizes is None:
        shape = Shape(chip.name(), name, tuple(tokens[1:]), fused // 3, heads, stored.name)
        plainly = mask is None and dropout is None and precision is None  # the others need more VMEM
        block_sizes = tuned(shape) if plainly else BlockSizes()
    options = KernelOptions(
        operands,
        jax.lax.Precision.HIGHEST if precision else None,
        0.0 if dropout is None else dropout.rate,
        block_sizes,
        vmem,
        vmem // 3 if precision else vmem,
        interpret,
        tape,
    )
    return core(qkv.astype(stored), heads, mask, None if dropout is None else dropout.seeds, options).astype(qkv.dtype)
