"""Production's dropout: equals the reference for the same multipliers, and has the documented statistics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accuracy import assert_as_accurate
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import MODELS, mostly_thorough, random_params, small, video

import vivit
from vivit import dropout
from vivit.audit import baseline
from vivit.audit.bound import depth_of
from vivit.conformance.quickly import QUICKLY
from vivit.dropout import Rates
from vivit.numerics.hash_dropout import Dropout, dropout_shard, keep, multipliers
from vivit.reference import models as reference

pytestmark = pytest.mark.usefixtures("compiled_quickly")

draw = jax.jit(dropout.draw, static_argnames=("config", "rates", "batch"), compiler_options=QUICKLY)

RATES = {"dropout": 0.2, "attention_dropout": 0.3, "stochastic_depth": 0.5}


@pytest.mark.parametrize(
    ("model", "rescale"),
    mostly_thorough([*((model, False) for model in MODELS), (MODELS[1], True)], (MODELS[1], True), (MODELS[2], False)),
)
def test_production_drops_what_the_reference_drops_with_the_same_multipliers(model, rescale):
    config = small(model, layers=3)
    params, clips = random_params(config), video(config, 0, batch=3)
    rng = jax.random.key(7)
    drops = draw(rng, config, Rates(**RATES, rescale_depth=rescale), 3)
    on_device = jax.tree.map(jnp.asarray, params)
    logits = vivit.forward(on_device, clips, config, rng=rng, **RATES, rescale_depth=rescale)
    yardstick = baseline.forward(on_device, clips, config, drops=drops)
    expected = reference.forward(params, clips, config, drops=jax.tree.map(np.float64, drops))
    assert_as_accurate(logits, yardstick, expected, "float32", depth=depth_of(config))
    assert np.abs(logits - vivit.forward(on_device, clips, config)).max() > 0.1


@pytest.mark.parametrize("model", MODELS)
def test_every_attention_of_every_model_has_its_multipliers(model):
    config = small(model, layers=3)
    drops = jax.eval_shape(partial(dropout.draw, config=config, rates=Rates(**RATES), batch=2), jax.random.key(7))
    kept = jax.tree.map(lambda each: np.ones(each.shape), drops)
    forward = partial(reference.forward, random_params(config), video(config, 0), config)
    assert np.array_equal(forward(drops=kept), forward())
    blocks, time, space = drops.encoder.blocks, config.grid[0], config.grid[1] * config.grid[2]
    if model == "factorised_dot_product":
        shapes = [(3, 2, space, config.heads // 2, time, time), (3, 2, time, config.heads // 2, space, space)]
        assert [each.shape for each in blocks.attention.weights] == shapes


def test_without_a_key_or_without_rates_nothing_is_dropped():
    config = small("factorised_encoder")
    params, clips = jax.tree.map(jnp.asarray, random_params(config)), video(config, 1)
    expected = vivit.forward(params, clips, config)
    assert np.array_equal(vivit.forward(params, clips, config, **RATES), expected)
    assert np.array_equal(vivit.forward(params, clips, config, rng=jax.random.key(0)), expected)


def test_the_same_key_drops_the_same_and_another_key_something_else():
    config = small("factorised_self_attention")
    params, clips = jax.tree.map(jnp.asarray, random_params(config)), video(config, 2)
    first, again, other = (vivit.forward(params, clips, config, rng=jax.random.key(k), **RATES) for k in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("model", mostly_thorough(MODELS, MODELS[1], MODELS[2]))
def test_stochastic_depth_grows_linearly_and_is_independent_for_every_example_branch_and_frame(model):
    config = small(model, layers=5)
    drops = draw(jax.random.key(5), config, Rates(stochastic_depth=0.8), 4000).encoder.blocks
    depths = [np.asarray(branch.depth) for branch in drops]
    sequences = (4000, 3) if model == "factorised_encoder" else (4000,)  # frames are sequences there
    for depth in depths:
        assert depth.shape[: 1 + len(sequences)] == (5, *sequences)
        assert set(depth[:, 0].ravel()) | set(depth[4].ravel()) == {0.0, 1.0}  # the published form: not rescaled
        kept = depth.reshape(5, -1).mean(axis=1)
        np.testing.assert_allclose(kept, 1 - 0.8 * np.arange(5) / 4, atol=0.03)
    pairs = [(depths[0][2].ravel(), depths[1][2].ravel())]  # two branches of a layer
    pairs += [(depths[0][2].ravel(), depths[0][3].ravel())]  # two layers
    pairs += [(depths[0][2, ::2].ravel(), depths[0][2, 1::2].ravel())]  # two examples
    if model == "factorised_encoder":
        pairs += [(depths[0][2, :, 0].ravel(), depths[0][2, :, 1].ravel())]  # two frames
    for one, other in pairs:
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.06


def hashed(first, second, place):
    """The 24 bits that decide whether a weight is kept, in Python's own integers."""
    x = (place * 0x9E3779B1 + first) % 2**32
    x = (x ^ x >> 16) * 0x7FEB352D % 2**32
    x = ((x ^ x >> 15) + second) % 2**32
    x = (x ^ x >> 16) * 0x846CA68B % 2**32
    return (x ^ x >> 15) >> 8


@settings(max_examples=100)
@given(first=st.integers(-(2**31), 2**31 - 1), second=st.integers(-(2**31), 2**31 - 1), place=st.integers(0, 2**31 - 1))
@example(first=0, second=0, place=0)
def test_a_weight_is_kept_from_exactly_its_share_on(first, second, place):
    share = hashed(first, second, place)
    operands = (np.int32(first), np.int32(second)), np.int32(place)

    def multiplier(rate):
        return float(keep(*operands, rate))

    with np.errstate(over="ignore"):  # NumPy's scalars tell that the hash wraps round
        assert multiplier(0.0) == 1.0
        assert multiplier(share / 2**24) == np.float32(1 / (1 - share / 2**24))
        if share + 1 < 2**24:
            assert multiplier((share + 1) / 2**24) == 0.0


@pytest.mark.fast
def test_a_shard_draws_the_multipliers_of_its_part():
    drawn = Dropout(jax.random.randint(jax.random.key(6), (2, 4, 2), -(2**31), 2**31 - 1), 0.4)
    part = multipliers(dropout_shard(drawn, 3, 5, 5), 2, 5, 5)
    assert np.array_equal(part, multipliers(drawn, 6, 5, 5)[:, 3:5])


def test_the_key_of_each_clip_is_split_by_itself():
    keys = jax.random.split(jax.random.key(9), 4)
    parts = dropout.split(keys, 3)
    assert parts.shape == (3, 4)
    for clip, key in enumerate(keys):
        assert np.array_equal(jax.random.key_data(parts[:, clip]), jax.random.key_data(jax.random.split(key, 3)))


@pytest.mark.parametrize("field", ["dropout", "attention_dropout", "stochastic_depth"])
def test_a_rate_is_at_least_0_and_below_1(field):
    assert getattr(Rates(**{field: 0}), field) == 0
    for rate in (1, -0.1, "0"):
        with pytest.raises(ValueError, match=f"{field} is '?{rate}'?: it must be a number from 0 up to, not including"):
            Rates(**{field: rate})


def test_rescaled_stochastic_depth_keeps_the_mean():
    config = small("spatio_temporal", layers=3)
    depth = draw(jax.random.key(6), config, Rates(stochastic_depth=0.5, rescale_depth=True), 4000).encoder.blocks
    np.testing.assert_allclose(np.asarray(depth.mlp.depth).reshape(3, -1).mean(axis=1), 1, atol=0.06)


@pytest.mark.parametrize("model", mostly_thorough(MODELS, MODELS[1], MODELS[2]))
def test_dropout_is_independent_for_every_frame_example_and_layer(model):
    config = small(model, layers=2)
    drops = draw(jax.random.key(8), config, Rates(dropout=0.5, attention_dropout=0.5), 32).encoder
    masks = [drops.tokens, drops.blocks.mlp.hidden, drops.blocks.mlp.out]
    for mask in map(np.asarray, masks):
        np.testing.assert_allclose((mask > 0).mean(), 0.5, atol=0.02)
        assert set(np.unique(mask)) == {0.0, 2.0}
    hidden = np.asarray(masks[1])
    assert abs(np.corrcoef(hidden[0].ravel(), hidden[1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(hidden[0, ::2].ravel(), hidden[0, 1::2].ravel())[0, 1]) < 0.02
    if hidden.ndim == 5:  # [l b t s f]
        assert abs(np.corrcoef(hidden[0, :, 0].ravel(), hidden[0, :, 1].ravel())[0, 1]) < 0.03


def test_gradients_flow_through_what_is_kept():
    config = small("factorised_dot_product", layers=2)
    params, clips = jax.tree.map(jnp.asarray, random_params(config)), video(config, 9)

    @partial(jax.jit, static_argnames="remat", compiler_options=QUICKLY)
    @jax.grad
    def gradient(params, remat):
        return jnp.square(vivit.forward(params, clips, config, rng=jax.random.key(1), remat=remat, **RATES)).sum()

    gradients = [gradient(params, remat=remat) for remat in ("none", "lean")]
    for stored, recomputed in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(stored, recomputed, rtol=1e-4, atol=1e-4 * np.abs(stored).max())
        assert np.abs(stored).max() > 0
