"""The reference's positions against explicit formulas, values computed by hand, and another library's resizing."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accuracy import assert_same
from hypothesis import given
from hypothesis import strategies as st
from strategies import SMALL, normal

from vivit.reference.positions import (
    interpolation,
    resize,
    resize_space,
    resize_time,
    sinusoidal_1d,
    sinusoidal_3d,
    table,
    tile,
)

pytestmark = pytest.mark.fast


def test_sinusoidal_1d_is_the_formula():
    values = sinusoidal_1d(11, 6)
    for n in range(11):
        for pair in range(3):
            angle = n / 10000 ** (2 * pair / 6)
            assert_same(values[n, 2 * pair : 2 * pair + 2], [math.sin(angle), math.cos(angle)])


def test_sinusoidal_3d_has_its_parts_in_the_published_order():
    grid, part = (2, 3, 5), 2
    values = sinusoidal_3d(grid, 6 * part).reshape(*grid, 6, part)
    for z, y, x in np.ndindex(*grid):
        for i in range(part):
            frequency = 1 / 10000 ** (i / part)
            angles = [axis * frequency for axis in (z, z, x, x, y, y)]
            expected = [(math.sin, math.cos)[k % 2](angle) for k, angle in enumerate(angles)]
            assert_same(values[z, y, x, :, i], expected)


def test_sinusoidal_tables_refuse_channels_that_do_not_divide():
    with pytest.raises(ValueError, match="channels is 7: sinusoidal_1d positions need a multiple of 2"):
        sinusoidal_1d(3, 7)
    with pytest.raises(ValueError, match="channels is 8: sinusoidal_3d positions need a multiple of 6"):
        sinusoidal_3d((1, 2, 3), 8)


@pytest.mark.parametrize("target", [1, 3, 4, 7])
def test_tiling_gives_every_time_index_its_place_whatever_the_target(target):
    image = np.float64(normal(0, 6, 5))
    tiled = tile(image, (1, 2, 3), target)
    assert tiled.shape == (target * 6, 5)
    assert all(np.array_equal(tiled[6 * t : 6 * t + 6], image) for t in range(target))
    clip = np.float64(normal(1, 3 * 6, 5))
    tiled = tile(clip, (3, 2, 3), target).reshape(target, 6, 5)
    assert all(np.array_equal(tiled[t], clip.reshape(3, 6, 5)[t % 3]) for t in range(target))


def test_interpolation_of_two_to_four_by_hand():
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]  # points −¼, ¼, ¾, 1¼
    assert_same(interpolation(2, 4), expected)


@given(size=st.integers(1, 20), target=st.integers(1, 20))
def test_interpolation_rows_sum_to_one_and_equal_sizes_change_nothing(size, target):
    matrix = interpolation(size, target)
    assert_same(matrix.sum(1), np.ones(target))
    assert (matrix >= 0).all()
    assert np.array_equal(interpolation(size, size), np.eye(size))


@given(grid=st.tuples(*[st.integers(1, 7)] * 3), target=st.tuples(*[st.integers(1, 9)] * 3), seed=st.integers(0, 2**31))
def test_resizing_equals_jax_image_resize_for_any_rectangle(grid, target, seed):
    values = normal(seed, *grid, 2)
    expected = jax.image.resize(jnp.asarray(values), (*target, 2), "linear", antialias=False)
    ours = resize(np.float64(values).reshape(-1, 2), grid, target)
    assert_same(ours, np.asarray(expected).reshape(-1, 2), 1e-5)  # that one is float32


def test_space_and_time_are_resized_separately():
    values = np.float64(normal(2, 3 * 2 * 5, 4))
    grid = (3, 2, 5)
    assert_same(resize_time(values, grid, 3), values)
    assert_same(resize_space(values, grid, (2, 5)), values)
    wide = resize_space(values, grid, (7, 3)).reshape(3, 21, 4)
    assert_same(wide[1], resize_space(values.reshape(3, 10, 4)[1], (1, 2, 5), (7, 3)))
    long = resize_time(values, grid, 4).reshape(4, 10, 4)
    assert_same(long[:, 6], resize_time(values.reshape(3, 10, 4)[:, 6], (3, 1, 1), 4))


def test_a_linear_ramp_stays_one_inside_the_border():
    ramp = np.arange(6.0).reshape(6, 1)
    assert_same(resize(ramp, (1, 1, 6), (1, 1, 3)), [[0.5], [2.5], [4.5]])


def test_the_class_tokens_position_is_not_resized():
    learned = np.float64(normal(3, 1 + 30, SMALL.channels))
    resized = table(learned, SMALL, (2, 4, 3), SMALL.grid)
    assert np.array_equal(resized[0], learned[0])
    assert_same(resized[1:], resize(learned[1:], SMALL.grid, (2, 4, 3)))


@pytest.mark.parametrize("positions", ["sinusoidal_1d", "sinusoidal_3d", "none"])
@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_tables_that_are_not_learned_have_a_row_for_every_token(positions, pooling):
    config = replace(SMALL, positions=positions, pooling=pooling)
    values = table(None, config, (2, 4, 3), SMALL.grid)
    if positions == "none":
        assert values is None
    else:
        assert values.shape == (24 + (pooling == "token"), SMALL.channels)
    if (positions, pooling) == ("sinusoidal_3d", "token"):
        assert not values[0].any()
