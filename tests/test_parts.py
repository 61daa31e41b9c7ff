"""Production's layers, embeddings and positions against the oracle's."""

import jax.numpy as jnp
import numpy as np
import pytest
from accuracy import assert_same
from strategies import normal

from vivit import layers, positions, tubelet
from vivit.numerics.gelu import gelu_and_slope
from vivit.reference import gradients as reference_gradients
from vivit.reference import layers as reference_layers
from vivit.reference import positions as reference_positions
from vivit.reference import tubelet as reference_tubelet
from vivit.reference.params import Dense, LayerNorm

FLOAT32 = 2e-6  # sums of a hundred float32 products


def test_layer_norm_and_gelu():
    x, params = normal(0, 2, 5, 30), LayerNorm(normal(1, 30), normal(2, 30))
    assert_same(layers.layer_norm(x, params, 1e-6), reference_layers.layer_norm(np.float64(x), params, 1e-6), FLOAT32)
    for form in ("tanh", "erf"):
        assert_same(layers.gelu(jnp.asarray(x), form), reference_layers.gelu(np.float64(x), form), FLOAT32)


@pytest.mark.parametrize("form", ["tanh", "erf"])
def test_gelu_and_its_slope(form):
    x = np.concatenate([np.linspace(-12, 12, 2001), [-1e6, -300, 300, 1e6]]).astype(np.float32)
    active, slope = gelu_and_slope(jnp.asarray(x), form)
    assert_same(active, reference_layers.gelu(np.float64(x), form), FLOAT32)
    expected = reference_gradients.gelu_vjp(np.float64(x), form, np.ones(len(x)))
    np.testing.assert_allclose(slope, expected, rtol=0, atol=5e-6)  # 1 − tanh, rounded to 0, is multiplied by some 60


def test_layer_norm_of_large_numbers_with_little_spread():
    x = np.float32(1000 + normal(3, 4, 31))
    params = LayerNorm(np.ones(31, np.float32), np.zeros(31, np.float32))
    expected = reference_layers.layer_norm(np.float64(x), params, 1e-6)
    assert_same(layers.layer_norm(jnp.asarray(x), params, 1e-6), expected, 1e-4)  # their mean alone is rounded by 3e-5


@pytest.mark.parametrize("pooling", ["token", "first", "mean", "max", "sum"])
@pytest.mark.parametrize("masked", [False, True])
def test_pooling(pooling, masked):
    tokens = normal(4, 3, 7, 5)
    mask = np.arange(7) < np.array([[7], [3], [1]]) if masked else None
    actual = layers.pool(jnp.asarray(tokens), pooling, None if mask is None else jnp.asarray(mask))
    assert_same(actual, reference_layers.pool(np.float64(tokens), pooling, mask), FLOAT32)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_patches_and_embedding(dtype):
    video = np.random.default_rng(5).integers(0, 256, (2, 6, 15, 14, 3)).astype(dtype)
    assert np.array_equal(tubelet.patches(jnp.asarray(video), (2, 3, 7)), reference_tubelet.patches(video, (2, 3, 7)))
    params = Dense(normal(6, 2, 3, 7, 3, 11), normal(7, 11))
    expected = reference_tubelet.embed(reference_tubelet.pixels(video), params)
    assert_same(tubelet.embed(jnp.asarray(video), params), expected, FLOAT32)
    with pytest.raises(ValueError, match=r"video is 6x15x14: it must divide by the tubelet \(4, 3, 7\)"):
        tubelet.patches(jnp.asarray(video), (4, 3, 7))


@pytest.mark.parametrize("sampled_frames", [None, 1, 4, 9])
@pytest.mark.parametrize("valid", [None, [6, 1, 3]])
def test_taking_frames(sampled_frames, valid):
    video = normal(8, 3, 6, 2, 1, 3)
    counts = np.array([6, 6, 6] if valid is None else valid)
    frames_valid = None if valid is None else jnp.asarray(counts)
    actual, kept = tubelet.select_frames(jnp.asarray(video), sampled_frames, frames_valid)
    expected, expected_kept = reference_tubelet.select_frames(video, sampled_frames, counts)
    assert np.array_equal(actual, expected)
    assert kept is None if valid is None else np.array_equal(kept, expected_kept)


@pytest.mark.parametrize("time", [1, 2, 3, 5])
def test_kernels_from_an_image_kernel(time):
    image = normal(9, 3, 5, 3, 7)
    for name in ("inflate", "central_frame"):
        actual = getattr(tubelet, name)(jnp.asarray(image), time)
        assert_same(actual, getattr(reference_tubelet, name)(np.float64(image), time), 1e-7)
        assert actual.dtype == jnp.float32


@pytest.mark.parametrize("target", [(3, 2, 5), (1, 2, 5), (4, 3, 2), (7, 11, 13)])
def test_resizing_and_tiling_positions(target):
    grid, values = (3, 2, 5), normal(10, 30, 7)
    assert_same(
        positions.resize(jnp.asarray(values), grid, target),
        reference_positions.resize(np.float64(values), grid, target),
        FLOAT32,
    )
    tiled = positions.tile(jnp.asarray(values), grid, target[0])
    assert np.array_equal(tiled, reference_positions.tile(values, grid, target[0]))
