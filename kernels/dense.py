"""The matmuls around the attention cores, with what surrounds them: layer norm, bias, GELU and residual in one pass.

Oracle: reference/layers.py and reference/gradients.py (layer_norm_vjp, dense_vjp). Not here: dropout, and the products
of the backward pass that contract over the tokens, which XLA computes as fast from the same arrays.

Why it is faster: XLA normalises, multiplies and adds in separate passes over HBM, and copies [b t s c] into another
layout whenever s is no multiple of 8. Here the row-wise work hides behind the matrix unit's, and nothing is copied.

Tiling: tiling.py, which says how tokens are cut into blocks without a copy. Weights stay in VMEM.
VMEM: one copy of the weights (two if tiled), two of each block. ViViT-B's qkv on v3: 6.8 + 4.7 MiB for 200 rows.

Kept for the backward pass: tokens, and before attention x̂ and 1/σ; the MLP computes those and its hidden layer again.

Numerics: operands of a product are rounded to `dtype` (on v3 by the matrix unit itself), everything else is float32.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from vivit.kernels import chip, stacks, tiling
from vivit.kernels.stacks import Tape
from vivit.kernels.tiling import DenseBlockSizes
from vivit.numerics.gelu import gelu, gelu_and_slope
from vivit.reference.params import Dense, LayerNorm, Mlp

CAST_ROWS = 256  # of weights in a step
EARLY = 2 * tiling.LANES  # columns of dy W₂ᵀ that come first: the layer norm hides behind their product


class DenseOptions(NamedTuple):
    """What is known when compiling. residual: norm_dense returns its tokens too. keep: the tape keeps the result.
    in_place: residual_dense_mlp writes where its tokens lie.
    """

    dtype: str
    blocks: DenseBlockSizes
    interpret: Any  # bool | pltpu.InterpretParams
    epsilon: float = 0.0
    form: str = ""  # of the GELU after the product, "tanh" or "erf"; or none
    out_dtype: DTypeLike = np.float32
    residual: bool = False
    tape: Tape | None = None
    keep: bool = True
    in_place: bool = False


def norm_dense(
    tokens: Float32[Array, "... n c"],
    norm: LayerNorm,
    dense: Dense,
    epsilon: float,
    dtype: str,
    *,
    out_dtype: DTypeLike | None = None,
    residual: bool = False,
    block_sizes: DenseBlockSizes | None = None,
    interpret: Any = False,
    tape: Tape | None = None,
) -> Float[Array, "... n f"] | tuple[Float[Array, "... n f"], Float32[Array, "... n c"]]:
    """LN(z) W + b in out_dtype, or in `dtype` if that is None.

    residual: return (LN(z) W + b, z), the z that the residual adds: its cotangent is then added in the kernel, which
    costs nothing there, where a sum of two cotangents is a pass over HBM. A lean tape keeps the first z that it sees,
    the tokens that enter a layer: the kernel writes them on their way.
    """
    out_dtype = np.dtype(out_dtype or dtype)
    if tokens.size == 0:
        out = jnp.zeros((*tokens.shape[:-1], dense.kernel.shape[1]), out_dtype)
        return (out, tokens) if residual else out
    blocks = block_sizes or DenseBlockSizes()
    options = DenseOptions(dtype, blocks, interpret, epsilon, out_dtype=out_dtype, residual=residual, tape=tape)
    if tape is not None and tape.lean and tape.place == 0:
        if not tape.full:
            out, *_, kept = _norm_project(tokens, norm, dense, options, entering=True)
            return (out, kept) if residual else out
        (kept,) = tape.keep([tokens], lambda slices: slices)
        return _norm_dense(kept.reshape(*tokens.shape)._replace(stand_in=tokens), norm, dense, options)
    return _norm_dense(tokens, norm, dense, options)


def _norm_dense_primal(tokens, norm: LayerNorm, dense: Dense, options: DenseOptions):
    out, *_ = _norm_project(tokens, norm, dense, options)
    return (out, tokens) if options.residual else out


def _norm_dense_forward(tokens, norm, dense, options):
    out, normal, inverse, _ = _norm_project(tokens, norm, dense, options, statistics=True)
    return (out, tokens) if options.residual else out, (normal, inverse, norm, dense)


def _norm_dense_backward(options, saved, cotangent):
    out_cotangent, tokens_cotangent = cotangent if options.residual else (cotangent, None)
    normal, inverse, norm, dense = saved
    *cotangents, _ = _norm_dense_vjp(normal, inverse, norm, dense, out_cotangent, tokens_cotangent, options)
    return tuple(cotangents)


_norm_dense = stacks.differentiable(_norm_dense_forward, _norm_dense_backward, (3,), _norm_dense_primal)


def _norm_project(tokens, norm, dense, options, *, statistics: bool = False, entering: bool = False) -> list[Any]:
    """LN(z) W + b, x̂ and 1/σ if `statistics`, and the z that a lean tape keeps if `entering`; else None.

    A tape's 1/σ has copies in all lanes, as it is stored.
    """
    c, f = dense.kernel.shape
    operand = chip.operand_dtype(options.dtype)
    out_bytes = np.dtype(options.out_dtype).itemsize
    inverses = 1 if options.tape is None else tiling.LANES
    kept_bytes = 2 * (c * operand.itemsize + tiling.LANES * 4) if statistics else 8 * c if entering else 0

    def bytes_of(columns):
        return 12 * c + 2 * columns * out_bytes + kept_bytes, c * columns * operand.itemsize

    width = tiling.tile(tokens.shape, f, bytes_of, options.blocks)
    blocks = tiling.blocks_of(tokens.shape, *bytes_of(width), options.blocks)
    outs = stacks.pallas_call(
        partial(_norm_dense_kernel, epsilon=options.epsilon, form=options.form),
        grid=(f // width, *blocks.grid),
        in_specs=[
            *(blocks.spec(c, tiling.after_tiles), tiling.whole(1, c), tiling.whole(1, c)),
            *(tiling.columns(c, width), tiling.columns(1, width)),
        ],
        out_specs=[
            blocks.spec(width, lambda k, i, j: (i, j, k)),
            blocks.spec(c, tiling.after_tiles) if statistics else None,
            blocks.spec(inverses, tiling.after_tiles) if statistics else None,
            blocks.spec(c, tiling.after_tiles) if entering else None,
        ],
        out_shape=[
            blocks.array(f, options.out_dtype),
            blocks.array(c, operand) if statistics else None,
            blocks.array(inverses, np.float32) if statistics else None,
            blocks.array(c, tokens.dtype) if entering else None,
        ],
        compiler_params=tiling.compiler(*["arbitrary" if statistics or entering else "parallel"] * 3),
        interpret=options.interpret,
        name="norm_dense",
        tape=options.tape,
        keep=[False, True] if entering else options.keep,
    )(blocks.view(tokens), *_lines(norm), *_operands(dense, operand, options))
    return [None if out is None else out.reshape(*tokens.shape[:-1], out.shape[-1]) for out in outs]


def _norm_dense_kernel(
    tokens, scale, bias, kernel, dense_bias, out, normal_out, inverse_out, entering_out, *, epsilon: float, form: str
):
    for part in tiling.parts(*tokens.shape[:2]):
        if entering_out is not None:
            tiling.store(entering_out, part, tiling.load(tokens, part))
        normal, inverse = _normal(tiling.load(tokens, part), epsilon)
        if normal_out is not None:
            tiling.store(normal_out, part, normal)
            tiling.store(inverse_out, part, jnp.broadcast_to(inverse, (inverse.shape[0], inverse_out.shape[2])))
        hidden = _product(normal * scale[...] + bias[...], kernel) + dense_bias[...]
        tiling.store(out, part, gelu(hidden, form) if form else hidden)


def _norm_dense_vjp(normal, inverse, norm, dense, out_cotangent, tokens_cotangent, options):
    """The cotangents of tokens, norm and dense, and Σ dz, from dy of LN(z) W + b and the dz of the residual (or None).

    normal, inverse: x̂, 1/σ. With P = x̂ᵀ dy, dW = scale ∘ P + bias ⊗ db; and as dn = dy Wᵀ is the cotangent of
    x̂ ∘ scale + bias, Σ dn ∘ x̂ = Σ_f W ∘ P and Σ dn = W db: no other sum over the tokens is needed.
    """
    through, dense_bias, residual_sum = _dense_vjp(
        out_cotangent, dense, jnp.float32, options, normal=normal, inverse=inverse, norm=norm, residual=tokens_cotangent
    )
    product = _over_tokens(normal, out_cotangent, options.dtype)
    kernel, scale, bias = (stacks.array(part).astype(jnp.float32) for part in (dense.kernel, *norm))
    row = dense_bias[jnp.newaxis, :]
    norm_cotangent = LayerNorm((kernel * product).sum(axis=1), (kernel * row).sum(axis=1))
    kernel_cotangent = scale[:, jnp.newaxis] * product + bias[:, jnp.newaxis] * row
    return through, _like(norm_cotangent, norm), _like(Dense(kernel_cotangent, dense_bias), dense), residual_sum


def residual_dense(
    tokens: Float32[Array, "... n c"],
    x: Float[Array, "... n d"],
    dense: Dense,
    dtype: str,
    *,
    block_sizes: DenseBlockSizes | None = None,
    interpret: Any = False,
    tape: Tape | None = None,
    keep: bool = True,
) -> Float32[Array, "... n c"]:
    """z + x W + b. keep: in the tape."""
    if tokens.size == 0:
        return tokens
    options = DenseOptions(dtype, block_sizes or DenseBlockSizes(), interpret, tape=tape, keep=keep)
    return _residual_dense(tokens, x, dense, options)


def _residual_dense_forward(tokens, x, dense, options):
    return _residual_project(tokens, x, dense, options), (x, dense)


def _residual_dense_backward(options, saved, out_cotangent):
    x, dense = saved
    x_cotangent, bias, _ = _dense_vjp(out_cotangent, dense, x.dtype, options, beside=x if stacks.is_slice(x) else None)
    kernel = _over_tokens(x, out_cotangent, options.dtype)
    return out_cotangent, x_cotangent, _like(Dense(kernel, bias), dense)


_residual_dense = stacks.differentiable(_residual_dense_forward, _residual_dense_backward, (3,))


def _residual_project(tokens, x, dense: Dense, options: DenseOptions):
    """z + x W + b."""
    d, c = dense.kernel.shape
    operand = chip.operand_dtype(options.dtype)

    def bytes_of(columns):
        return 2 * d * x.dtype.itemsize + 20 * columns, d * columns * operand.itemsize

    width = tiling.tile(x.shape, c, bytes_of, options.blocks)
    blocks = tiling.blocks_of(x.shape, *bytes_of(width), options.blocks)
    tile = blocks.spec(width, lambda k, i, j: (i, j, k))
    out = stacks.pallas_call(
        _residual_dense_kernel,
        grid=(c // width, *blocks.grid),
        in_specs=[tile, blocks.spec(d, tiling.after_tiles), tiling.columns(d, width), tiling.columns(1, width)],
        out_specs=tile,
        out_shape=blocks.array(c, jnp.float32),
        compiler_params=tiling.compiler("parallel", "parallel", "parallel"),
        interpret=options.interpret,
        name="residual_dense",
        tape=options.tape,
        keep=options.keep,
    )(blocks.view(tokens), blocks.view(x), *_operands(dense, operand, options))
    return out.reshape(*tokens.shape)


def _residual_dense_kernel(tokens, x, kernel, bias, out):
    for part in tiling.parts(*x.shape[:2]):
        tiling.store(out, part, tiling.load(tokens, part) + (_product(tiling.load(x, part), kernel) + bias[...]))


def residual_mlp(
    tokens: Float32[Array, "... n c"],
    norm: LayerNorm,
    mlp: Mlp,
    form: str,
    epsilon: float,
    dtype: str,
    *,
    block_sizes: DenseBlockSizes | None = None,
    interpret: Any = False,
    tape: Tape | None = None,
) -> Float32[Array, "... n c"]:
    """z + GELU(LN(z) W₁ + b₁) W₂ + b₂. form: "tanh" or "erf". A tape does not keep the last result of a layer."""
    if tokens.size == 0:
        return tokens
    options = DenseOptions(dtype, block_sizes or DenseBlockSizes(), interpret, epsilon, form, tape=tape, keep=False)
    return _residual_mlp(tokens, norm, mlp, options)


def _residual_mlp_forward(tokens, norm: LayerNorm, mlp: Mlp, options: DenseOptions):
    to_hidden = options._replace(out_dtype=chip.operand_dtype(options.dtype))
    active, *_ = _norm_project(tokens, norm, mlp.hidden, to_hidden)
    return _residual_project(tokens, active, mlp.out, options), (tokens, norm, mlp)


def _residual_mlp_backward(options, saved, out_cotangent):
    """As `norm_dense` with the residual's dy, from the cotangent of h, which is recomputed."""
    tokens, norm, mlp = saved
    active, hidden_cotangent, normal, inverse = _mlp_vjp(tokens, norm, mlp, out_cotangent, options)
    tokens_cotangent, norm_cotangent, hidden_params, bias = _norm_dense_vjp(
        normal, inverse, norm, mlp.hidden, hidden_cotangent, out_cotangent, options
    )
    out = _like(Dense(_over_tokens(active, out_cotangent, options.dtype), bias), mlp.out)
    return tokens_cotangent, norm_cotangent, Mlp(hidden_params, out)


_residual_mlp = stacks.differentiable(_residual_mlp_forward, _residual_mlp_backward, (3,))


def residual_dense_mlp(
    tokens: Float32[Array, "... n c"],
    x: Float[Array, "... n d"],
    dense: Dense,
    norm: LayerNorm,
    mlp: Mlp,
    form: str,
    epsilon: float,
    dtype: str,
    *,
    block_sizes: DenseBlockSizes | None = None,
    interpret: Any = False,
    tape: Tape | None = None,
    in_place: bool = False,
) -> Float32[Array, "... n c"]:
    """`residual_dense`, then `residual_mlp`: the end of a layer, in one kernel if all of its weights fit in VMEM.

    A tape keeps what is between the two. in_place: that kernel writes where the tokens lie; XLA copies them first if
    anybody else reads them.
    """
    blocks = block_sizes or DenseBlockSizes()
    options = DenseOptions(dtype, blocks, interpret, epsilon, form, tape=tape, in_place=in_place)
    lean = tape is not None and tape.lean  # the MLP would be computed again for what is before it
    if tokens.size == 0 or lean or not tiling.fits(tokens.shape, *_bytes_of_both(x, dense, mlp, options), blocks):
        tokens = residual_dense(tokens, x, dense, dtype, block_sizes=blocks, interpret=interpret, tape=tape)
        return residual_mlp(tokens, norm, mlp, form, epsilon, dtype, block_sizes=blocks, interpret=interpret, tape=tape)
    return _residual_dense_mlp(tokens, x, dense, norm, mlp, options)


def _bytes_of_both(x, dense: Dense, mlp: Mlp, options: DenseOptions) -> tuple[int, int]:
    """Of a row in VMEM, and of the weights."""
    (d, c), f, operand = dense.kernel.shape, mlp.hidden.kernel.shape[1], chip.operand_dtype(options.dtype)
    return 2 * d * x.dtype.itemsize + 28 * c + (4 + operand.itemsize) * f, (d + 2 * f) * c * operand.itemsize


def _residual_dense_mlp_primal(tokens, x, dense, norm, mlp, options):
    return _residual_both(tokens, x, dense, norm, mlp, options, between=False)[0]


def _residual_dense_mlp_forward(tokens, x, dense, norm, mlp, options):
    out, between = _residual_both(tokens, x, dense, norm, mlp, options, between=True)
    return out, (x, dense, between, norm, mlp)


def _residual_dense_mlp_backward(options, saved, out_cotangent):
    x, dense, *of_mlp = saved
    cotangent, norm, mlp = _residual_mlp_backward(options, of_mlp, out_cotangent)
    return *_residual_dense_backward(options, (x, dense), cotangent), norm, mlp


_residual_dense_mlp = stacks.differentiable(
    _residual_dense_mlp_forward, _residual_dense_mlp_backward, (5,), _residual_dense_mlp_primal
)


def _residual_both(tokens, x, dense, norm, mlp, options, *, between: bool):
    """(z' + MLP(LN(z')), z' = z + x W + b if `between`, else None)."""
    (d, c), f, operand = dense.kernel.shape, mlp.hidden.kernel.shape[1], chip.operand_dtype(options.dtype)
    blocks = tiling.blocks_of(x.shape, *_bytes_of_both(x, dense, mlp, options), options.blocks)
    row = blocks.spec(c, tiling.after_tiles)
    outs = stacks.pallas_call(
        partial(_residual_both_kernel, epsilon=options.epsilon, form=options.form),
        grid=(1, *blocks.grid),
        in_specs=[
            *(row, blocks.spec(d, tiling.after_tiles), tiling.columns(d, c), tiling.columns(1, c)),
            *(tiling.whole(1, c), tiling.whole(1, c), tiling.columns(c, f), tiling.columns(1, f)),
            *(tiling.columns(f, c), tiling.columns(1, c)),
        ],
        out_specs=[row, row if between else None],
        out_shape=[blocks.array(c, jnp.float32), blocks.array(c, jnp.float32) if between else None],
        compiler_params=tiling.compiler("parallel", "parallel", "parallel"),
        interpret=options.interpret,
        name="residual_dense_mlp",
        tape=options.tape,
        keep=[False, True][: 1 + between],
        # JAX's simulation of a TPU fails if blocks hang over
        in_place=options.in_place and (options.interpret is False or blocks.length % blocks.rows == 0),
    )(
        *(blocks.view(tokens), blocks.view(x), *_operands(dense, operand, options)),
        *(*_lines(norm), *_operands(mlp.hidden, operand, options), *_operands(mlp.out, operand, options)),
    )
    return [None if out is None else out.reshape(*tokens.shape) for out in outs]


def _residual_both_kernel(
    tokens, x, kernel, bias, scale, norm_bias, hidden_kernel, hidden_bias, out_kernel, out_bias, out, between_out,
    *, epsilon: float, form: str,
):  # fmt: skip
    for part in tiling.parts(*x.shape[:2]):
        between = tiling.load(tokens, part) + (_product(tiling.load(x, part), kernel) + bias[...])
        if between_out is not None:
            tiling.store(between_out, part, between)
        normal, _ = _normal(between, epsilon)
        hidden = _product(normal * scale[...] + norm_bias[...], hidden_kernel) + hidden_bias[...]
        tiling.store(out, part, between + (_product(gelu(hidden, form), out_kernel) + out_bias[...]))


def _mlp_vjp(tokens, norm, mlp, dy, options):
    """[GELU(h), dh, x̂, 1/σ], with h = LN(z) W₁ + b₁ and dh = GELU'(h) ∘ dy W₂ᵀ; all but 1/σ as operands."""
    c, f = mlp.hidden.kernel.shape
    operand = chip.operand_dtype(options.dtype)

    def bytes_of(columns):
        row_bytes = (12 + 4 * operand.itemsize) * columns + 20 * c + 2 * (c * operand.itemsize + 4 * tiling.LANES)
        return row_bytes, 2 * c * columns * operand.itemsize

    width = tiling.tile(dy.shape, f, bytes_of, options.blocks)
    blocks = tiling.blocks_of(dy.shape, *bytes_of(width), options.blocks)
    wide, row = blocks.spec(width, lambda k, i, j: (i, j, k)), blocks.spec(c, tiling.after_tiles)
    last = [size - 1 for size in blocks.grid]

    def first_tile(k, i, j):
        first = k == 0  # after it the last block stays, and is written once more at the end
        return jax.lax.select(first, i, jnp.int32(last[0])), jax.lax.select(first, j, jnp.int32(last[1])), 0

    outs = stacks.pallas_call(
        partial(_mlp_vjp_kernel, epsilon=options.epsilon, form=options.form),
        grid=(f // width, *blocks.grid),
        in_specs=[
            *(row, tiling.whole(1, c), tiling.whole(1, c), tiling.columns(c, width), tiling.columns(1, width), row),
            pl.BlockSpec((width, c), lambda k, i, j: (k, 0), pipeline_mode=pl.Buffered(1)),
        ],
        out_specs=[wide, wide, blocks.spec(c, first_tile), blocks.spec(1, first_tile)],
        out_shape=[*[blocks.array(f, operand)] * 2, blocks.array(c, operand), blocks.array(1, np.float32)],
        compiler_params=tiling.compiler("arbitrary", "arbitrary", "arbitrary"),
        interpret=options.interpret,
        name="mlp_vjp",
    )(
        *(blocks.view(tokens), *_lines(norm), *_operands(mlp.hidden, operand, options)),
        *(blocks.view(dy), _cast(mlp.out.kernel, operand, options)),
    )
    return [out.reshape(*dy.shape[:-1], out.shape[-1]) for out in outs]


def _mlp_vjp_kernel(
    tokens, scale, bias, kernel, hidden_bias, dy, out_kernel, active_out, hidden_cotangent, normal_out, inverse_out,
    *, epsilon: float, form: str,
):  # fmt: skip
    f = out_kernel.shape[0]
    early = min(EARLY, f)
    for part in tiling.parts(*dy.shape[:2]):
        active_cotangent = _product(tiling.load(dy, part), out_kernel.at[:early], transposed=True)
        normal, inverse = _normal(tiling.load(tokens, part), epsilon)
        tiling.store(normal_out, part, normal)
        tiling.store(inverse_out, part, inverse)
        hidden = _product(normal * scale[...] + bias[...], kernel) + hidden_bias[...]
        active, slope = gelu_and_slope(hidden, form)
        tiling.store(active_out, part, active)
        if early < f:
            late = _product(tiling.load(dy, part), out_kernel.at[early:], transposed=True)
            active_cotangent = jnp.concatenate([active_cotangent, late], axis=1)
        tiling.store(hidden_cotangent, part, slope * active_cotangent)


def _dense_vjp(dy, dense, dtype, options, *, normal=None, inverse=None, norm=None, residual=None, beside=None):
    """(dy Wᵀ, Σ dy, Σ dz), dy Wᵀ taken through the layer norm that gave x̂ and 1/σ, if given, and added to the dz of
    `residual`, if given; without it the last is None.

    Where weights are cut into tiles, a block's sums over them are finished while the next block is multiplied, a piece
    of its rows beside each tile. So there is one more step than blocks, and the layer norm hides behind the products.

    beside: a Slice that the kernel takes and does not read. A stack that only XLA reads, it converts before the loop.
    """
    c, f = dense.kernel.shape
    operand = chip.operand_dtype(options.dtype)
    rowwise = [normal, inverse, residual]

    def bytes_of(columns, held):
        piece_bytes = 2 * c * np.dtype(dtype).itemsize
        piece_bytes += sum(2 * max(x.shape[-1], tiling.LANES) * x.dtype.itemsize for x in rowwise if x is not None)
        row_bytes = 2 * columns * dy.dtype.itemsize + pl.cdiv(piece_bytes * columns, f) + (8 * c if columns < f else 0)
        return row_bytes, (f if held else 2 * columns) * c * operand.itemsize + 2 * 4 * tiling.SUBLANES * (f + c)

    width = tiling.tile(dy.shape, f, partial(bytes_of, held=True), options.blocks)
    held = tiling.fits(dy.shape, *bytes_of(width, held=True), options.blocks)  # all weights, a step uses a tile of them
    if not held:
        width = tiling.tile(dy.shape, f, partial(bytes_of, held=False), options.blocks)
    tiles = f // width
    blocks = tiling.blocks_of(dy.shape, *bytes_of(width, held), options.blocks, pieces=tiles)
    pieces = blocks.pieces(tiles)
    count, across, behind = math.prod(blocks.grid), np.int32(blocks.grid[1]), int(tiles > 1)

    def multiplied(i, k):
        i = jax.lax.min(i, np.int32(count - 1))
        return jax.lax.div(i, across), jax.lax.rem(i, across), k

    def finished(i, k):  # at first nothing: the first piece stays, and is written when it is finished
        block = jax.lax.max(i - np.int32(behind), np.int32(0))
        tile = jax.lax.select(i >= np.int32(behind), k, jnp.int32(0))
        return jax.lax.div(block, across), pieces.piece_of(blocks, jax.lax.rem(block, across), tile), 0

    weights = pl.BlockSpec((c, width), lambda i, k: (0, k))
    if held:
        weights = pl.BlockSpec((c, f), lambda i, k: (0, 0), pipeline_mode=pl.Buffered(1))
    out, bias, residual_sum = stacks.pallas_call(
        partial(_dense_vjp_kernel, blocks=blocks, tiles=tiles, held=held),
        grid=(count + behind, tiles),
        in_specs=[
            blocks.spec(width, multiplied),
            weights,
            None if norm is None else tiling.whole(1, c),
            *(None if x is None else pieces.spec(x.shape[-1], finished) for x in rowwise),
            None if beside is None else pl.BlockSpec(memory_space=pl.ANY),
        ],
        out_specs=[
            *(pieces.spec(c, finished), tiling.whole(tiling.SUBLANES, f)),
            None if residual is None else tiling.whole(tiling.SUBLANES, c),
        ],
        out_shape=[
            *(blocks.array(c, dtype), jax.ShapeDtypeStruct((tiling.SUBLANES, f), jnp.float32)),
            None if residual is None else jax.ShapeDtypeStruct((tiling.SUBLANES, c), jnp.float32),
        ],
        scratch_shapes=[pltpu.VMEM((2, blocks.frames, tiles * pieces.rows, c), jnp.float32) if tiles > 1 else None],
        compiler_params=tiling.compiler("arbitrary", "arbitrary"),
        interpret=options.interpret,
        name="dense_vjp",
    )(
        *(blocks.view(dy), _cast(dense.kernel, operand, options), None if norm is None else _lines(norm)[0]),
        *(None if x is None else blocks.view(x) for x in rowwise),
        beside,
    )
    residual_sum = None if residual is None else residual_sum.sum(axis=0)
    return out.reshape(*dy.shape[:-1], c), bias.sum(axis=0), residual_sum


def _dense_vjp_kernel(
    dy, kernel, scale, normal, inverse, residual, _, out, bias, residual_sum, sums,
    *, blocks: tiling.Blocks, tiles: int, held: bool,
):  # fmt: skip
    """bias, residual_sum: Σ dy, Σ dz in eight rows. sums: dy Wᵀ over the tiles, of this block so far and of the one
    before; absent with one tile.
    """
    block, tile = pl.program_id(0), pl.program_id(1)
    step = block % blocks.grid[1]

    @pl.when((block == 0) & (tile == 0))
    def _():
        bias[...] = jnp.zeros_like(bias)
        if residual_sum is not None:
            residual_sum[...] = jnp.zeros_like(residual_sum)

    def in_eights(rows, inside):
        rows = jnp.where(inside, rows.astype(jnp.float32), 0.0)
        return rows.reshape(-1, tiling.SUBLANES, rows.shape[1]).sum(axis=0)

    def finish(part, dx, inside):
        if normal is not None:
            x = tiling.load(normal, part).astype(jnp.float32)
            dx = dx * scale[...]
            dx = (dx - _mean(dx) - x * _mean(dx * x)) * tiling.load(inverse, part)[:, :1]
        if residual is not None:
            added = tiling.load(residual, part)
            residual_sum[...] += in_eights(added, inside)
            dx = dx + added
        tiling.store(out, part, dx)

    if tiles == 1:
        for part in tiling.parts(*dy.shape[:2]):
            cotangent, inside = tiling.load(dy, part), tiling.inside(part, step, blocks)
            bias[...] += in_eights(cotangent, inside)
            finish(part, _product(cotangent, kernel, transposed=True), inside)
        return

    this, before = sums.at[block % 2], sums.at[1 - block % 2]
    pieces = blocks.pieces(tiles)
    step_before = jnp.maximum(block - 1, 0) % blocks.grid[1]
    place = pieces.piece_of(blocks, step_before, tile)
    first_row = place * pieces.rows - step_before * blocks.rows
    piece = before.at[:, pl.ds(pl.multiple_of(first_row, tiling.SUBLANES), pieces.rows)]
    is_new = (block > 0) & (first_row == tile * pieces.rows)  # a block may have fewer pieces than tiles
    is_block = block < pl.num_programs(0) - 1
    of_tile = pl.ds(pl.multiple_of(tile * dy.shape[2], tiling.LANES), dy.shape[2])
    c = out.shape[-1]
    for window, rows in tiling.beside(c, *out.shape[:2]):
        for part in rows:
            finish(part, tiling.load(piece, part), tiling.inside(part, place, pieces) & is_new)
        weights = kernel.at[window, of_tile] if held else kernel.at[window]
        for part in tiling.parts(*dy.shape[:2]):
            cotangent = tiling.load(dy, part)
            product = _product(cotangent, weights, transposed=True)
            if window.stop == c:  # beside the last product
                bias[:, of_tile] += in_eights(cotangent, tiling.inside(part, step, blocks) & is_block)
            so_far = jnp.where(tile == 0, 0.0, tiling.load(this.at[:, :, window], part))
            tiling.store(this.at[:, :, window], part, so_far + product)


def _normal(x: Float32[Array, "n c"], epsilon: float) -> tuple[Float32[Array, "n c"], Float32[Array, "n 1"]]:
    """x̂ = (x − mean) / σ and 1/σ, over the channels."""
    centred = x - _mean(x)
    inverse = jax.lax.rsqrt(_mean(centred * centred) + epsilon)
    return centred * inverse, inverse


def _mean(x):
    return x.mean(axis=-1, keepdims=True)


def _product(x, kernel, *, transposed: bool = False):
    """x W or x Wᵀ, x rounded to the dtype of W."""
    dimensions = (((1,), (1 if transposed else 0,)), ((), ()))
    return jax.lax.dot_general(x.astype(kernel.dtype), kernel[...], dimensions, preferred_element_type=jnp.float32)


def _over_tokens(x: Float[Array, "... n c"], y: Float[Array, "... n f"], dtype: str) -> Float32[Array, "c f"]:
    """xᵀ y, summed over all tokens."""
    x, y = (stacks.array(values).astype(chip.operand_dtype(dtype)) for values in (x, y))
    return jnp.einsum("...c,...f->cf", x, y, preferred_element_type=jnp.float32)


def _like(cotangents, params):
    """The cotangents in the dtypes of the parameters."""
    return jax.tree.map(lambda cotangent, param: cotangent.astype(param.dtype), cotangents, params)


def _operands(dense: Dense, dtype: np.dtype, options: DenseOptions):
    """(kernel in the dtype of operands, bias as a line)."""
    return _cast(dense.kernel, dtype, options), _line(dense.bias)


def _cast(kernel, dtype: np.dtype, options: DenseOptions):
    """In the dtype of operands. XLA would convert the weights of all layers first, and copy them once more for each."""
    if not stacks.is_slice(kernel) or kernel.dtype == dtype:
        return kernel.astype(dtype)
    d, f = kernel.shape
    rows = pl.BlockSpec((min(d, CAST_ROWS), f), lambda i: (i, 0))

    def body(kernel, out):
        out[...] = kernel[...].astype(out.dtype)

    return stacks.pallas_call(
        body,
        grid=(pl.cdiv(d, CAST_ROWS),),
        in_specs=[rows],
        out_specs=rows,
        out_shape=jax.ShapeDtypeStruct((d, f), dtype),
        compiler_params=tiling.compiler("parallel"),
        interpret=options.interpret,
        name="cast",
    )(kernel)


def _lines(norm: LayerNorm):
    return [_line(part) for part in norm]


def _line(param):
    return stacks.array(param).astype(jnp.float32)[jnp.newaxis, :]
