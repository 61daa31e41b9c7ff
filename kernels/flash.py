"""Attention over long sequences: queries in blocks, keys whole where they fit in VMEM, else in chunks.

Oracle: reference/attention.py, joint; reference/gradients.py, joint_vjp.

Tiling. A step takes one window of heads (heads.py), a block of queries [1 q w], and keys and values [1 k w], read from
the fused projection by their columns. All keys at once need no rescaling, which is faster wherever 3136 tokens fit; for
longer ones the softmax is online: largest score and sum so far are kept in VMEM, [q w], beside the output.

The backward pass goes over the keys once and yields all three cotangents. They are summed in VMEM in float32, and
copied from there to their columns of the result. A step's keys are multiplied a few at a time, so that what one product
yields is used while the next one runs. The softmax needs each query's largest score and the logarithm of its sum from
the forward pass. They are stored apart, since their sum, rounded, would lose the digits of the second; in one array as
wide as the output, in the two halves of a head's lanes. The scores must have the same bits in both passes.

Bytes of VMEM for 3136 tokens, window 128, float32: forward, queries in blocks of 224, 6.4 MB of keys and values and
2.8 MB of scores a head; backward 6.4 MB of keys and values and 4.8 MB of cotangents where they are in one chunk.
"""

from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Float32, Int32

from vivit.kernels import stacks
from vivit.kernels.heads import LANES, HeadLayout, each_window, in_windows
from vivit.kernels.softmax_av import (
    LOG2E,
    MASKED,
    KernelOptions,
    attend,
    divide,
    head_lanes,
    merge,
    only,
    readable,
    result,
    sum_of,
    zeroed,
)
from vivit.numerics.hash_dropout import counter, keep_of_heads

KEYS_TOGETHER = 784  # keys of a product in the backward pass; 3136 = 4 · 784
SIDE_BY_SIDE = 8  # of these products that are compiled together
SPILLED = 2  # the scores of a product take about as much again, for what the compiler puts there


def flash(
    qkv: Float[Array, "r n qkv"],
    mask: Bool[Array, "r n"] | None,
    seeds: Int32[Array, "b h 2"] | None,
    heads: int,
    options: KernelOptions,
) -> Float[Array, "r n c"]:
    """A token attends to the tokens of its row. r: b times another axis."""
    return in_windows(lambda qkv, seeds, layout: _flash(qkv, mask, seeds, layout, options), qkv, seeds, heads)


def _flash_primal(qkv, mask, seeds, layout: HeadLayout, options: KernelOptions):
    return forward(qkv, mask, seeds, layout, options, statistics=False)[0]


def _flash_fwd(qkv, mask, seeds, layout, options):
    out, statistics = checkpoint_name(forward(qkv, mask, seeds, layout, options, statistics=True), "statistics")
    return out, (qkv, mask, seeds, out, statistics)


def _flash_bwd(layout, options, saved, cotangent):
    qkv, mask, seeds, out, statistics = saved
    return backward(qkv, mask, seeds, out, statistics, cotangent, layout, options), None, None


_flash = stacks.differentiable(_flash_fwd, _flash_bwd, (3, 4), _flash_primal, dear=True)


def forward(
    qkv: Float[Array, "r n qkv"],
    mask: Bool[Array, "r n"] | None,
    seeds: Int32[Array, "b h 2"] | None,
    layout: HeadLayout,
    options: KernelOptions,
    *,
    statistics: bool,
) -> tuple[Float[Array, "r n c"], Float32[Array, "r n c"] | None]:
    """(The result, what the backward pass needs if `statistics`)."""
    r, n, fused = qkv.shape
    width, count = layout.width, layout.count
    queries = _block(n, options.blocks.queries)
    keys = _keys(n, layout, options, queries, qkv.dtype.itemsize)
    if (
        options.interpret
        and statistics
        and (options.precision is None or _blocks_backward(n, layout, options, 4)[2] < n)
    ):
        keys = -(-keys // 64) * 64  # other numbers of keys XLA multiplies in another order on a CPU
    chunks = pl.cdiv(n, keys)

    def tokens(size: int, operand: int, axis: int) -> pl.BlockSpec:
        """A window of a block of query, key or value; axis: of the grid, 2 for queries, 3 for keys."""
        return pl.BlockSpec((1, size, width), lambda *i: (i[0], i[axis], operand * count + i[1]))

    masks = (None, None), (None, None), (None, None)
    if mask is not None:
        mask = mask.astype(jnp.int32)
        rows = mask[..., np.newaxis]
        masks = (
            (mask[:, np.newaxis], pl.BlockSpec((1, 1, keys), lambda r, w, q, k: (r, 0, k))),
            (rows, pl.BlockSpec((1, queries, 1), lambda r, w, q, k: (r, q, 0))),
            (rows, pl.BlockSpec((1, keys, 1), lambda r, w, q, k: (r, k, 0))),
        )
    inputs = [(qkv, tokens(queries, 0, 2)), (qkv, tokens(keys, 1, 3)), (qkv, tokens(keys, 2, 3))]
    inputs += [*masks, _seeds(seeds, r)]
    arrays, specs = zip(*inputs, strict=True)
    block = tokens(queries, 0, 2)
    return stacks.pallas_call(
        partial(_forward_kernel, n=n, layout=layout, options=options),
        grid=(r, count, pl.cdiv(n, queries), chunks),
        in_specs=specs,
        out_specs=(block, block if statistics else None),
        out_shape=(
            result(qkv, (r, n, fused // 3)),
            result(qkv, (r, n, fused // 3), jnp.float32) if statistics else None,
        ),
        scratch_shapes=[pltpu.VMEM((queries, width), jnp.float32)] * (3 if chunks > 1 else 0),
        compiler_params=options.compiler_params("parallel", "parallel", "parallel", "arbitrary"),
        interpret=options.interpret,
        name="flash_forward",
        tape=options.tape,
    )(*arrays)


def _forward_kernel(
    query_ref, key_ref, value_ref, mask_ref, query_seen_ref, key_seen_ref, seeds_ref, out_ref, statistics_ref, *scratch,
    n: int, layout: HeadLayout, options: KernelOptions,
):  # fmt: skip
    """mask_ref: [1 1 k]. *_seen_ref: [1 q 1], [1 k 1]. scratch: the online softmax's, where keys come in chunks."""
    chunk = pl.program_id(3)
    query, key, value = query_ref[0], key_ref[0], value_ref[0]
    queries, keys = query.shape[0], key.shape[0]
    mask, query_seen, seen = (None if ref is None else ref[0] != 0 for ref in (mask_ref, query_seen_ref, key_seen_ref))
    if n % keys:  # the last block hangs over the edge: whatever lies there
        mask = _inside(mask, 1, keys, n - chunk * keys)
        seen = _inside(seen, 0, keys, n - chunk * keys)
    (query,) = zeroed([query], readable(query, query_seen)[:1])
    key, value = zeroed([key, value], (seen, seen))
    keep = _keep(seeds_ref, n, (queries, keys), (pl.program_id(2) * queries, chunk * keys), layout, options)
    # copies of all keys for each head would cost a tenth of the time: a NaN in a key reaches the heads of its window
    if options.blocks.keys_together is None:
        out, sums, largest = attend(query, key, value, layout, options, mask=mask, keep=keep, split_keys=False)
    else:
        out, sums, largest = _attend_in_parts(query, key, value, mask, keep, layout, options)
    if not scratch:
        out_ref[0] = divide(out, sums, mask).astype(out_ref.dtype)
        if statistics_ref is not None:
            statistics_ref[0] = _packed(largest, sums, layout)
        return
    largest_ref, sums_ref, running_ref = scratch

    @pl.when(chunk == 0)
    def _():
        largest_ref[...] = jnp.full_like(largest_ref, MASKED)
        sums_ref[...] = jnp.zeros_like(sums_ref)
        running_ref[...] = jnp.zeros_like(running_ref)

    scale = np.float32(layout.scale * LOG2E)
    before = largest_ref[...]
    after = jnp.maximum(before, largest)
    old, new = jnp.exp2((before - after) * scale), jnp.exp2((largest - after) * scale)
    largest_ref[...] = after
    sums_ref[...] = sums_ref[...] * old + sums * new
    running_ref[...] = running_ref[...] * old + out * new

    @pl.when(chunk == pl.num_programs(3) - 1)
    def _():
        sums = sums_ref[...]
        out_ref[0] = divide(running_ref[...], sums, sums).astype(out_ref.dtype)
        if statistics_ref is not None:
            statistics_ref[0] = _packed(largest_ref[...], sums, layout)


def _attend_in_parts(
    query: Float[Array, "q w"],
    key: Float[Array, "k w"],
    value: Float[Array, "k w"],
    mask: Bool[Array, "1 k"] | None,
    keep: list[Float32[Array, "q k"]] | None,
    layout: HeadLayout,
    options: KernelOptions,
) -> tuple[Float32[Array, "q w"], Float32[Array, "q _"], Float32[Array, "q _"]]:
    """As `attend`, `keys_together` keys a product: one head's softmax runs beside the next one's products."""
    lanes, n = head_lanes(layout), key.shape[0]
    size = options.blocks.keys_together or n
    parts = [slice(first, min(first + size, n)) for first in range(0, n, size)]
    sums_beside = keep is None and layout.per > 1

    def scores_of(own: jax.Array | None, part: slice) -> jax.Array:
        scores = options.product(only(query, own), key[part], (1, 1))
        return scores if mask is None else jnp.where(mask[:, part], scores, MASKED)

    outs, sums, largest = [], [], []
    scores = [scores_of(lanes[0], part) for part in parts]
    for head, own in enumerate(lanes):
        largest.append(reduce(jnp.maximum, [one.max(axis=1, keepdims=True) for one in scores]))
        products, totals, of_next_head = [], [], []
        for part, one in zip(parts, scores, strict=True):
            weights = jnp.exp2((one - largest[head]) * np.float32(layout.scale * LOG2E))
            if mask is not None:
                weights = only(weights, mask[:, part])
            if not sums_beside:
                totals.append(weights.sum(axis=1, keepdims=True))
            if keep is not None:
                weights = weights * keep[head][:, part]
            products.append(options.product(weights, only(value[part], own if sums_beside else None, 1.0), (1, 0)))
            if own is not lanes[-1]:
                of_next_head.append(scores_of(lanes[head + 1], part))
        outs.append(sum_of(products))
        if not sums_beside:
            sums.append(sum_of(totals))
        scores = of_next_head
    beside = pltpu.roll(merge(outs[1:] + outs[:1], lanes), layout.d, 1) if sums_beside else merge(sums, lanes)
    return merge(outs, lanes), beside, merge(largest, lanes)


def _packed(largest: Float32[Array, "q _"], sums: Float32[Array, "q _"], layout: HeadLayout) -> Float32[Array, "q w"]:
    """A head's largest scores in the first half of its lanes, log₂ of its sums in the second."""
    lane = jax.lax.broadcasted_iota(jnp.int32, (sums.shape[0], layout.width), 1)
    in_first_half = lane < layout.d // 2 if layout.per == 1 else (lane & (layout.d // 2)) == 0
    return jnp.where(in_first_half, largest, jnp.log2(jnp.where(sums == 0.0, 1.0, sums)))


def backward(
    qkv: Float[Array, "r n qkv"],
    mask: Bool[Array, "r n"] | None,
    seeds: Int32[Array, "b h 2"] | None,
    out: Float[Array, "r n c"],
    statistics: Float32[Array, "r n c"],
    cotangent: Float[Array, "r n c"],
    layout: HeadLayout,
    options: KernelOptions,
) -> Float[Array, "r n qkv"]:
    """The cotangent of qkv from that of the result. out, statistics: forward's."""
    r, n, fused = qkv.shape
    width, count = layout.width, layout.count
    queries, keys, together = _blocks_backward(n, layout, options, qkv.dtype.itemsize)
    blocks, chunks = pl.cdiv(n, queries), pl.cdiv(n, keys)

    def of_keys(operand: int) -> pl.BlockSpec:
        return pl.BlockSpec((1, keys, width), lambda r, w, k, q: (r, k, operand * count + w))

    rows = pl.BlockSpec((1, queries, width), lambda r, w, k, q: (r, q, w))
    masks = (None, None), (None, None)
    if mask is not None:
        seen = mask.astype(jnp.int32)[..., np.newaxis]
        masks = (
            (seen, pl.BlockSpec((1, queries, 1), lambda r, w, k, q: (r, q, 0))),
            (seen, pl.BlockSpec((1, keys, 1), lambda r, w, k, q: (r, k, 0))),
        )
    inputs = [(qkv, rows), (qkv, of_keys(1)), (qkv, of_keys(2)), (cotangent, rows), *masks, _seeds(seeds, r)]
    inputs += [(out, rows), (statistics, rows)]
    arrays, specs = zip(*inputs, strict=True)
    sums = [(blocks * queries, width), (keys, width), (keys, width)]  # of the cotangents of query, key and value
    rounded = qkv.dtype != jnp.float32
    return stacks.pallas_call(
        partial(_backward_kernel, n=n, together=together, layout=layout, options=options),
        grid=(r, count, chunks, blocks),
        in_specs=specs,
        out_specs=pl.BlockSpec(memory_space=pl.ANY),
        out_shape=result(qkv, (r, n, fused)),
        scratch_shapes=[
            [pltpu.VMEM(shape, jnp.float32) for shape in sums],
            [pltpu.VMEM(shape, qkv.dtype) for shape in sums] if rounded else None,
            pltpu.SemaphoreType.DMA,
        ],
        compiler_params=options.compiler_params("parallel", "parallel", "arbitrary", "arbitrary"),
        interpret=options.interpret,
        name="flash_backward",
    )(*arrays)


def _backward_kernel(
    query_ref, key_ref, value_ref, cotangent_ref, query_seen_ref, key_seen_ref, seeds_ref, out_ref, statistics_ref,
    result_ref, sums_refs, rounded_refs, semaphore,
    *, n: int, together: int, layout: HeadLayout, options: KernelOptions,
):  # fmt: skip
    """sums_refs: the cotangents so far, of all queries, and keys and values of a chunk. rounded_refs: as copied."""
    row, window, chunk, block = (pl.program_id(axis) for axis in range(4))
    chunks, blocks = pl.num_programs(2), pl.num_programs(3)
    queries, keys = query_ref.shape[1], key_ref.shape[1]
    of_queries = pl.ds(pl.multiple_of(block * queries, 8), queries)

    query, cotangent, out, packed = (ref[0] for ref in (query_ref, cotangent_ref, out_ref, statistics_ref))
    if n % queries:  # the last block hangs over the edge: whatever lies there
        inside = _inside(None, 0, queries, n - block * queries)
        query, cotangent, out, packed = zeroed([query, cotangent, out, packed], [inside] * 4)
    reads_query = readable(query, None if query_seen_ref is None else query_seen_ref[0] != 0)[0]
    (query,) = zeroed([query], [reads_query])
    statistics = _unpacked(packed, out, cotangent, layout, options, n <= together)

    def add(i: Any, size: int = together) -> None:
        """Adds what the keys of product i contribute."""
        first = i * together
        of_keys = pl.ds(first if isinstance(first, int) else pl.multiple_of(first, 8), size)
        seen = None if key_seen_ref is None else key_seen_ref[0, of_keys] != 0
        if n % keys:
            seen = _inside(seen, 0, size, n - chunk * keys - first)
        key, value = zeroed([key_ref[0, of_keys], value_ref[0, of_keys]], (seen, seen))
        at = block * queries, chunk * keys + first
        keep = _keep(seeds_ref, n, (queries, size), at, layout, options, transposed=True)
        found = _block_vjp(query, key, value, cotangent, statistics, keep, layout, options)
        parts = zeroed(found, (reads_query, seen, seen))
        is_first = ((chunk == 0) & (i == 0), block == 0, block == 0)
        for sums, rows, part, new in zip(sums_refs, (of_queries, of_keys, of_keys), parts, is_first, strict=True):
            sums[rows] = jnp.where(new, 0.0, sums[rows]) + part

    each_window(keys // together, SIDE_BY_SIDE, add)
    if keys % together:
        add(keys // together, keys % together)

    def copy(operand: int, i: Any, size: int, *, wait: bool = False) -> None:
        """Copies block i of `size` rows of a cotangent to its columns of the result, or waits until it is there."""
        columns = pl.ds(pl.multiple_of((operand * layout.count + window) * layout.width, LANES), layout.width)

        def rows(count: int, first: Any) -> None:
            source = (rounded_refs or sums_refs)[operand].at[pl.ds(first if operand == 0 else 0, count)]
            copied = pltpu.make_async_copy(source, result_ref.at[row, pl.ds(first, count), columns], semaphore)
            copied.wait() if wait else copied.start()

        if size == n:
            rows(n, 0)
            return
        first, whole, left = pl.multiple_of(i * size, 8), n // size, n % size
        if whole:
            pl.when(i < whole)(lambda: rows(size, first))
        if left:  # a TPU's memory holds whole tiles of eight rows
            pl.when(i == whole)(lambda: rows(left if options.interpret else -(-left // 8) * 8, first))

    @pl.when(chunk == chunks - 1)
    def _():
        if rounded_refs is not None:
            rounded_refs[0][of_queries] = sums_refs[0][of_queries].astype(result_ref.dtype)
        copy(0, block, queries)
        pl.when(block > 0)(lambda: copy(0, block - 1, queries, wait=True))

    @pl.when(block == blocks - 1)
    def _():
        for operand in (1, 2):
            if rounded_refs is not None:
                rounded_refs[operand][...] = sums_refs[operand][...].astype(result_ref.dtype)
            copy(operand, chunk, keys)
        for operand in (1, 2):
            copy(operand, chunk, keys, wait=True)
        pl.when(chunk == chunks - 1)(lambda: copy(0, block, queries, wait=True))


class Statistics(NamedTuple):
    """What a head's softmax over all keys gave."""

    largest: Float32[Array, "1 q"]  # score
    log_sums: Float32[Array, "1 q"]  # log₂ Σ exp(score − largest)
    mean: Float32[Array, "1 q"] | None  # Σ dW∘W; None: to be summed, since a product has all keys


def _block_vjp(
    query: Float[Array, "q w"],
    key: Float[Array, "k w"],
    value: Float[Array, "k w"],
    out_cotangent: Float[Array, "q w"],
    statistics: list[Statistics],
    keep: list[Float32[Array, "k q"]] | None,
    layout: HeadLayout,
    options: KernelOptions,
) -> tuple[Float32[Array, "q w"], Float32[Array, "k w"], Float32[Array, "k w"]]:
    """What some keys contribute to the cotangents of query, key and value.

    query, key, value, keep: as attend_vjp's.
    """
    product, scale = options.product, np.float32(layout.scale)
    # a matrix unit takes packed operands twice as fast as it multiplies: then scores that stay in it need no transpose
    in_lanes = key.T if options.operands.itemsize < 4 else None
    queries, keys, values = [], [], []
    for head, own in enumerate(head_lanes(layout)):
        largest, log_sums, mean = statistics[head]
        if options.precision is None:
            scores = product(only(key, own), only(query, own), (1, 1)) - largest
        else:  # with the same bits as the forward pass's: exact products depend on the order of operands
            scores = (product(only(query, own), only(key, own), (1, 1)) - largest.T).T
        weights = jnp.exp2(jnp.minimum(scores, 0.0) * np.float32(scale * LOG2E) - log_sums)
        weights_cotangent = product(only(value, own), only(out_cotangent, own), (1, 1))
        kept = weights
        if keep is not None:
            kept, weights_cotangent = weights * keep[head], weights_cotangent * keep[head]
        if mean is None:
            mean = (weights * weights_cotangent).sum(axis=0, keepdims=True)
        else:  # of a weight that is 1 nothing is left but the rounding of the mean
            weights = jnp.where(weights == 1.0, 0.0, weights)
        scores_cotangent = (weights * (weights_cotangent - mean)).astype(options.operands)
        values.append(product(kept, only(out_cotangent, own), (1, 0)))
        keys.append(product(scores_cotangent, only(query, own), (1, 0)))
        if in_lanes is None:
            queries.append(product(scores_cotangent, only(key, own), (0, 0)))
        else:
            queries.append(product(in_lanes[head * layout.d : (head + 1) * layout.d], scores_cotangent, (1, 0)))
    of_query = sum_of(queries) if in_lanes is None else jnp.concatenate(queries, axis=0).T
    return of_query * scale, sum_of(keys) * scale, sum_of(values)


def _unpacked(
    packed: Float32[Array, "q w"],
    out: Float[Array, "q w"],
    cotangent: Float[Array, "q w"],
    layout: HeadLayout,
    options: KernelOptions,
    all_keys: bool,
) -> list[Statistics]:
    """What _packed put together, for each head, and Σ dW∘W."""
    rows, products = packed.T, (out.astype(jnp.float32) * cotangent.astype(jnp.float32)).T  # [w q]
    found = []
    for lane in range(0, layout.width, layout.d):
        largest, log_sums = rows[lane : lane + 1], rows[lane + layout.d // 2 : lane + layout.d // 2 + 1]
        mean = products[lane : lane + layout.d].sum(axis=0, keepdims=True)
        found.append(Statistics(largest, log_sums, None if all_keys and options.precision is not None else mean))
    return found


def _inside(seen: Bool[Array, "_ _"] | None, axis: int, size: int, left: Any) -> Bool[Array, "_ _"]:
    """Which of `size` tokens along an axis are among the `left` that are left, and seen."""
    shape = (size, 1) if axis == 0 else (1, size)
    inside = jax.lax.broadcasted_iota(jnp.int32, shape, axis) < left
    return inside if seen is None else seen & inside


def _block(n: int, size: int) -> int:
    """About `size` tokens in rows, or all: the last block as full as eights allow."""
    if n <= size or size % LANES == 0:
        return min(size, -(-n // 8) * 8)
    return -(-n // -(-n // size) // 8) * 8


def _blocks_backward(n: int, layout: HeadLayout, options: KernelOptions, itemsize: int) -> tuple[int, int, int]:
    """(queries in a step, keys in a step: all, or equal chunks, keys in a product), as VMEM allows.

    Raises ValueError if there is no room for the cotangent of all queries.
    """
    blocks, rounded = options.blocks, itemsize if itemsize < 4 else 0
    queries = min(blocks.queries_backward, -(-n // 8) * 8)
    a_key = layout.width * (4 * itemsize + 2 * (4 + rounded))  # bytes, of key and value twice, and their cotangents
    a_score = 8 * queries * 4  # of a key's scores and all that is made of them
    room = int(0.9 * options.spare_vmem) - layout.width * (n * (4 + rounded) + 8 * queries * 4)
    if options.precision is None:
        together = min(KEYS_TOGETHER, room // (a_key + SPILLED * a_score))
    else:
        together = room // (a_key + a_score)  # of all keys in one product the gradient is exact
    together = min((blocks.keys_together_backward or together) // 8 * 8, n)
    if together < 8:
        raise ValueError(f"a sequence has {n} tokens: its gradient does not fit in {options.spare_vmem} bytes of VMEM")
    keys = blocks.keys_backward or max((room - SPILLED * together * a_score) // a_key, together)
    keys = n if n <= keys else -(-pl.cdiv(n, pl.cdiv(n, keys)) // 16) * 16
    return queries, keys, min(-(-pl.cdiv(keys, pl.cdiv(keys, together)) // 8) * 8, keys)


def _keys(n: int, layout: HeadLayout, options: KernelOptions, queries: int, itemsize: int) -> int:
    """Keys in a step forward: all, or equal chunks of whole tiles."""
    size = options.blocks.keys
    if size is None:
        spare = options.spare_vmem - 2 * 6 * queries * layout.width * 4
        scores = 3 if options.blocks.keys_together is None else 2  # in VMEM at a time
        size = spare // (4 * layout.width * itemsize + scores * queries * 4)
        if n > size:
            size = int(size * 0.65)  # an online softmax takes more
    if n <= size:
        return n
    largest = max(size // LANES, 1) * LANES
    return -(-n // -(-n // largest) // LANES) * LANES


def _seeds(seeds: Int32[Array, "b h 2"] | None, rows: int) -> tuple[Any, Any]:
    """For each row its entry's seeds, and where it stands on the axis that the attention is not over: [r 1 2h+1]."""
    if seeds is None:
        return None, None
    b, heads, _ = seeds.shape
    outer = jnp.tile(jnp.arange(rows // b, dtype=jnp.int32), b)
    flat = jnp.concatenate([jnp.repeat(seeds.reshape(b, 2 * heads), rows // b, axis=0), outer[:, np.newaxis]], axis=1)
    spec = pl.BlockSpec((1, 1, 2 * heads + 1), lambda *i: (i[0], 0, 0), memory_space=pltpu.SMEM)
    return flat[:, np.newaxis], spec


def _keep(
    seeds_ref, n: int, sizes: tuple[int, int], first: tuple[Any, Any], layout: HeadLayout, options: KernelOptions, *,
    transposed: bool = False,
):  # fmt: skip
    """Dropout's multipliers of a window's heads, float32[q k], or [k q]. first: the first query and key."""
    if seeds_ref is None:
        return None
    shape = sizes[::-1] if transposed else sizes
    query, key = (at + jax.lax.broadcasted_iota(jnp.int32, shape, axis ^ transposed) for axis, at in enumerate(first))
    outer = seeds_ref[0, 0, seeds_ref.shape[2] - 1]
    head = pl.program_id(1) * layout.per
    return keep_of_heads(seeds_ref, head, layout.per, counter(outer, query, key, n, n), options.rate)
