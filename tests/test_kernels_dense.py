"""The dense kernels against the oracle, interpreted on the CPU: values, gradients, both dtypes, garbage in memory."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accuracy import assert_as_accurate
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu
from strategies import DTYPES, normal, seeds

from bench.pallas_calls import calls
from vivit import layers
from vivit.conformance.quickly import QUICKLY
from vivit.kernels import chip, dense, tiling
from vivit.kernels.stacks import Slice
from vivit.kernels.tiling import DenseBlockSizes
from vivit.reference import gradients
from vivit.reference import layers as reference
from vivit.reference.params import Dense, LayerNorm, Mlp

EPSILON = 1e-6
NAMES = ("norm_dense", "norm_dense_residual", "residual_dense", "residual_dense_mlp_erf", "residual_mlp_tanh")
ALL_NAMES = (*NAMES, "residual_mlp_erf")
SHAPES = (  # leading axes, n, c, f: one token, fewer than eight, tiles of 8 and of 128 filled and not
    ((1,), 1, 30, 17),
    ((2, 3), 7, 30, 17),
    ((5,), 8, 128, 256),
    ((3,), 13, 80, 130),
    ((2,), 197, 30, 128),
)
TILED = ((2,), 150, 128, 384)  # three blocks; longer sums over tokens round differently in each of XLA:CPU's products
SHORT = ((6,), 9, 128, 384)  # three sequences in a block, whose rows are two pieces, fewer than the tiles
TILES = DenseBlockSizes(rows=56, columns=128)


class Problem(NamedTuple):
    name: str
    dtype: str = "float32"
    shape: tuple[tuple[int, ...], int, int, int] = SHAPES[3]
    seed: int = 0

    @property
    def form(self) -> str:
        return self.name.rpartition("_")[2]

    def arrays(self):
        """(arguments, cotangent of the result), NumPy float32 that bfloat16 holds exactly."""
        batch, n, c, f = self.shape
        tokens, x, narrow, wide = (normal(self.seed + i, *batch, n, size) for i, size in enumerate((c, f, c, f)))
        norm = LayerNorm(1 + normal(self.seed + 4, c) / 8, normal(self.seed + 5, c))
        hidden = Dense(normal(self.seed + 6, c, f) / 8, normal(self.seed + 7, f))
        out = Dense(normal(self.seed + 8, f, c) / 8, normal(self.seed + 9, c))
        if self.name == "residual_dense":
            return (tokens, x, out), narrow
        if self.name.startswith("residual_dense_mlp"):
            first = Dense(normal(self.seed + 10, f, c) / 8, normal(self.seed + 11, c))
            return (tokens, x, (first, norm, Mlp(hidden, out))), narrow
        if self.name.startswith("residual_mlp"):
            return (tokens, norm, Mlp(hidden, out)), narrow
        return (tokens, norm, hidden), (wide, narrow) if self.name == "norm_dense_residual" else wide

    def ours(self, **options):
        def function(tokens, x, params):
            if self.name == "residual_dense":
                return dense.residual_dense(tokens, x, params, self.dtype, **options)
            if self.name.startswith("residual_dense_mlp"):
                return dense.residual_dense_mlp(tokens, x, *params, self.form, EPSILON, self.dtype, **options)
            if self.name.startswith("residual_mlp"):
                return dense.residual_mlp(tokens, x, params, self.form, EPSILON, self.dtype, **options)
            kinds = dict(out_dtype="float32", residual=self.name == "norm_dense_residual")
            return dense.norm_dense(tokens, x, params, EPSILON, self.dtype, **kinds, **options)

        return function

    def plain(self, tokens, x, params):
        if self.name == "residual_dense":
            return tokens + layers.dense(x, params, self.dtype)
        if self.name.startswith("residual_dense_mlp"):
            first, norm, mlp = params
            tokens = tokens + layers.dense(x, first, self.dtype)
            return tokens + layers.mlp(layers.layer_norm(tokens, norm, EPSILON), mlp, self.form, self.dtype)
        normal = layers.layer_norm(tokens, x, EPSILON)
        if self.name.startswith("residual_mlp"):
            return tokens + layers.mlp(normal, params, self.form, self.dtype)
        out = layers.dense(normal, params, self.dtype)
        return (out, tokens) if self.name == "norm_dense_residual" else out

    def reference(self, tokens, x, params, cotangent):
        """(value, cotangents of the arguments) in float64."""
        if self.name == "residual_dense":
            return tokens + reference.dense(x, params), (cotangent, *gradients.dense_vjp(x, params, cotangent))
        if self.name.startswith("residual_dense_mlp"):
            first, norm, mlp = params
            tokens = tokens + reference.dense(x, first)
            value = tokens + reference.mlp(reference.layer_norm(tokens, norm, EPSILON), mlp, self.form)
            through, norm, mlp = gradients.mlp_branch_vjp(tokens, norm, mlp, self.form, EPSILON, cotangent)
            through = through + cotangent
            x_cotangent, first = gradients.dense_vjp(x, first, through)
            return value, (through, x_cotangent, (first, norm, mlp))
        normal = reference.layer_norm(tokens, x, EPSILON)
        if self.name.startswith("residual_mlp"):
            value = tokens + reference.mlp(normal, params, self.form)
            through, norm, params = gradients.mlp_branch_vjp(tokens, x, params, self.form, EPSILON, cotangent)
            return value, (through + cotangent, norm, params)
        value, added = reference.dense(normal, params), 0.0
        if self.name == "norm_dense_residual":
            value, (cotangent, added) = (value, tokens), cotangent
        through, params = gradients.dense_vjp(normal, params, cotangent)
        through, norm = gradients.layer_norm_vjp(tokens, x, EPSILON, through)
        return value, (through + added, norm, params)


def value_and_gradient(function, arguments, cotangent):
    @partial(jax.jit, compiler_options=QUICKLY)
    def both(arguments, cotangent):
        value, pull = jax.vjp(function, *arguments)
        return value, pull(cotangent)

    return both(*jax.tree.map(jnp.asarray, (arguments, cotangent)))


def assert_accurate(problem: Problem, interpret=True, **options):
    arguments, cotangent = problem.arrays()
    actual, yardstick = (
        value_and_gradient(function, arguments, cotangent)
        for function in (problem.ours(interpret=interpret, **options), problem.plain)
    )
    expected = problem.reference(*jax.tree.map(np.float64, (*arguments, cotangent)))
    assert jax.tree.structure(actual) == jax.tree.structure(yardstick) == jax.tree.structure(expected)
    places = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(expected)]
    for place, *results in zip(places, *map(jax.tree.leaves, (actual, yardstick, expected)), strict=True):
        assert_as_accurate(*results, problem.dtype, f"{problem} {place}", depth=2)


@pytest.fixture
def native_operands(monkeypatch):
    """Operands in their own dtype, as on v4 and later."""
    monkeypatch.setattr(chip, "operand_dtype", np.dtype)


@pytest.mark.parametrize("name", ALL_NAMES)
@settings(max_examples=4)
@given(shape=st.sampled_from(SHAPES), dtype=st.sampled_from(DTYPES), seed=seeds)
def test_every_kernel_and_its_gradient_are_as_accurate_as_the_plain_formulation(name, shape, dtype, seed):
    assert_accurate(Problem(name, dtype, shape, seed))


@pytest.mark.parametrize("name", ALL_NAMES)
def test_operands_rounded_to_bfloat16_are_as_accurate(name, native_operands):
    assert_accurate(Problem(name, "bfloat16"))


@pytest.mark.fast
@pytest.mark.parametrize("name", ALL_NAMES)
def test_blocks_of_rows_and_tiles_of_columns_change_nothing(name):
    assert_accurate(Problem(name, shape=TILED), block_sizes=TILES)


def test_a_hidden_layer_whose_products_come_in_two_parts_is_as_accurate():
    assert dense.EARLY < 384
    assert_accurate(Problem("residual_mlp_tanh", shape=((1,), 9, 128, 384)))


@pytest.mark.fast
def test_the_end_of_a_layer_is_one_kernel_where_its_weights_fit(monkeypatch):
    problem = Problem("residual_dense_mlp_tanh")
    arguments, _ = problem.arrays()

    def kernels():
        return [call.name for call in calls(jax.make_jaxpr(problem.ours(interpret=True))(*arguments).jaxpr)]

    assert kernels() == ["residual_dense_mlp"]
    monkeypatch.setattr(chip, "vmem_bytes", lambda: 2**17)  # the three matrices take 122 KiB
    assert kernels() == ["residual_dense", "norm_dense", "residual_dense"]


def test_a_block_of_fewer_pieces_than_tiles_is_finished_once_from_memory_that_was_written():
    interpret = pltpu.InterpretParams(uninitialized_memory="nan", detect_races=True)
    assert_accurate(Problem("residual_mlp_tanh", shape=SHORT), interpret, block_sizes=TILES)


@pytest.mark.parametrize("name", ["norm_dense_residual", "residual_mlp_tanh", "residual_dense_mlp_erf"])
def test_weights_that_vmem_does_not_hold_come_in_tiles(name, monkeypatch):
    monkeypatch.setattr(chip, "vmem_bytes", lambda: 2**19)  # W of 128 x 384 in float32 takes 3/8 of it
    assert_accurate(Problem(name, shape=((2,), 37, 128, 384)))


@pytest.mark.fast
def test_rows_are_cut_into_equal_pieces_of_eights_unless_they_are_a_whole_sequence():
    sizes = DenseBlockSizes(rows=200)
    assert [tiling.blocks_of((1, 1000, 64), 1, 0, sizes, pieces).rows for pieces in (1, 4)] == [200, 6 * 32]
    assert tiling.blocks_of((1, 200, 64), 1, 0, sizes, pieces=4).rows == 200


@pytest.mark.fast
def test_a_block_is_as_many_rows_or_sequences_as_fit(monkeypatch):
    monkeypatch.setattr(chip, "vmem_bytes", lambda: 10_000)  # 9400 without the compiler's: 80 rows of 100 beside 1400
    assert tiling.blocks_of((1, 1000, 64), 100, 1400, DenseBlockSizes())[2:] == (1, 80)
    assert tiling.blocks_of((3, 16, 64), 100, 1400, DenseBlockSizes()) == (1, 3 * 16, 1, 48)  # as if of one sequence
    assert tiling.blocks_of((6, 9, 64), 100, 1400, DenseBlockSizes()) == (6, 9, 3, 16)
    assert tiling.blocks_of((6, 12, 64), 100, 1400, DenseBlockSizes())[2:] == (3, 16)  # five would not divide six
    assert tiling.blocks_of((1, 4104, 64), 1, 0, DenseBlockSizes())[2:] == (1, 4104 / 9)  # at most 512


@pytest.mark.fast
def test_rows_fit_in_vmem_to_the_last_byte(monkeypatch):
    monkeypatch.setattr(chip, "vmem_bytes", lambda: 10_000)  # of which 6 % are the compiler's
    for shape, rows in (((2, 3, 64), 2 * 8), ((1, 1000, 64), 200)):
        free = 9400 - 10 * rows
        assert [tiling.fits(shape, 10, fixed, DenseBlockSizes()) for fixed in (free, free + 1)] == [True, False]


@pytest.mark.parametrize("name", ALL_NAMES)
def test_an_empty_batch_gives_an_empty_result(name):
    problem = Problem(name, shape=((0, 3), 5, 30, 17))
    arguments, cotangent = problem.arrays()
    value, cotangents = value_and_gradient(problem.ours(interpret=True), arguments, cotangent)
    expected = jax.eval_shape(problem.plain, *arguments)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), value) == jax.tree.map(lambda x: (x.shape, x.dtype), expected)
    assert not any(leaf.any() for leaf in jax.tree.leaves(cotangents))


@pytest.mark.parametrize("name", ALL_NAMES)
def test_memory_that_nobody_wrote_reaches_no_result(name):
    shape = ((2, 3), 7, 80, 130)  # not whole tiles in any direction
    assert_accurate(Problem(name, shape=shape), pltpu.InterpretParams(uninitialized_memory="nan", detect_races=True))


def test_the_weights_of_one_layer_are_cast_where_they_lie():
    """In steps of rows, of which the last hangs over the end; nothing is read beyond the array."""
    weights = normal(0, 3, 2 * dense.CAST_ROWS + 9, 130)
    options = dense.DenseOptions("bfloat16", TILES, interpret=pltpu.InterpretParams(uninitialized_memory="nan"))
    cast = dense._cast(Slice(jnp.asarray(weights), jnp.int32(1)), jnp.dtype("bfloat16"), options)
    np.testing.assert_array_equal(cast, weights[1].astype("bfloat16"))


@pytest.mark.parametrize("name", NAMES)
def test_vmap_over_clips_and_weights_is_one_clip_after_another(name):
    problems = [Problem(name, seed=seed) for seed in (0, 20)]
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *(problem.arrays() for problem in problems))
    function = problems[0].ours(interpret=True)
    together = jax.vmap(lambda arguments, cotangent: value_and_gradient(function, arguments, cotangent))(*stacked)
    for i, problem in enumerate(problems):
        alone = value_and_gradient(function, *problem.arrays())
        for one, many in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(many[i], one, rtol=0, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_same_under_checkpoint_in_a_scan(name):
    problem = Problem(name)
    (tokens, *rest), _ = problem.arrays()

    def loss(tokens, wrap):
        def step(z, _):
            return z + wrap(problem.ours(interpret=True))(z, *rest)[0].sum() / 99, None

        return jax.lax.scan(step, tokens, None, length=2)[0].sum()

    def gradient(wrap):
        return jax.jit(partial(jax.grad(loss), wrap=wrap), compiler_options=QUICKLY)(jnp.asarray(tokens))

    ours, same = gradient(jax.checkpoint), gradient(lambda function: function)
    np.testing.assert_allclose(ours, same, rtol=0, atol=1e-6 * np.abs(same).max())


@pytest.mark.parametrize("name", NAMES)
def test_cotangents_have_the_dtypes_of_their_arguments(name):
    (tokens, x, params), cotangent = Problem(name).arrays()
    if name.startswith("residual_dense"):
        x = jnp.asarray(x, "bfloat16")
    arguments = tokens, x, jax.tree.map(lambda leaf: jnp.asarray(leaf, "bfloat16"), params)
    _, cotangents = value_and_gradient(Problem(name).ours(interpret=True), arguments, cotangent)
    assert jax.tree.map(lambda leaf: leaf.dtype, cotangents) == jax.tree.map(lambda leaf: leaf.dtype, arguments)
