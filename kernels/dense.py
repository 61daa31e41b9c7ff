"""The matmuls around the attention cores, with what surrounds them: layer norm, bias, GELU and residual in one pass.

Oracle: reference/layers.py and reference/gradients.py (layer_norm_vjp, dense_vjp). Not here: dropout, and the products
of the backward pass that contract over the tokens, which XLA computes as fast from the same arrays.

Why it is faster: XLA normalises, multiplies and adds in separate passes over HBM, and copies [b t s c] into another
layout whenever s is no multiple of 8. Here the row-wise work hides behind the matrix unit's, and nothing is copied.

Tiling: tiling.py, which says how tokens are cut into blocks without a copy. Weights stay in VMEM.
VMEM: one copy of the weights (two if tiled), two of each block. ViViT-B's qkv on v3: 6.8 + 4.7 MiB for 200 rows.

Numerics: operands of a product are rounded to `dtype` (on v3 by the matrix unit itself), everything else is float32.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike

from vivit.kernels import chip, tiling
from vivit.numerics.gelu import gelu
from vivit.reference.params import Dense, LayerNorm, Mlp


class Options(NamedTuple):
    """What is known when compiling. residual: norm_dense returns its tokens too."""

    dtype: str
    epsilon: float = 0.0
    form: str = ""  # of the GELU after the product, "tanh" or "erf"; or none
    out_dtype: DTypeLike = np.float32
    residual: bool = False
    interpret: Any = False  # bool | pltpu.InterpretParams


def norm_dense(
    tokens: jax.Array,
    norm: LayerNorm,
    dense: Dense,
    epsilon: float,
    dtype: str,
    *,
    out_dtype: DTypeLike | None = None,
    residual: bool = False,
    interpret: Any = False,
) -> Any:
    """LN(z) W + b. tokens: float32[... n c], kernel [c f]. Returns out_dtype[... n f], `dtype` if out_dtype is None.

    residual: return (LN(z) W + b, z), the z that the residual adds: its cotangent is then added in the kernel, which
    costs nothing there, where a sum of two cotangents is a pass over HBM.
    """
    options = Options(dtype, epsilon, out_dtype=np.dtype(out_dtype or dtype), residual=residual, interpret=interpret)
    return _norm_dense(tokens, norm, dense, options)


def residual_dense(tokens: jax.Array, x: jax.Array, dense: Dense, dtype: str, *, interpret: Any = False) -> jax.Array:
    """z + x W + b. tokens: float32[... n c], x: float[... n d], kernel [d c]. Returns float32[... n c]."""
    return _residual_dense(tokens, x, dense, Options(dtype, interpret=interpret))


def residual_mlp(
    tokens: jax.Array,
    norm: LayerNorm,
    mlp: Mlp,
    form: str,
    epsilon: float,
    dtype: str,
    *,
    interpret: Any = False,
) -> jax.Array:
    """z + GELU(LN(z) W₁ + b₁) W₂ + b₂. tokens: float32[... n c]. form: "tanh" or "erf". Returns float32[... n c]."""
    return _residual_mlp(tokens, norm, mlp, Options(dtype, epsilon, form, interpret=interpret))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _norm_dense(tokens, norm: LayerNorm, dense: Dense, options: Options):
    (out,) = _norm_project(tokens, norm, dense, options)
    return (out, tokens) if options.residual else out


def _norm_dense_forward(tokens, norm, dense, options):
    out, *normal = _norm_project(tokens, norm, dense, options, keep=True)
    return (out, tokens) if options.residual else out, (normal, norm, dense)


def _norm_dense_backward(options, saved, cotangent):
    out_cotangent, tokens_cotangent = cotangent if options.residual else (cotangent, None)
    normal, norm, dense = saved
    return _norm_dense_pull(normal, norm, dense, out_cotangent, tokens_cotangent, options)


_norm_dense.defvjp(_norm_dense_forward, _norm_dense_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _residual_dense(tokens, x, dense: Dense, options: Options):
    return _residual_project(tokens, x, dense, options)


def _residual_dense_forward(tokens, x, dense, options):
    return _residual_dense(tokens, x, dense, options), (x, dense)


def _residual_dense_backward(options, saved, out_cotangent):
    x, dense = saved
    x_cotangent, bias = _pull(out_cotangent, dense, x.dtype, options)
    kernel = _over_tokens(x, out_cotangent, options.dtype)
    return out_cotangent, x_cotangent, _like(Dense(kernel, bias), dense)


_residual_dense.defvjp(_residual_dense_forward, _residual_dense_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _residual_mlp(tokens, norm: LayerNorm, mlp: Mlp, options: Options):
    return _residual_mlp_forward(tokens, norm, mlp, options, keep=False)[0]


def _residual_mlp_forward(tokens, norm, mlp, options, keep: bool = True):
    to_hidden = options._replace(out_dtype=chip.operand_dtype(options.dtype))
    active, *normal = _norm_project(tokens, norm, mlp.hidden, to_hidden, keep=keep)
    return _residual_project(tokens, active, mlp.out, options), (normal, norm, mlp)


def _residual_mlp_backward(options, saved, out_cotangent):
    """As `norm_dense` with the residual's dy, from the cotangent of h, which is recomputed."""
    normal, norm, mlp = saved
    active, hidden_cotangent = _hidden_pull(normal[0], norm, mlp, out_cotangent, options)
    tokens_cotangent, norm_cotangent, hidden_params = _norm_dense_pull(
        normal, norm, mlp.hidden, hidden_cotangent, out_cotangent, options
    )
    bias = out_cotangent.sum(axis=range(out_cotangent.ndim - 1))
    out = _like(Dense(_over_tokens(active, out_cotangent, options.dtype), bias), mlp.out)
    return tokens_cotangent, norm_cotangent, Mlp(hidden_params, out)


_residual_mlp.defvjp(_residual_mlp_forward, _residual_mlp_backward)


def _norm_dense_pull(normal, norm, dense, out_cotangent, tokens_cotangent, options):
    """The cotangents of tokens, norm and dense, from those of LN(z) W + b and of the residual's z (None: it has none).

    normal: x̂ and 1/σ. With P = x̂ᵀ dy, dW = scale ∘ P + bias ⊗ db; and as dn = dy Wᵀ is the cotangent of
    x̂ ∘ scale + bias, Σ dn ∘ x̂ = Σ_f W ∘ P and Σ dn = W db: no other sum over the tokens is needed.
    """
    through, dense_bias = _pull(
        out_cotangent, dense, jnp.float32, options, normal=normal, norm=norm, add=tokens_cotangent
    )
    product = _over_tokens(normal[0], out_cotangent, options.dtype)
    kernel, scale, bias = (part.astype(jnp.float32) for part in (dense.kernel, *norm))
    row = dense_bias[jnp.newaxis, :]
    norm_cotangent = LayerNorm((kernel * product).sum(axis=1), (kernel * row).sum(axis=1))
    kernel_cotangent = scale[:, jnp.newaxis] * product + bias[:, jnp.newaxis] * row
    return through, _like(norm_cotangent, norm), _like(Dense(kernel_cotangent, dense_bias), dense)


def _norm_project(tokens, norm, dense, options, *, keep: bool = False):
    """[LN(z) W + b], and if keep what the backward pass needs: x̂, 1/σ."""
    c, f = dense.kernel.shape
    operand = chip.operand_dtype(options.dtype)
    width, weights_bytes = tiling.tile(f, c * operand.itemsize, copies=1)
    out_bytes = np.dtype(options.out_dtype).itemsize
    kept = [(c, operand), (1, np.dtype(np.float32))] if keep else []
    row_bytes = 12 * c + 2 * width * out_bytes + 2 * sum(max(n, tiling.LANES) * kind.itemsize for n, kind in kept)
    blocks = tiling.blocks_of(tokens.shape, row_bytes, weights_bytes)
    outs = pl.pallas_call(
        partial(_norm_dense_kernel, epsilon=options.epsilon, form=options.form),
        grid=(f // width, *blocks.grid),
        in_specs=[
            *(blocks.spec(c, tiling.after_tiles), tiling.whole(1, c), tiling.whole(1, c)),
            *(tiling.columns(c, width), tiling.columns(1, width)),
        ],
        out_specs=[
            blocks.spec(width, lambda k, i, j: (i, j, k)),
            *(blocks.spec(n, tiling.after_tiles) for n, _ in kept),
        ],
        out_shape=[blocks.array(f, options.out_dtype), *(blocks.array(n, kind) for n, kind in kept)],
        compiler_params=tiling.compiler(*["arbitrary" if keep else "parallel"] * 3),
        interpret=options.interpret,
        name="norm_dense",
    )(blocks.view(tokens), *_lines(norm), *_operands(dense, operand))
    return [out.reshape(*tokens.shape[:-1], out.shape[-1]) for out in outs]


def _norm_dense_kernel(tokens, scale, bias, kernel, dense_bias, out, *kept, epsilon: float, form: str):
    for part in tiling.parts(*tokens.shape[:2]):
        normal, inverse = _normal(tiling.load(tokens, part), epsilon)
        for ref, values in zip(kept, (normal, inverse), strict=False):
            tiling.store(ref, part, values)
        hidden = _product(normal * scale[...] + bias[...], kernel) + dense_bias[...]
        tiling.store(out, part, gelu(hidden, form) if form else hidden)


def _residual_project(tokens, x, dense, options):
    """z + x W + b."""
    d, c = dense.kernel.shape
    operand = chip.operand_dtype(options.dtype)
    width, weights_bytes = tiling.tile(c, d * operand.itemsize, copies=1)
    blocks = tiling.blocks_of(x.shape, 2 * d * x.dtype.itemsize + 20 * width, weights_bytes)
    tile = blocks.spec(width, lambda k, i, j: (i, j, k))
    out = pl.pallas_call(
        _residual_dense_kernel,
        grid=(c // width, *blocks.grid),
        in_specs=[tile, blocks.spec(d, tiling.after_tiles), tiling.columns(d, width), tiling.columns(1, width)],
        out_specs=tile,
        out_shape=blocks.array(c, jnp.float32),
        compiler_params=tiling.compiler("parallel", "parallel", "parallel"),
        interpret=options.interpret,
        name="residual_dense",
    )(blocks.view(tokens), blocks.view(x), *_operands(dense, operand))
    return out.reshape(tokens.shape)


def _residual_dense_kernel(tokens, x, kernel, bias, out):
    for part in tiling.parts(*x.shape[:2]):
        tiling.store(out, part, tiling.load(tokens, part) + (_product(tiling.load(x, part), kernel) + bias[...]))


def _hidden_pull(normal, norm, mlp, dy, options):
    """[GELU(h), dh], with h = LN(z) W₁ + b₁ and dh = GELU'(h) ∘ dy W₂ᵀ, in the dtype of operands."""
    c, f = mlp.hidden.kernel.shape
    operand = chip.operand_dtype(options.dtype)
    width, weights_bytes = tiling.tile(f, 2 * c * operand.itemsize, copies=1)
    blocks = tiling.blocks_of(dy.shape, (12 + 4 * operand.itemsize) * width + 20 * c, weights_bytes)
    wide, row = blocks.spec(width, lambda k, i, j: (i, j, k)), blocks.spec(c, tiling.after_tiles)
    outs = pl.pallas_call(
        partial(_hidden_pull_kernel, form=options.form),
        grid=(f // width, *blocks.grid),
        in_specs=[
            *(row, tiling.whole(1, c), tiling.whole(1, c), tiling.columns(c, width), tiling.columns(1, width), row),
            pl.BlockSpec((width, c), lambda k, i, j: (k, 0), pipeline_mode=pl.Buffered(1)),
        ],
        out_specs=[wide, wide],
        out_shape=[blocks.array(f, operand)] * 2,
        compiler_params=tiling.compiler("parallel", "parallel", "parallel"),
        interpret=options.interpret,
        name="hidden_pull",
    )(
        *(blocks.view(normal), *_lines(norm), *_operands(mlp.hidden, operand)),
        *(blocks.view(dy), mlp.out.kernel.astype(operand)),
    )
    return [out.reshape(*dy.shape[:-1], f) for out in outs]


def _hidden_pull_kernel(
    normal, scale, bias, kernel, hidden_bias, dy, out_kernel, active_out, hidden_cotangent, *, form: str
):
    for part in tiling.parts(*dy.shape[:2]):
        x = tiling.load(normal, part).astype(jnp.float32) * scale[...] + bias[...]
        active, pull = jax.vjp(partial(gelu, form=form), _product(x, kernel) + hidden_bias[...])
        tiling.store(active_out, part, active)
        tiling.store(hidden_cotangent, part, *pull(_product(tiling.load(dy, part), out_kernel, transposed=True)))


def _pull(dy, dense, dtype, options, *, normal=None, norm=None, add=None):
    """(dy Wᵀ, Σ dy), dy Wᵀ pulled through the layer norm that gave `normal`, if given, and added to `add`."""
    c, f = dense.kernel.shape
    operand = chip.operand_dtype(options.dtype)
    width, weights_bytes = tiling.tile(f, c * operand.itemsize, copies=2)
    tiles = f // width
    rowwise = [*(normal or ()), *([] if add is None else [add])]
    row_bytes = 2 * width * dy.dtype.itemsize + 2 * c * np.dtype(dtype).itemsize + 4 * c
    row_bytes += sum(2 * max(x.shape[-1], tiling.LANES) * x.dtype.itemsize for x in rowwise)
    blocks = tiling.blocks_of(dy.shape, row_bytes, weights_bytes + 2 * 4 * tiling.SUBLANES * f)
    scale = _lines(norm)[:1] if norm else []
    out, bias = pl.pallas_call(
        partial(_pull_kernel, blocks=blocks, tiles=tiles, norm=norm is not None, adding=add is not None),
        grid=(*blocks.grid, tiles),
        in_specs=[
            blocks.spec(width, lambda i, j, k: (i, j, k)),
            pl.BlockSpec((c, width), lambda i, j, k: (0, k), pipeline_mode=pl.Buffered(1 if tiles == 1 else 2)),
            *(tiling.whole(1, c) for _ in scale),
            *(blocks.spec(x.shape[-1], tiling.before_tiles) for x in rowwise),
        ],
        out_specs=[blocks.spec(c, tiling.before_tiles), tiling.whole(tiling.SUBLANES, f)],
        out_shape=[blocks.array(c, dtype), jax.ShapeDtypeStruct((tiling.SUBLANES, f), jnp.float32)],
        scratch_shapes=[pltpu.VMEM((blocks.frames, blocks.rows, c), jnp.float32)] if tiles > 1 else [],
        compiler_params=tiling.compiler("arbitrary", "arbitrary", "arbitrary"),
        interpret=options.interpret,
        name="dense_pull",
    )(blocks.view(dy), dense.kernel.astype(operand), *scale, *(blocks.view(x) for x in rowwise))
    return out.reshape(*dy.shape[:-1], c), bias.sum(axis=0)


def _pull_kernel(dy, kernel, *refs, blocks, tiles: int, norm: bool, adding: bool):
    """refs: [scale, x̂, 1/σ], [add], dx, Σ dy in eight rows, [dy Wᵀ summed over the tiles so far]."""
    inputs = 3 * norm + adding
    out, bias, *summed = refs[inputs:]
    step, tile = pl.program_id(1), pl.program_id(2)

    @pl.when((pl.program_id(0) == 0) & (step == 0) & (tile == 0))
    def _():
        bias[...] = jnp.zeros_like(bias)

    def finish(part, dx):
        if norm:
            scale, normal, inverse = refs[0][...], *(tiling.load(ref, part).astype(jnp.float32) for ref in refs[1:3])
            dx = dx * scale
            dx = (dx - _mean(dx) - normal * _mean(dx * normal)) * inverse
        tiling.store(out, part, dx + tiling.load(refs[inputs - 1], part) if adding else dx)

    columns = slice(None) if tiles == 1 else pl.ds(pl.multiple_of(tile * dy.shape[2], tiling.LANES), dy.shape[2])
    for part in tiling.parts(*dy.shape[:2]):
        cotangent = tiling.load(dy, part)
        product = _product(cotangent, kernel, transposed=True)
        cotangent = jnp.where(tiling.inside(part, step, blocks), cotangent.astype(jnp.float32), 0.0)
        bias[:, columns] += cotangent.reshape(-1, tiling.SUBLANES, cotangent.shape[1]).sum(axis=0)
        if tiles == 1:
            finish(part, product)
        else:
            (sums,) = summed
            tiling.store(sums, part, jnp.where(tile == 0, 0.0, tiling.load(sums, part)) + product)

    if tiles > 1:

        @pl.when(tile == tiles - 1)
        def _():
            for part in tiling.parts(*dy.shape[:2]):
                finish(part, tiling.load(summed[0], part))


def _normal(x, epsilon: float):
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


def _over_tokens(x, y, dtype: str):
    """xᵀ y, summed over all tokens. x: [... n c], y: [... n f]. Returns float32[c f]."""
    x, y = (values.astype(chip.operand_dtype(dtype)) for values in (x, y))
    return jnp.einsum("...c,...f->cf", x, y, preferred_element_type=jnp.float32)


def _like(cotangents, params):
    """The cotangents in the dtypes of the parameters."""
    return jax.tree.map(lambda cotangent, param: cotangent.astype(param.dtype), cotangents, params)


def _operands(dense: Dense, dtype: np.dtype):
    """(kernel in the dtype of operands, bias as a line)."""
    return dense.kernel.astype(dtype), dense.bias.astype(jnp.float32)[jnp.newaxis, :]


def _lines(norm: LayerNorm):
    return [part.astype(jnp.float32)[jnp.newaxis, :] for part in norm]
