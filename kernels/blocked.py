"""Attention over long sequences: queries in blocks, keys whole where they fit in VMEM, else in blocks too.

Oracle: reference/attention.py, joint; reference/gradients.py, joint_vjp.

Tiling. A step takes one window of heads (heads.py), a block of queries [1 q w], and keys and values [1 k w], read from
the fused projection by their columns. All keys at once need no rescaling, which is faster wherever 3136 tokens fit; for
longer ones the softmax is online: largest score and sum so far are kept in VMEM, [q w], beside the output.

The backward pass takes the keys in chunks small enough that their cotangents stay in VMEM while all queries pass; the
query's cotangent is summed from chunk to chunk. It needs the logarithm of each row's sum from the forward pass, which
is stored as wide as the output, a head's in its own lanes.

Bytes of VMEM for 3136 tokens, window 128, float32, queries in blocks of 224: 6.4 MB of keys and values, 2.8 MB of
scores a head.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vivit.kernels.heads import LANES, Windows
from vivit.kernels.window import LOG2E, MASKED, Arithmetic, attend, attend_vjp, divided, like
from vivit.numerics.hash_dropout import counter, keep_of_heads

Semantics = Literal["parallel", "arbitrary"]
QUERIES = 224  # rows of a block, forward: 3136 = 14 · 224
QUERIES_BACKWARD = 128  # they lie in lanes


class Plan(NamedTuple):
    """One kernel, without its sizes."""

    layout: Windows
    rate: float
    arithmetic: Arithmetic
    interpret: Any
    budget: int  # bytes of VMEM


class Extras(NamedTuple):
    """What a call may have beside qkv."""

    mask: jax.Array | None  # int32[b n]
    seeds: jax.Array | None  # int32[b h 2]
    outer: jax.Array  # int32[b]: where the row stands in the axis that the attention is not over
    multiplier: jax.Array | None  # float32[b h q k]


def forward(qkv: jax.Array, extras: Extras, plan: Plan, *, statistics: bool) -> list[jax.Array]:
    """[out float[b n c]] from qkv float[b n 3c]; with statistics also log₂ Σ exp of each row, float32[b n c]."""
    b, n, fused = qkv.shape
    layout, width = plan.layout, plan.layout.width
    queries = _query_block(n, QUERIES)
    keys = _key_block(n, plan, qkv.dtype.itemsize, queries, arrays=2, squares=3, tile=LANES, online=0.65)
    named = _inputs(qkv, extras, plan, queries, keys, lambda chunk: chunk, transposed=False)
    rows = pl.BlockSpec((1, queries, width), lambda b, window, query, chunk: (b, query, window))
    outs = [like(qkv, (b, n, fused // 3))] + [like(qkv, (b, n, fused // 3), np.dtype(np.float32))] * statistics
    chunks = -(-n // keys)
    arrays, specs = zip(*named.values(), strict=True)
    return pl.pallas_call(
        partial(_forward_kernel, names=tuple(named), plan=plan, n=n, keys=keys, statistics=statistics),
        grid=(b, layout.count, -(-n // queries), chunks),
        in_specs=list(specs),
        out_specs=[rows] * len(outs),
        out_shape=outs,
        scratch_shapes=[pltpu.VMEM((queries, width), jnp.float32)] * (3 if chunks > 1 else 0),
        compiler_params=_compiler_params(plan, "parallel", "arbitrary"),
        interpret=plan.interpret,
        name="joint_forward",
    )(*arrays)


def backward(
    qkv: jax.Array, out: jax.Array, log_sums: jax.Array, cotangent: jax.Array, extras: Extras, plan: Plan
) -> list[jax.Array]:
    """The cotangents of query, key and value, float32[b n c] each, from forward's results and out's cotangent."""
    b, n, fused = qkv.shape
    width = plan.layout.width
    queries = _query_block(n, QUERIES_BACKWARD)
    keys = _key_block(n, plan, 4, queries, arrays=4, squares=8, tile=8, online=1.0)
    whole = like(qkv, (b, n, fused // 3), np.dtype(np.float32))
    rows = pl.BlockSpec((1, queries, width), lambda b, window, query: (b, query, window))
    accumulated = pl.BlockSpec((1, keys, width), lambda b, window, query: (b, 0, window))
    query_cotangents, key_cotangents, value_cotangents = [], [], []
    for chunk in range(-(-n // keys)):
        named = _inputs(qkv, extras, plan, queries, keys, lambda _, chunk=chunk: chunk, transposed=True)
        named |= {"out": (out, rows), "log_sums": (log_sums, rows), "cotangent": (cotangent, rows)}
        aliases = {}
        if query_cotangents:  # of the chunks before, to be added to in place
            aliases = {len(named): 0}
            named["before"] = (query_cotangents[-1], rows)
        arrays, specs = zip(*named.values(), strict=True)
        part = like(qkv, (b, keys, fused // 3), np.dtype(np.float32))
        query_cotangent, key_cotangent, value_cotangent = pl.pallas_call(
            partial(_backward_kernel, names=tuple(named), plan=plan, n=n, first=chunk * keys),
            grid=(b, plan.layout.count, -(-n // queries)),
            in_specs=list(specs),
            out_specs=[rows, accumulated, accumulated],
            out_shape=[whole, part, part],
            input_output_aliases=aliases,
            compiler_params=_compiler_params(plan, "arbitrary"),
            interpret=plan.interpret,
            name="joint_backward",
        )(*arrays)
        query_cotangents.append(query_cotangent)
        key_cotangents.append(key_cotangent)
        value_cotangents.append(value_cotangent)
    return [query_cotangents[-1], *(jnp.concatenate(p, axis=1)[:, :n] for p in (key_cotangents, value_cotangents))]


def _compiler_params(plan: Plan, *semantics: Semantics) -> pltpu.CompilerParams:
    return pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", *semantics), vmem_limit_bytes=plan.budget)


def _query_block(n: int, size: int) -> int:
    """About `size` queries, or all; in lanes whole tiles of 128, in rows the last block as full as eights allow."""
    if n <= size or size % LANES == 0:
        return min(size, -(-n // 8) * 8)
    return -(-n // -(-n // size) // 8) * 8


def _key_block(
    n: int, plan: Plan, itemsize: int, queries: int, *, arrays: int, squares: int, tile: int, online: float
) -> int:
    """All keys, or equal blocks of whole tiles: `arrays` blocks of keys, twice, and `squares` of scores must fit.

    online: the share of that memory for a block that is not all keys.
    """
    spare = plan.budget // plan.arithmetic.passes - 2 * 6 * queries * plan.layout.width * 4
    fitting = spare // (2 * arrays * plan.layout.width * itemsize + squares * queries * 4)
    if n <= fitting:
        return n
    largest = max(int(fitting * online) // tile, 1) * tile
    return -(-n // -(-n // largest) // tile) * tile


def _inputs(qkv, extras: Extras, plan: Plan, queries: int, keys: int, chunk_of, *, transposed: bool) -> dict:
    """The inputs by name with their blocks; chunk_of: which block of keys, from a step's fourth index."""
    width, count, per = plan.layout.width, plan.layout.count, plan.layout.per

    def by_query(b, window, query, chunk=0):
        return (b, query, window)

    def by_key(part):
        return lambda b, window, query, chunk=0: (b, chunk_of(chunk), part * count + window)

    named = {
        "query": (qkv, pl.BlockSpec((1, queries, width), by_query)),
        "key": (qkv, pl.BlockSpec((1, keys, width), by_key(1))),
        "value": (qkv, pl.BlockSpec((1, keys, width), by_key(2))),
    }
    if extras.mask is not None:
        if transposed:
            spec = pl.BlockSpec((1, keys, 1), lambda b, window, query, chunk=0: (b, chunk_of(chunk), 0))
            named["mask"] = (extras.mask[..., np.newaxis], spec)
        else:
            spec = pl.BlockSpec((1, 1, keys), lambda b, window, query, chunk=0: (b, 0, chunk_of(chunk)))
            named["mask"] = (extras.mask[:, np.newaxis], spec)
    if extras.seeds is not None:
        b, heads, _ = extras.seeds.shape
        seeds = jnp.concatenate([extras.seeds.reshape(b, 2 * heads), extras.outer[:, np.newaxis]], axis=1)
        spec = pl.BlockSpec((1, 1, 2 * heads + 1), lambda b, window, query, chunk=0: (b, 0, 0), memory_space=pltpu.SMEM)
        named["seeds"] = (seeds[:, np.newaxis], spec)
    if extras.multiplier is not None:
        multiplier = extras.multiplier.swapaxes(-1, -2) if transposed else extras.multiplier
        block = (1, per, keys, queries) if transposed else (1, per, queries, keys)

        def by_both(b, window, query, chunk=0):
            return (b, window, chunk_of(chunk), query) if transposed else (b, window, query, chunk_of(chunk))

        named["multiplier"] = (multiplier, pl.BlockSpec(block, by_both))
    return named


def _forward_kernel(*refs: Any, names: tuple[str, ...], plan: Plan, n: int, keys: int, statistics: bool) -> None:
    by_name, rest = dict(zip(names, refs, strict=False)), refs[len(names) :]
    outs, scratch = rest[: 1 + statistics], rest[1 + statistics :]
    layout = plan.layout
    chunk = pl.program_id(3)
    query, key, value = (by_name[name][0] for name in names[:3])
    allowed = None
    if n % keys:  # the last block hangs over the edge: whatever lies there
        real = jax.lax.broadcasted_iota(jnp.int32, (keys, 1), 0) < n - chunk * keys
        key, value = (jnp.where(real, x, jnp.zeros((), x.dtype)) for x in (key, value))
        allowed = jax.lax.broadcasted_iota(jnp.int32, (1, keys), 1) < n - chunk * keys
    if "mask" in by_name:
        seen = by_name["mask"][0] != 0
        allowed = seen if allowed is None else seen & allowed
    multipliers = _multipliers(by_name, plan, n, (query.shape[0], keys), chunk * keys, transposed=False)
    scale = np.float32(layout.scale * LOG2E)
    mixed, sums, here = attend(query, key, value, layout, plan.arithmetic, allowed, multipliers)
    if not scratch:
        outs[0][0] = divided(mixed, sums).astype(outs[0].dtype)
        if statistics:
            outs[1][0] = jnp.broadcast_to(here * scale + _log2(sums), mixed.shape)
        return
    largest_ref, sums_ref, mixed_ref = scratch

    @pl.when(chunk == 0)
    def _() -> None:
        largest_ref[...] = jnp.full_like(largest_ref, MASKED)
        sums_ref[...] = jnp.zeros_like(sums_ref)
        mixed_ref[...] = jnp.zeros_like(mixed_ref)

    before = largest_ref[...]
    largest = jnp.maximum(before, here)
    old, new = jnp.exp2((before - largest) * scale), jnp.exp2((here - largest) * scale)
    largest_ref[...] = largest
    sums_ref[...] = sums_ref[...] * old + sums * new
    mixed_ref[...] = mixed_ref[...] * old + mixed * new

    @pl.when(chunk == pl.num_programs(3) - 1)
    def _() -> None:
        outs[0][0] = divided(mixed_ref[...], sums_ref[...]).astype(outs[0].dtype)
        if statistics:
            outs[1][0] = largest_ref[...] * scale + _log2(sums_ref[...])


def _log2(sums: jax.Array) -> jax.Array:
    return jnp.log2(jnp.where(sums == 0.0, 1.0, sums))


def _backward_kernel(*refs: Any, names: tuple[str, ...], plan: Plan, n: int, first: int) -> None:
    by_name, (query_ref, key_ref, value_ref) = dict(zip(names, refs, strict=False)), refs[len(names) :]
    layout = plan.layout
    query, key, value, out, log_sums, cotangent = (
        by_name[name][0] for name in ("query", "key", "value", "out", "log_sums", "cotangent")
    )
    queries, keys = query.shape[0], key.shape[0]
    block = pl.program_id(2)
    allowed = None
    if n % queries:
        real = jax.lax.broadcasted_iota(jnp.int32, (queries, 1), 0) < n - block * queries
        query, out, log_sums, cotangent = (
            jnp.where(real, x, jnp.zeros((), x.dtype)) for x in (query, out, log_sums, cotangent)
        )
    if first + keys > n:
        allowed = jax.lax.broadcasted_iota(jnp.int32, (keys, 1), 0) < n - first
        key, value = (jnp.where(allowed, x, jnp.zeros((), x.dtype)) for x in (key, value))
    if "mask" in by_name:
        seen = by_name["mask"][0] != 0
        allowed = seen if allowed is None else seen & allowed
    multipliers = _multipliers(by_name, plan, n, (queries, keys), first, transposed=True)
    through = (out.astype(jnp.float32) * cotangent.astype(jnp.float32)).T  # [w q]: a row's mean is a column's sum
    rows = log_sums.T
    statistics = [
        (rows[i * layout.d : i * layout.d + 1], through[i * layout.d : (i + 1) * layout.d].sum(axis=0, keepdims=True))
        for i in range(layout.per)
    ]
    results = attend_vjp(query, key, value, cotangent, layout, plan.arithmetic, allowed, multipliers, statistics)
    query_ref[0] = results[0] + by_name["before"][0] if "before" in by_name else results[0]

    @pl.when(block == 0)
    def _() -> None:
        key_ref[...] = jnp.zeros_like(key_ref)
        value_ref[...] = jnp.zeros_like(value_ref)

    key_ref[0] += results[1]
    value_ref[0] += results[2]


def _multipliers(
    by_name: dict, plan: Plan, n: int, sizes: tuple[int, int], first: Any, *, transposed: bool
) -> list[jax.Array] | None:
    """float32[q k] for each head of the window, or [k q]; first: the first key."""
    if "multiplier" not in by_name and "seeds" not in by_name:
        return None
    queries, keys = sizes
    shape = (keys, queries) if transposed else (queries, keys)
    query = pl.program_id(2) * queries + jax.lax.broadcasted_iota(jnp.int32, shape, 1 if transposed else 0)
    key = first + jax.lax.broadcasted_iota(jnp.int32, shape, 0 if transposed else 1)
    if "multiplier" in by_name:
        inside = (query < n) & (key < n)  # beyond lies whatever lies there
        return [jnp.where(inside, by_name["multiplier"][0, i], 0.0) for i in range(plan.layout.per)]
    seeds = by_name["seeds"]
    outer = seeds[0, 0, seeds.shape[2] - 1]
    counters = counter(outer, query, key, n, n)
    return keep_of_heads(seeds, pl.program_id(1) * plan.layout.per, plan.layout.per, counters, plan.rate)
