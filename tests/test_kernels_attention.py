"""The attention kernels beyond tests/test_conformance.py: dropout, other heads, NaN, mapping, sharding, memory.

All run in Pallas's interpreter on a CPU, or in its simulation of a TPU's memory.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cores import SMALL_BLOCKS, Problem, assert_accurate, expectation, problems, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec
from strategies import CORE_FAULTS, CORES, DTYPES, mostly_thorough, normal

from vivit import attention as xla
from vivit.conformance.quickly import QUICKLY
from vivit.kernels import attention as kernels
from vivit.kernels.attention import BlockSizes
from vivit.kernels.heads import head_layout
from vivit.numerics.hash_dropout import Dropout
from vivit.reference import attention as reference

# b t s heads d: one token; tile edges; primes, and heads for several windows; a sequence above 8
SIZES = ((1, 1, 1, 2, 5), (2, 3, 8, 2, 64), (1, 3, 11, 4, 64), (1, 2, 47, 2, 64))
# model 4's attention is spatial on one half of the heads and temporal on the other
SOME_CORES = mostly_thorough(CORES, "joint", "spatial", "temporal")
SIMULATED = pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan", out_of_bounds_reads="uninitialized")


SCALES = (1.0, 100.0, 300.0)  # scores of some units, 10⁴, 10⁵
BLOCK_SIZES = (None, BlockSizes(windows=1), SMALL_BLOCKS)


@pytest.mark.parametrize("core", SOME_CORES)
@settings(max_examples=5)
@given(problem=problems(SIZES, SCALES), dtype=st.sampled_from(DTYPES), block_sizes=st.sampled_from(BLOCK_SIZES))
def test_every_kernel_and_its_gradient_under_dropout_are_as_accurate_as_the_plain_formulation(
    core, problem, dtype, block_sizes
):
    options = dict(operands=dtype, interpret=True, block_sizes=block_sizes)
    assert_accurate(kernels, core, dtype, *problem.drawn(core), **options)


@pytest.mark.fast
@pytest.mark.parametrize("scale", [5.0, 30.0, 100.0, 300.0])
def test_beyond_512_tokens_gradients_are_at_most_twice_as_far_off_as_xlas(scale):
    qkv, out, heads, options = Problem((1, 1, 513, 1, 64), seed=4).arrays("joint")
    qkv[..., : 2 * heads * 64] *= scale
    options = {"mask": None, "dropout": None}
    _, exact = expectation("joint", np.float64(qkv), np.float64(out), heads, options)
    errors = []
    for module, keywords in ((kernels, {"precision": "highest", "interpret": True}), (xla, {})):
        _, found = value_and_gradient(module, "joint", "float32", qkv, out, heads, options, **keywords)
        parts = zip(np.split(np.float64(found), 3, axis=-1), np.split(exact, 3, axis=-1), strict=True)
        errors.append([np.abs(one - other).max() / np.abs(other).max() for one, other in parts])
    for ours, theirs in zip(*errors, strict=True):
        assert ours <= 2 * theirs + np.finfo(np.float32).eps


@pytest.mark.fast
def test_a_query_that_sees_one_of_long_sequences_keys_only_has_no_gradient():
    qkv, out, heads, _ = Problem((1, 1, 144, 1, 64), seed=5).arrays("joint")
    qkv[..., :64] *= 100
    qkv[..., 64:128] = qkv[..., :64]  # scores of 10⁴ and more with itself alone
    options = {"mask": None, "dropout": None}
    exact = dict(precision="highest", interpret=True, block_sizes=SMALL_BLOCKS)
    _, found = value_and_gradient(kernels, "joint", "float32", qkv, out, heads, options, **exact)
    assert not np.asarray(found)[..., :128].any()
    np.testing.assert_allclose(found[..., 128:], out, rtol=1e-6)


def poisoned(core, poison, seed=0):
    """(qkv, cotangent, heads, mask) of which `poison` has changed what it wants, given in [b t s ..]."""
    qkv, out, heads, options = Problem((1, 3, 11, 2, 64), seed=seed, masked=0.3).arrays("spatial")
    mask = options["mask"]
    poison(qkv, out, mask)
    if core == "joint":
        qkv, out, mask = (part.reshape(1, 33, *part.shape[3:]) for part in (qkv, out, mask))
    return qkv, out, heads, mask


@pytest.mark.parametrize("block_sizes", [None, SMALL_BLOCKS])
@pytest.mark.parametrize("core", SOME_CORES)
@settings(max_examples=4)
@given(value=st.sampled_from((np.nan, np.inf)), t=st.integers(0, 2), s=st.integers(0, 10), seed=st.integers(0, 99))
def test_what_is_not_finite_stays_in_its_place_as_in_the_reference(core, block_sizes, value, t, s, seed):
    def fill(qkv, out, mask):
        mask[:] = True
        qkv[0, t, s] = value

    qkv, out, heads, _ = poisoned(core, fill, seed)
    options = {"mask": None, "dropout": None}
    with np.errstate(invalid="ignore"):
        exact = expectation(core, np.float64(qkv), np.float64(out), heads, options)
    for module, keywords in ((kernels, {"interpret": True, "block_sizes": block_sizes}), (xla, {})):
        found = value_and_gradient(module, core, "float32", qkv, out, heads, options, **keywords)
        for one, other in zip(found, exact, strict=True):
            finite = np.isfinite(other)
            assert np.array_equal(np.isfinite(one), finite)
            np.testing.assert_allclose(np.asarray(one)[finite], other[finite], rtol=0, atol=1e-5)


def assert_finite_as_the_reference(core, poison):
    """Returns the reference's result."""
    qkv, _, heads, _ = poisoned(core, poison)
    with np.errstate(invalid="ignore"):
        exact = getattr(reference, core)(np.float64(qkv), heads)
    found = np.asarray(getattr(kernels, core)(jnp.asarray(qkv), heads, interpret=True))
    assert np.array_equal(np.isfinite(found), np.isfinite(exact))
    return exact


@pytest.mark.parametrize("operand", ["query", "key", "value"])
@pytest.mark.parametrize("core", ["spatial", "temporal"])
def test_a_channel_that_is_not_finite_leaves_the_values_of_other_heads_alone(core, operand):
    def fill(qkv, out, mask):
        qkv[0, 1, 2, 5 + 128 * ["query", "key", "value"].index(operand)] = np.nan

    assert_finite_as_the_reference(core, fill)


@pytest.mark.fast
@pytest.mark.parametrize("core", ["spatial", "temporal"])
def test_a_query_whose_scores_are_all_minus_infinity_has_no_finite_result(core):
    def fill(qkv, out, mask):
        qkv[0, 1, 2, 0] = np.inf
        qkv[..., 128] = -1.0  # of every key

    exact = assert_finite_as_the_reference(core, fill)
    assert not np.isfinite(exact[0, 1, 2, :64]).any()


@pytest.mark.parametrize("core", CORES)
def test_an_empty_batch_gives_an_empty_result(core):
    shape = (0, 5) if core == "joint" else (0, 3, 5)
    function = partial(getattr(kernels, core), heads=2, interpret=True)
    for dtype in DTYPES:
        value, pull = jax.vjp(function, jnp.zeros((*shape, 24), dtype))
        assert (value.shape, value.dtype) == ((*shape, 8), dtype)
        assert pull(value)[0].shape == (*shape, 24)
        assert getattr(xla, core)(jnp.zeros((*shape, 24), dtype), 2).shape == (*shape, 8)


@pytest.mark.parametrize(("heads", "channels"), mostly_thorough([(2, 128), (3, 80), (2, 30), (1, 256)], (3, 80)))
def test_heads_of_other_sizes_are_as_accurate(heads, channels):
    problem = Problem((1, 2, 7, heads, channels), masked=0.3, dropped=0.25)
    assert_accurate(kernels, "spatial", "float32", *problem.drawn("spatial"), interpret=True)


@pytest.mark.fast
@pytest.mark.parametrize(("size", "lanes"), [(5, 32), (64, 64), (80, 128), (130, 256), (256, 256)])
def test_a_head_takes_a_part_of_a_window_or_whole_ones(size, lanes):
    layout = head_layout(3 * size, 3)
    assert (layout.d, layout.width, layout.channels) == (lanes, max(lanes, 128), -(-3 * lanes // 128) * 128)


@pytest.mark.fast
@pytest.mark.parametrize("core", CORES[:3])
def test_bfloat16_is_as_accurate_where_the_matrix_unit_takes_float32(core):
    qkv, out, heads, _ = Problem((2, 3, 5, 2, 64)).arrays(core)
    options = {"mask": None, "dropout": None}
    assert_accurate(kernels, core, "bfloat16", qkv, out, heads, options, operands="float32", interpret=True)


@pytest.mark.fast
@pytest.mark.parametrize("core", CORES)
def test_no_kernel_reads_memory_that_nobody_wrote_and_none_races(core):
    problem = Problem((1, 2, 11, 2, 64), masked=0.3, dropped=0.3).drawn(core)
    assert_accurate(kernels, core, "float32", *problem, operands="float32", interpret=SIMULATED)
    assert not races_found()


def test_no_kernel_for_long_sequences_reads_memory_that_nobody_wrote():
    qkv, out, heads, _ = Problem((1, 1, 144, 2, 64)).arrays("joint")  # whole blocks of queries, the last keys hang over
    options = {"mask": None, "dropout": None}
    simulated = dict(operands="float32", interpret=SIMULATED, block_sizes=SMALL_BLOCKS)
    assert_accurate(kernels, "joint", "float32", qkv, out, heads, options, **simulated)
    assert not races_found()


def test_no_kernel_for_long_sequences_reads_what_is_masked_or_beyond_its_mask_and_seeds():
    qkv, out, heads, options = Problem((1, 1, 24, 2, 64), masked=0.3, dropped=0.3).drawn("joint")
    simulated = dict(interpret=SIMULATED, block_sizes=SMALL_BLOCKS)
    clean = value_and_gradient(kernels, "joint", "float32", qkv, out, heads, options, **simulated)
    interpreted = value_and_gradient(kernels, "joint", "float32", qkv, out, heads, options, interpret=True)
    qkv[np.logical_not(options["mask"]), 128:] = np.nan  # keys and values
    poisoned = value_and_gradient(kernels, "joint", "float32", qkv, out, heads, options, **simulated)
    for one, other, same in zip(clean, interpreted, poisoned, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())
        np.testing.assert_array_equal(one, same)


def races_found() -> bool:
    """Whether the simulation has seen two accesses that nothing orders; JAX keeps this in a private module."""
    from jax._src.pallas.mosaic.interpret import interpret_pallas_call

    return interpret_pallas_call.races.races_found


@pytest.mark.parametrize("core", SOME_CORES)
def test_dropout_drawn_in_a_kernel_is_the_one_that_xla_draws(core):
    qkv, out, heads, _ = Problem((2, 3, 5, 4, 7), seed=3).arrays(core)
    drawn = Dropout(jax.random.randint(jax.random.key(6), (2, heads, 2), -(2**31), 2**31 - 1), 0.4)
    options = {"mask": None, "dropout": drawn}
    ours, theirs = (
        value_and_gradient(module, core, "float32", qkv, out, heads, options, **keywords)
        for module, keywords in ((kernels, {"interpret": True}), (xla, {}))
    )
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


@pytest.mark.parametrize("core", CORES)
def test_steps_of_some_windows_and_eight_positions_draw_the_dropout_of_their_own(core):
    """19 positions are two whole blocks and three more; four windows of heads, two in each half of model 4."""
    problem = Problem((1, 3, 19, 8, 64), masked=0.3, dropped=0.3)
    windows = 1 if core == "factorised_dot_product" else 2
    cut = dict(interpret=True, block_sizes=BlockSizes(windows=windows, positions=8))
    assert_accurate(kernels, core, "float32", *problem.drawn(core), operands="float32", **cut)


@pytest.mark.parametrize("core", ["spatial", "temporal"])
def test_a_loop_over_windows_knows_its_place_in_the_grid(core):
    """Twelve heads of 64, as in ViViT-B, are six windows: the backward pass takes three at a time."""
    problem = Problem((1, 2, 11, 12, 64), masked=0.3, dropped=0.3)
    assert_accurate(kernels, core, "float32", *problem.drawn(core), operands="float32", interpret=True)


@pytest.mark.fast
def test_the_public_names_are_there():
    assert {*kernels.__all__} == {*CORES, "BlockSizes", "Keywords"}
    assert all(hasattr(kernels, name) for name in kernels.__all__)


@pytest.mark.parametrize("core", SOME_CORES)
def test_kernels_can_be_mapped_over_another_axis(core):
    qkv, out, heads, _ = Problem((6, 3, 5, 4, 32)).arrays(core)
    quickly = partial(jax.jit, compiler_options=QUICKLY)

    def both(qkv, out):
        value, pull = jax.vjp(partial(getattr(kernels, core), heads=heads, interpret=True), qkv)
        return value, *pull(out)

    stacked = [x.reshape(2, 3, *x.shape[1:]) for x in (qkv, out)]
    mapped, plain = quickly(jax.vmap(both))(*stacked), quickly(both)(jnp.asarray(qkv), jnp.asarray(out))
    for actual, expected in zip(mapped, plain, strict=True):
        np.testing.assert_allclose(actual.reshape(expected.shape), expected, rtol=0, atol=1e-6)


def test_kernels_can_be_scanned_and_rematerialised():
    tokens = jnp.asarray(normal(1, 1, 2, 5, 64))
    kernel = jnp.asarray(normal(2, 3, 64, 192)) / 8

    def loss(core, tokens, kernel):
        def step(tokens, kernel):
            return tokens + core(jnp.einsum("btsc,cf->btsf", tokens, kernel), 2), None

        return jnp.square(jax.lax.scan(jax.checkpoint(step), tokens, kernel)[0]).sum()

    ours, theirs = (
        jax.jit(jax.grad(partial(loss, core), argnums=(0, 1)), compiler_options=QUICKLY)(tokens, kernel)
        for core in (partial(kernels.spatial, interpret=True), xla.spatial)
    )
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * float(jnp.abs(other).max()))


@pytest.mark.parametrize("core", ["spatial", "temporal"])
def test_kernels_can_be_sharded_over_batch_and_heads(core):
    b, t, s, heads, d = 2, 3, 5, 4, 64
    axes = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((2, 2), ("b", "h"), axes, devices=jax.devices()[:4])
    qkv = jnp.asarray(normal(1, b, t, s, 3, heads * d))
    seeds = jax.random.randint(jax.random.key(6), (b, heads, 2), -(2**31), 2**31 - 1)

    def run(qkv, seeds):
        fused = qkv.reshape(*qkv.shape[:3], 3 * qkv.shape[4])
        return getattr(kernels, core)(fused, seeds.shape[1], dropout=Dropout(seeds, 0.3), interpret=True)

    wide, narrow = PartitionSpec("b", None, None, None, "h"), PartitionSpec("b", None, None, "h")
    sharded = jax.shard_map(run, mesh=mesh, in_specs=(wide, PartitionSpec("b", "h")), out_specs=narrow, check_vma=False)

    def both(function):
        value, pull = jax.vjp(lambda qkv: function(qkv, seeds), qkv)
        return value, pull(jnp.cos(value))[0]

    quickly = partial(jax.jit, compiler_options=QUICKLY)
    for one, other in zip(quickly(partial(both, sharded))(), quickly(partial(both, run))(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


@pytest.mark.fast
@pytest.mark.parametrize(("core", "shape", "heads", "mask", "message"), CORE_FAULTS)
def test_what_does_not_fit_is_refused_in_one_line(core, shape, heads, mask, message):
    with pytest.raises(ValueError, match=message):
        getattr(kernels, core)(jnp.zeros(shape), heads, mask=None if mask is None else jnp.ones(mask, bool))


def test_other_dtypes_and_precisions_are_refused():
    with pytest.raises(ValueError, match="qkv has dtype float16: it must be float32 or bfloat16"):
        kernels.joint(jnp.zeros((1, 2, 6), jnp.float16), 1)
    with pytest.raises(ValueError, match="precision is 'high': it must be None or 'highest'"):
        kernels.joint(jnp.zeros((1, 2, 6)), 1, precision="high")


def test_dropout_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"dropout has seeds \[1, 3, 2\]: they must be \[1, 2, 2\]"):
        kernels.joint(jnp.zeros((1, 2, 12)), 2, dropout=Dropout(jnp.zeros((1, 3, 2), jnp.int32), 0.1))
