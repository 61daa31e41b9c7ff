"""The optimisers against a few lines of NumPy; what is decayed, frozen and slowed down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategies import MODELS, random_params, small
from training import STEPS, small_recipe

from vivit.reference.params import leaves
from vivit.training.optimiser import decayed, frozen, layer_multipliers, learning_rate, optimiser
from vivit.training.recipe import Steps

CONFIG = small("factorised_encoder")  # 3 spatial layers, 2 temporal


def test_the_schedule_is_the_published_one():
    rate = learning_rate(small_recipe(learning_rate=0.4), Steps(40, 10))
    s = np.arange(41)
    expected = 0.4 * np.minimum(1, s / 10) * 0.5 * (1 + np.cos(np.pi * np.maximum(0, s - 10) / 30))
    np.testing.assert_allclose([rate(int(step)) for step in s], expected, rtol=1e-6, atol=1e-7)
    assert learning_rate(small_recipe(learning_rate=0.4), Steps(40, 0))(0) == np.float32(0.4)


def updated(recipe, gradients):
    params = jax.tree.map(jnp.asarray, random_params(CONFIG, 3))
    chain = optimiser(recipe, CONFIG, STEPS)
    state = chain.init(params)
    update = jax.jit(chain.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = jax.tree.map(np.add, params, updates)
    return dict(leaves(params)), state


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_updates_are_as_defined(name):
    recipe = small_recipe(optimiser=name, weight_decay=0.1, clip_norm=0.5)
    gradients = [jax.tree.map(jnp.asarray, random_params(CONFIG, seed)) for seed in (4, 5, 6)]
    actual, _ = updated(recipe, gradients)
    expected = {path: np.asarray(leaf, np.float64) for path, leaf in leaves(random_params(CONFIG, 3))}
    first, second = (dict.fromkeys(expected, 0) for _ in range(2))
    for step, gradient in enumerate(gradients):
        rate = float(learning_rate(recipe, STEPS)(step))
        gradient = {path: np.asarray(leaf, np.float64) for path, leaf in leaves(gradient)}
        norm = np.sqrt(sum((leaf**2).sum() for leaf in gradient.values()))
        for path, leaf in gradient.items():
            leaf = leaf * min(1, 0.5 / norm)
            decay = 0.1 * expected[path] if path.endswith("/kernel") else 0
            if name == "sgd":
                first[path] = 0.9 * first[path] + leaf + decay
                expected[path] = expected[path] - rate * first[path]
                continue
            first[path] = 0.9 * first[path] + 0.1 * leaf
            second[path] = 0.999 * second[path] + 0.001 * leaf**2
            unbiased = first[path] / (1 - 0.9 ** (step + 1)), second[path] / (1 - 0.999 ** (step + 1))
            expected[path] = expected[path] - rate * (unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8) + decay)
    for path, leaf in expected.items():
        np.testing.assert_allclose(actual[path], leaf, rtol=1e-5, atol=1e-5, err_msg=path)


def test_kernels_alone_are_decayed():
    chosen = dict(leaves(decayed(random_params(CONFIG))))
    assert chosen["encoder/blocks/attention/qkv/kernel"]
    assert not any(chosen[path] for path in chosen if not path.endswith("kernel"))
    assert not chosen["encoder/positions"]


def test_what_is_frozen_stays_and_has_no_state():
    recipe = small_recipe(optimiser="adamw", freeze=("embedding/*", "encoder/blocks/*"), weight_decay=0.1)
    params, state = updated(recipe, [jax.tree.map(jnp.asarray, random_params(CONFIG, seed)) for seed in (4, 5)])
    for path, leaf in leaves(random_params(CONFIG, 3)):
        stays = path.startswith(("embedding/", "encoder/blocks/"))
        assert np.array_equal(params[path], leaf) == stays, path
    held = sum(leaf.size for leaf in jax.tree.leaves(state))
    trained = sum(leaf.size for path, leaf in params.items() if not path.startswith(("embedding/", "encoder/blocks/")))
    assert 2 * trained <= held <= 2 * trained + 4


@pytest.mark.parametrize(
    ("pattern", "left"), [("^(?!head/)", ["head/kernel", "head/bias"]), ("*kernel", None), ("^.*/bias$", None)]
)
def test_patterns_are_globs_or_regular_expressions(pattern, left):
    paths = [path for path, stays in leaves(frozen(CONFIG, (pattern,))) if not stays]
    if left is not None:
        assert paths == left
    else:
        assert paths
        assert not any(path.endswith(pattern.strip("^.*/$")) for path in paths)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("decoder/*",), "freeze has 'decoder/\\*': it must match a leaf, such as embedding/kernel or head/bias"),
        (("*",), "it must leave at least one leaf to train"),
        (("^(",), "freeze has '\\^\\(': it must be a regular expression"),
    ],
)
def test_patterns_that_do_not_fit_are_named(patterns, message):
    with pytest.raises(ValueError, match=message):
        frozen(CONFIG, patterns)


def test_learning_rates_decay_from_the_head_to_the_embedding_through_both_encoders():
    found = dict(leaves(layer_multipliers(CONFIG, 0.5)))  # L is 3 + 2
    assert found["head/kernel"] == found["temporal_encoder/norm/scale"] == 1
    np.testing.assert_array_equal(found["temporal_encoder/blocks/mlp/out/bias"].ravel(), [0.5**2, 0.5**1])
    np.testing.assert_array_equal(found["encoder/blocks/attention/qkv/kernel"].ravel(), [0.5**5, 0.5**4, 0.5**3])
    assert found["encoder/blocks/attention/qkv/kernel"].shape == (3, 1, 1)
    assert found["embedding/kernel"] == found["encoder/positions"] == found["encoder/class_token"] == 0.5**6
    assert found["encoder/norm/scale"] == found["temporal_encoder/positions"] == 0.5**3
    alone = dict(leaves(layer_multipliers(small("spatio_temporal", temporal_layers=4), 0.5)))
    assert alone["encoder/norm/scale"] == 1  # there is no second encoder


@pytest.mark.parametrize("model", MODELS)
def test_layer_decay_multiplies_the_updates(model):
    config = small(model)
    params = jax.tree.map(jnp.asarray, random_params(config))
    updates = [optimiser(small_recipe(layer_decay=decay), config, Steps(10, 0)) for decay in (1.0, 0.5)]
    plain, slowed = (
        dict(leaves(jax.jit(lambda params, one=one: one.update(params, one.init(params), params)[0])(params)))
        for one in updates
    )
    for path, multiplier in leaves(layer_multipliers(config, 0.5)):
        multiplier = multiplier.reshape(*multiplier.shape, *(1,) * (plain[path].ndim - multiplier.ndim))
        np.testing.assert_allclose(slowed[path], plain[path] * multiplier, rtol=1e-6, err_msg=path)
