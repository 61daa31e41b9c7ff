"""Attention whose sequences fit in VMEM whole: over space, and over time. One grid step, one pass, no online softmax.

Oracle: reference/attention.py, spatial and temporal; reference/gradients.py, their vjps.

Tiling. A step takes the fused projection as it lies in memory, for all heads: over space the tokens of one time index
(block [1 1 s 3c]), over time a few places at all time indices (block [1 t 8 3c]). The windows of heads (heads.py) are
unrolled, so that one window's softmax runs beside the next one's products. Over time the rows of 8 places are one
[8t, 8t] product in which a token sees only its own place: the wasted products cost less than any transpose would.

Bytes of VMEM, twice for the pipeline: (3c + c) · tokens · itemsize forward, (3c + c + 3c) backward; 4.9 and 8.6 MB for
200 tokens of 768 channels in float32. Where that is too much, the channels are cut over the grid.

Why it is faster: nothing is transposed, split or padded in HBM, and weights never leave VMEM.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vivit.kernels.heads import LANES, Windows
from vivit.kernels.window import Arithmetic, attend, attend_vjp, divided, like
from vivit.numerics.hash_dropout import counter, keep_of_heads

PLACES = 8  # rows of a register: places that one product over time takes together
_ROWS = 128  # rows that a step should have at least
_WINDOWS_FORWARD, _WINDOWS_BACKWARD = 8, 3  # windows that are compiled side by side, at most


class Plan(NamedTuple):
    """One kernel: which axis, which of the heads, and how it is cut."""

    over_time: bool
    layout: Windows  # of the heads that take part
    part: int  # which half of the heads, 0 or 1, or 0 of 1
    parts: int
    rate: float
    arithmetic: Arithmetic
    interpret: Any
    budget: int  # bytes of VMEM


class Extras(NamedTuple):
    """What a call may have beside qkv, each in the order in which the kernel reads it."""

    mask: jax.Array | None  # int32[b t s]
    seeds: jax.Array | None  # int32[b h 2]
    multiplier: jax.Array | None  # float32[b t h q k], or [b s h q k] over time


class _Cut(NamedTuple):
    """How a plan is cut for given sizes."""

    places: int  # places in a step over time
    groups: int  # steps that share the channels


def forward(qkv: jax.Array, extras: Extras, plan: Plan, before: jax.Array | None) -> jax.Array:
    """float[b t s c] from float[b t s 3c]; before: the other half of the heads' result, completed in place."""
    c = qkv.shape[-1] // 3
    cut = _cut(qkv.shape, qkv.dtype, plan, channels=4)
    named = _inputs(qkv, None, extras, plan, cut)
    aliases = {}
    if before is not None:
        aliases = {len(named): 0}
        named["before"] = (before, pl.BlockSpec(memory_space=pl.ANY))
    width = plan.layout.channels // cut.groups
    index = _index(plan, lambda group: plan.part * cut.groups + group)
    return _call("forward", plan, cut, named, [(c, pl.BlockSpec(_block(qkv.shape, plan, cut, width), index))], aliases)[
        0
    ]


def backward(qkv: jax.Array, cotangent: jax.Array, extras: tuple[Extras, ...], plans: tuple[Plan, ...]) -> jax.Array:
    """The cotangent of qkv from that of the result that the plans, one or two, have made together.

    The second of two takes what the first has found for its half of the heads, and writes both where they belong.
    """
    first = _backward(qkv, cotangent, extras[0], plans[0], None)
    if len(plans) == 1:
        return first[0] if len(first) == 1 else jnp.concatenate(first, axis=-1)
    if len(first) == 1 and _backward_cut(qkv, plans[1]).groups == 1:
        return _backward(qkv, cotangent, extras[1], plans[1], first[0])[0]
    second = _backward(qkv, cotangent, extras[1], plans[1], None)
    halves = [jnp.split(parts[0], 3, axis=-1) if len(parts) == 1 else parts for parts in (first, second)]
    return jnp.concatenate([part for pair in zip(*halves, strict=True) for part in pair], axis=-1)


def _backward(
    qkv: jax.Array, cotangent: jax.Array, extras: Extras, plan: Plan, before: jax.Array | None
) -> list[jax.Array]:
    """One array where a step has all channels of its heads, else three: of query, key and value.

    One array is [.. 3c], or of half of the heads [.. 3c/2]; with the other half's `before` it is [.. 3c] again.
    """
    cut = _backward_cut(qkv, plan)
    named = _inputs(qkv, cotangent, extras, plan, cut)
    width = plan.layout.channels // cut.groups
    if cut.groups > 1:
        spec = pl.BlockSpec(_block(qkv.shape, plan, cut, width), _index(plan, lambda group: group))
        return _call("backward", plan, cut, named, [(plan.layout.channels, spec)] * 3, {})
    column = _index(plan, lambda _: 0)
    if before is not None:
        named["before"] = (before, pl.BlockSpec(_block(qkv.shape, plan, cut, 3 * width), column))
    channels = 3 * width if before is None else qkv.shape[-1]
    return _call(
        "backward", plan, cut, named, [(channels, pl.BlockSpec(_block(qkv.shape, plan, cut, channels), column))], {}
    )


def _backward_cut(qkv: jax.Array, plan: Plan) -> _Cut:
    """A step has qkv, the result's cotangent and qkv's own; of two halves also the other's, and both in the result."""
    return _cut(qkv.shape, qkv.dtype, plan, channels=7 if plan.parts == 1 else 13)


def _cut(shape: tuple[int, ...], dtype: Any, plan: Plan, channels: int) -> _Cut:
    """channels: how many times c a token has in a step's blocks."""
    _, t, s, _ = shape
    places = min(-(-s // PLACES), max(1, _ROWS // (PLACES * t))) * PLACES if plan.over_time else 0
    rows = t * places if plan.over_time else -(-s // 8) * 8
    square = (PLACES * t if plan.over_time else s) ** 2 * 4
    spare = plan.budget // plan.arithmetic.passes - 8 * plan.layout.per * square
    c, count = plan.layout.channels, plan.layout.count
    itemsize = np.dtype(dtype).itemsize
    fitting = (
        groups
        for groups in range(1, count)
        if count % groups == 0 and 2 * rows * channels * c // groups * itemsize <= spare
    )
    return _Cut(places, next(fitting, count))


def _block(shape: tuple[int, ...], plan: Plan, cut: _Cut, width: int) -> tuple[int, ...]:
    _, t, s, _ = shape
    return (1, t, cut.places, width) if plan.over_time else (1, 1, s, width)


def _index(plan: Plan, column: Callable) -> Callable:
    """The index map of a block of tokens: grid (b, steps, groups)."""
    if plan.over_time:
        return lambda b, step, group: (b, 0, step, column(group))
    return lambda b, step, group: (b, step, 0, column(group))


def _inputs(
    qkv: jax.Array, cotangent: jax.Array | None, extras: Extras, plan: Plan, cut: _Cut
) -> dict[str, tuple[jax.Array, pl.BlockSpec]]:
    """The kernel's inputs by name, in order."""
    b, t, s, fused = qkv.shape
    width = plan.layout.channels // cut.groups
    block = partial(_block, qkv.shape, plan, cut)
    named = {}
    if plan.parts == 1 and cut.groups == 1:
        named["qkv"] = (qkv, pl.BlockSpec(block(fused), _index(plan, lambda _: 0)))
    else:
        for i, name in enumerate(("query", "key", "value")):
            first = (i * plan.parts + plan.part) * cut.groups
            named[name] = (qkv, pl.BlockSpec(block(width), _index(plan, lambda group, first=first: first + group)))
    if cotangent is not None:
        column = _index(plan, lambda group: plan.part * cut.groups + group)
        named["cotangent"] = (cotangent, pl.BlockSpec(block(width), column))
    n, steps = (PLACES * t, cut.places // PLACES) if plan.over_time else (s, 1)
    if extras.mask is not None:
        mask = _by_place(extras.mask) if plan.over_time else extras.mask
        mask, tail = (mask[..., np.newaxis, :], (1, n)) if cotangent is None else (mask[..., np.newaxis], (n, 1))
        named["mask"] = (mask, pl.BlockSpec((1, steps, *tail), lambda b, step, group: (b, step, 0, 0)))
    if extras.seeds is not None:
        heads = extras.seeds.shape[1]
        seeds = extras.seeds.reshape(b, 1, 2 * heads)
        spec = pl.BlockSpec((1, 1, 2 * heads), lambda b, step, group: (b, 0, 0), memory_space=pltpu.SMEM)
        named["seeds"] = (seeds, spec)
    if extras.multiplier is not None:
        multiplier = _in_places(extras.multiplier) if plan.over_time else extras.multiplier
        if cotangent is not None:
            multiplier = multiplier.swapaxes(-1, -2)
        heads = multiplier.shape[2] // cut.groups
        spec = pl.BlockSpec((1, steps, heads, n, n), lambda b, step, group: (b, step, group, 0, 0))
        named["multiplier"] = (multiplier, spec)
    return named


def _by_place(x: jax.Array) -> jax.Array:
    """[b t s] as the products over time see it: [b s/8 8t], padded with zeros."""
    b, t, s = x.shape
    groups = -(-s // PLACES)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, groups * PLACES - s)))
    return x.reshape(b, t, groups, PLACES).transpose(0, 2, 1, 3).reshape(b, groups, t * PLACES)


def _in_places(multiplier: jax.Array) -> jax.Array:
    """[b s h q k] as the products over time see it: [b s/8 h 8q 8k], each place's in its own rows and columns."""
    b, s, h, q, k = multiplier.shape
    groups = -(-s // PLACES)
    padded = jnp.pad(multiplier, ((0, 0), (0, groups * PLACES - s), (0, 0), (0, 0), (0, 0)))
    padded = padded.reshape(b, groups, PLACES, h, q, k)
    spread = jnp.einsum("bgphqk,pr->bghqpkr", padded, jnp.eye(PLACES, dtype=padded.dtype))
    return spread.reshape(b, groups, h, q * PLACES, k * PLACES)


def _call(kind: str, plan: Plan, cut: _Cut, named: dict, outs: list, aliases: dict) -> list[jax.Array]:
    arrays, specs = zip(*named.values(), strict=True)
    qkv = arrays[0]
    b, t, s, _ = qkv.shape
    steps = -(-s // cut.places) if plan.over_time else t
    body = partial(_kernel, names=tuple(named), plan=plan, cut=cut, tokens=(t, s), outs=len(outs))
    return pl.pallas_call(
        body,
        grid=(b, steps, cut.groups),
        in_specs=list(specs),
        out_specs=[spec for _, spec in outs],
        out_shape=[like(qkv, (b, t, s, width)) for width, _ in outs],
        input_output_aliases=aliases,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=plan.budget
        ),
        interpret=plan.interpret,
        name=f"{'temporal' if plan.over_time else 'spatial'}_{kind}",
    )(*arrays)


def _kernel(*refs: Any, names: tuple[str, ...], plan: Plan, cut: _Cut, tokens: tuple[int, int], outs: int) -> None:
    by_name, out_refs = dict(zip(names, refs, strict=False)), refs[len(names) :]
    t, s = tokens
    layout = plan.layout
    count, width = layout.count // cut.groups, layout.width
    channels = count * width
    backward = "cotangent" in by_name
    step, group = pl.program_id(1), pl.program_id(2)
    unrolled = 1 if plan.arithmetic.passes > 1 else _unrolled(count, backward)

    def some_windows(first: Any) -> None:
        for place in range(0, max(cut.places, 1), PLACES):  # over space: once
            load, store = _access(plan, place, (t, s), step * cut.places)
            allowed = _allowed(by_name.get("mask"), plan, place // PLACES, t, backward)
            for window in (first + i for i in range(unrolled)):
                columns = [pl.ds(_aligned(i * channels + window * width), width) for i in range(3)]
                if "qkv" in by_name:
                    query, key, value = (load(by_name["qkv"], column) for column in columns)
                else:
                    query, key, value = (load(by_name[name], columns[0]) for name in ("query", "key", "value"))
                head = window * layout.per  # of this step's; and of all that take part:
                heads = (head, group * count * layout.per + head)
                multipliers = _multipliers(by_name, plan, cut, place, heads, (t, s), step, backward)
                if not backward:
                    out, sums, _ = attend(query, key, value, layout, plan.arithmetic, allowed, multipliers)
                    store(out_refs[0], columns[0], divided(out, sums) if "mask" in by_name else out / sums)
                    continue
                cotangent = load(by_name["cotangent"], columns[0])
                results = attend_vjp(query, key, value, cotangent, layout, plan.arithmetic, allowed, multipliers)
                for i, result in enumerate(results):
                    if outs == 3:
                        store(out_refs[i], columns[0], result)
                    elif "before" in by_name:  # query, key and value of both halves
                        both = _aligned((2 * i + 1) * channels + window * width)
                        store(out_refs[0], pl.ds(both, width), result)
                    else:
                        store(out_refs[0], columns[i], result)

    if unrolled == count:
        some_windows(0)
    else:
        pl.loop(0, count // unrolled)(lambda i: some_windows(i * unrolled))
    if backward and "before" in by_name:
        for i in range(3):
            half = by_name["before"][..., i * channels : (i + 1) * channels]
            out_refs[0][..., 2 * i * channels : (2 * i + 1) * channels] = half


def _unrolled(count: int, backward: bool) -> int:
    """How many windows are compiled side by side: all, or backward, where registers spill, up to three."""
    return max(n for n in range(1, (_WINDOWS_BACKWARD if backward else _WINDOWS_FORWARD) + 1) if count % n == 0)


def _aligned(column: Any) -> Any:
    return column if isinstance(column, int) else pl.multiple_of(column, LANES)


def _access(plan: Plan, place: int, tokens: tuple[int, int], first: Any) -> tuple[Callable, Callable]:
    """How the rows of one product are read and written: load(ref, columns) → [n w], store(ref, columns, [n w])."""
    t, s = tokens
    if not plan.over_time:

        def store(ref: Any, columns: Any, rows: jax.Array) -> None:
            ref[0, 0, :, columns] = rows.astype(ref.dtype)

        return lambda ref, columns: ref[0, 0, :, columns], store
    places = slice(place, place + PLACES)

    def load_places(ref: Any, columns: Any) -> jax.Array:
        rows = ref[0, :, places, columns].reshape(t * PLACES, columns.size)
        if s % PLACES == 0:
            return rows
        row = jax.lax.broadcasted_iota(jnp.int32, (t * PLACES, 1), 0)
        real = (row & (PLACES - 1)) < s - first - place  # the last block hangs over the edge: whatever lies there
        return jnp.where(real, rows, jnp.zeros((), rows.dtype))

    def store_places(ref: Any, columns: Any, rows: jax.Array) -> None:
        ref[0, :, places, columns] = rows.reshape(t, PLACES, columns.size).astype(ref.dtype)

    return load_places, store_places


def _allowed(mask: Any, plan: Plan, place: int, t: int, backward: bool) -> jax.Array | None:
    """bool[q k], or in the backward pass [k q], or either with queries 1; None: all."""
    seen = None if mask is None else mask[0, place if plan.over_time else 0] != 0
    if not plan.over_time:
        return seen
    n = PLACES * t
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (n, n), axis) for axis in (0, 1))
    same = ((row ^ column) & (PLACES - 1)) == 0
    return same if seen is None else same & seen


def _multipliers(
    by_name: dict,
    plan: Plan,
    cut: _Cut,
    place: int,
    heads: tuple[Any, Any],
    tokens: tuple[int, int],
    step: Any,
    backward: bool,
) -> list[jax.Array] | None:
    """float32[q k] for each head of a window, or [k q] in the backward pass.

    heads: the window's first among the step's, and among all that take part.
    """
    local, first = heads
    if "multiplier" in by_name:
        block = place // PLACES if plan.over_time else 0
        return [by_name["multiplier"][0, block, local + i] for i in range(plan.layout.per)]
    if "seeds" not in by_name:
        return None
    seeds = by_name["seeds"]
    t, s = tokens
    n = PLACES * t if plan.over_time else s
    query, key = (jax.lax.broadcasted_iota(jnp.int32, (n, n), axis) for axis in ((1, 0) if backward else (0, 1)))
    if plan.over_time:
        outer = step * cut.places + place + (query & (PLACES - 1))
        counters = counter(outer, query // PLACES, key // PLACES, t, t)
    else:
        counters = counter(step, query, key, s, s)
    return keep_of_heads(seeds, first, plan.layout.per, counters, plan.rate)
