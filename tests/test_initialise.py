"""Fresh parameters: shapes, dtypes and the distributions that the published code draws from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategies import MODELS, small, video

import vivit
from vivit.conformance.quickly import QUICKLY
from vivit.reference.params import check, leaves

pytestmark = pytest.mark.usefixtures("compiled_quickly")

WIDE = {"channels": 240, "heads": 4, "temporal_heads": 4, "hidden": 330, "temporal_hidden": 330}


@pytest.mark.parametrize("model", MODELS)
def test_every_leaf_has_the_configs_shape_and_is_float32(model):
    config = small(model, representation=23)
    params = vivit.init(jax.random.key(0), config)
    check(params, config)
    assert all(leaf.dtype == jnp.float32 for _, leaf in leaves(params))


def test_the_same_key_gives_the_same_parameters_and_leaves_and_layers_differ():
    config = small("factorised_self_attention", **WIDE)
    params, again = (vivit.init(jax.random.key(1), config) for _ in range(2))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, params, again)))
    attention = params.encoder.blocks.time_attention.qkv.kernel
    assert not np.array_equal(attention[0], attention[1])
    assert not np.array_equal(attention, params.encoder.blocks.space_attention.qkv.kernel)


def test_leaves_are_drawn_from_the_published_distributions():
    config = small("spatio_temporal", **WIDE, representation=200)
    params = vivit.init(jax.random.key(2), config)
    blocks = params.encoder.blocks
    for kernel, fans in (
        (blocks.attention.qkv.kernel, 240 + 240),  # query, key and value each by itself
        (blocks.attention.out.kernel, 240 + 240),
        (blocks.mlp.hidden.kernel, 240 + 330),
        (blocks.mlp.out.kernel, 330 + 240),
    ):
        limit = np.sqrt(6 / fans)
        assert 0.999 * limit < np.abs(kernel).max() <= limit
        assert np.std(kernel) == pytest.approx(limit / np.sqrt(3), rel=0.01)
    assert np.std(params.embedding.kernel) == pytest.approx(1 / np.sqrt(2 * 3 * 7 * 3), rel=0.02)
    assert np.abs(params.embedding.kernel).max() < 2 / 0.87 / np.sqrt(2 * 3 * 7 * 3)
    assert np.std(params.representation.kernel) == pytest.approx(1 / np.sqrt(240), rel=0.02)
    assert np.std(params.encoder.positions) == pytest.approx(0.02, rel=0.05)
    assert np.std(blocks.mlp.hidden.bias) == pytest.approx(1e-6, rel=0.1)
    biases = (params.embedding.bias, blocks.attention.qkv.bias, blocks.mlp_norm.bias)
    zeros = (params.head, params.encoder.class_token, biases)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(zeros))
    assert all(np.all(norm.scale == 1) for norm in (blocks.attention_norm, blocks.mlp_norm, params.encoder.norm))


@pytest.mark.parametrize("model", MODELS)
def test_a_new_model_gives_zero_logits_and_a_live_head(model):
    config = small(model)
    params = vivit.init(jax.random.key(3), config)

    def loss(params):
        return jnp.square(vivit.forward(params, video(config, 0), config) - 1).sum()

    value, gradient = jax.jit(jax.value_and_grad(loss), compiler_options=QUICKLY)(params)
    assert float(value) == 2 * 24
    assert np.abs(gradient.head.kernel).max() > 0


def test_initialisation_works_under_jit_and_by_shape_alone():
    config = small("factorised_encoder")
    params = jax.jit(vivit.init, static_argnums=1)(jax.random.key(4), config)
    check(params, config)
    check(jax.eval_shape(lambda key: vivit.init(key, config), jax.random.key(4)), config)
