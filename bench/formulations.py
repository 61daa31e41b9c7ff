"""The implementations of each workload as programs to compile: a function and its abstract arguments.

JAX's Pallas flash and splash attention get the same qkv. Their sequences are padded to blocks of 128, with segment ids
that mask the padding; their block size is the largest that divides the sequence, at most 640.
"""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bench import workloads
from bench.workloads import WORKLOADS, Workload
from vivit.pallas_ops import pallas

LANES, LARGEST_BLOCK = 128, 640  # both kernels of JAX want blocks in multiples of 128


def program(
    compiler: Any, dtype: str, workload: str, implementation: str, direction: str
) -> tuple[Callable[..., Any], tuple]:
    """(function, arguments). Raises ValueError where the implementation does not exist for the workload."""
    return program_of(compiler.abstract, dtype, WORKLOADS[workload], implementation, direction)


def program_of(
    abstract: Callable[..., jax.ShapeDtypeStruct],
    dtype: str,
    work: Workload,
    implementation: str,
    direction: str,
    *,
    interpret: bool = False,
) -> tuple[Callable[..., Any], tuple]:
    """As `program`, at any size. abstract(shape, dtype): an argument. interpret: kernels in Pallas's interpreter."""
    kind, _, name = implementation.partition(" ")
    leaf = partial(abstract, dtype=dtype)
    tokens = (*work.tokens, work.channels)
    if kind == "core":
        core = core_of(name, work, interpret=interpret)
        qkv, out = leaf((*work.tokens, 3 * work.channels)), leaf(tokens)
        return (core, (qkv,)) if direction == "forward" else (_core_and_gradient(core), (qkv, out))
    if name == "plain":
        layer, params = workloads.plain_layer(work), workloads.plain_layer_params(work, leaf)
        arguments = leaf(tokens), params
    else:
        layer, params = workloads.layer(work, dtype, pallas(interpret)), workloads.layer_params(work, leaf)
        arguments = abstract(tokens, "float32"), params
    return (layer if direction == "forward" else _layer_gradient(layer)), arguments


def _core_and_gradient(core: Callable[[jax.Array], jax.Array]) -> Callable[..., Any]:
    """(qkv, cotangent of out) to (out, cotangent of qkv)."""

    def run(qkv: jax.Array, cotangent: jax.Array):
        out, vjp = jax.vjp(core, qkv)
        return out, *vjp(cotangent)

    return run


def _layer_gradient(layer: Callable[..., jax.Array]) -> Callable[..., Any]:
    """The gradient of half the sum of squares of the tokens out, with respect to tokens in and params."""

    def loss(tokens: jax.Array, params: Any) -> jax.Array:
        return jnp.square(layer(tokens, params).astype(jnp.float32)).sum() / 2

    return jax.grad(loss, (0, 1))


def _jax_kernel(
    attend: Callable[..., jax.Array], workload: Workload, **options: Any
) -> Callable[[jax.Array], jax.Array]:
    """A core made of attend(query, key, value), [rows h n d] each, for the sequences of the workload's axes."""

    def over(parts: tuple[jax.Array, ...], axis: int) -> jax.Array:  # parts: [b t s h d]; axis: of the sequence
        order = (0, 3 - axis, 3, axis, 4)  # b, the other axis, h, n, d
        b, other, h, n, d = (parts[0].shape[i] for i in order)
        out = attend(*(part.transpose(order).reshape(b * other, h, n, d) for part in parts), **options)
        return out.reshape(b, other, h, n, d).transpose(*(order.index(i) for i in range(5)))

    def core(qkv: jax.Array) -> jax.Array:
        b, *middle, fused = qkv.shape
        t, s = (1, *middle)[-2:]
        c, h = fused // 3, workload.heads
        split = qkv.reshape(b, t, s, 3, h, c // h)
        parts = tuple(split[:, :, :, index] for index in range(3))
        if workload.variant == "factorised_dot_product":
            halves = [tuple(part[..., half * h // 2 : (half + 1) * h // 2, :] for part in parts) for half in (0, 1)]
            out = jnp.concatenate([over(halves[0], 1), over(halves[1], 2)], axis=-2)
        else:
            out = over(parts, 1 if workload.variant == "temporal" else 2)
        return out.reshape(b, *middle, c)

    return core


def _flash(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """jax.experimental.pallas.ops.tpu.flash_attention."""
    from jax.experimental.pallas.ops.tpu import flash_attention as flash

    rows, _, n, d = query.shape
    inputs = [_padded(part, 2) for part in (query, key, value)]
    segments = _segments(rows, n, inputs[0].shape[2])
    ids = flash.SegmentIds(segments, segments)
    block = _block(inputs[0].shape[2])
    names = [name for name in inspect.signature(flash.BlockSizes).parameters if name != "block_b"]
    blocks: dict[str, Any] = dict.fromkeys(names, block)
    out = flash.flash_attention(
        *inputs, segment_ids=ids, sm_scale=1 / math.sqrt(d), block_sizes=flash.BlockSizes(block_b=1, **blocks)
    )
    return out[:, :, :n]


def _splash(query: jax.Array, key: jax.Array, value: jax.Array, *, interpret: bool = False) -> jax.Array:
    """jax.experimental.pallas.ops.tpu.splash_attention; it wants 128 channels a head as well."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    rows, h, n, d = query.shape
    inputs = [_padded(_padded(part, 2), 3) for part in (query / math.sqrt(d), key, value)]
    length = inputs[0].shape[2]
    mask = masks.MultiHeadMask([masks.FullMask((length, length))] * h)
    names = [name for name in inspect.signature(splash.BlockSizes).parameters if name.startswith("block_")]
    blocks: dict[str, Any] = dict.fromkeys(names, _block(length))
    sizes = splash.BlockSizes(**blocks)
    kernel: Any = splash.make_splash_mha(mask, head_shards=1, q_seq_shards=1, block_sizes=sizes, interpret=interpret)
    segments = _segments(rows, n, length)
    out = jax.vmap(kernel)(*inputs, segment_ids=splash.SegmentIds(segments, segments))
    return out[:, :, :n, :d].astype(query.dtype)


def _block(length: int) -> int:
    return max(size for size in range(LANES, LARGEST_BLOCK + 1, LANES) if length % size == 0)


def _padded(x: jax.Array, axis: int) -> jax.Array:
    """Pads with zeros at the end, to the next multiple of the lanes."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % LANES)
    return jnp.pad(x, widths)


def _segments(rows: int, n: int, length: int) -> jax.Array:
    """int32[rows length]: 0 for the tokens, 1 for the padding."""
    return jnp.broadcast_to((jnp.arange(length) >= n).astype(jnp.int32), (rows, length))


CORES: dict[str, Callable[..., Callable[[jax.Array], jax.Array]]] = {
    "pallas": workloads.pallas_core,
    "cudnn": workloads.cudnn_core,
    "xla": workloads.xla_core,
    "plain": workloads.plain_core,
    "flash": partial(_jax_kernel, _flash),
    "splash": partial(_jax_kernel, _splash),
}


def core_of(name: str, workload: Workload, *, interpret: bool) -> Callable[[jax.Array], jax.Array]:
    """One of CORES, qkv to out. interpret: its Pallas kernels run in the interpreter."""
    return CORES[name](workload, **({"interpret": interpret} if name in ("pallas", "splash") else {}))
