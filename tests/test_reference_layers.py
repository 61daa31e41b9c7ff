"""The reference's layers against values computed by hand."""

import math

import numpy as np
import pytest
from accuracy import assert_same
from strategies import normal

from vivit.reference.layers import drop, gelu, layer_norm, mlp, pool, softmax
from vivit.reference.params import Dense, LayerNorm, Mlp

pytestmark = pytest.mark.fast


def test_layer_norm_of_1_2_3_6():
    # mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5
    x = np.array([[1.0, 2.0, 3.0, 6.0]])
    params = LayerNorm(np.array([1.0, 2.0, 1.0, 1.0]), np.array([0.0, 0.0, 5.0, 0.0]))
    deviation = math.sqrt(3.5 + 0.5)
    assert_same(layer_norm(x, params, 0.5), [[-2 / deviation, -2 / deviation, 5.0, 3 / deviation]])


def test_gelu_at_known_points():
    assert_same(gelu(np.array([0.0, 1.0, -1.0]), "erf"), [0.0, 0.841344746068543, -0.158655253931457])
    inner = math.sqrt(2 / math.pi) * 1.044715
    assert_same(gelu(np.array([1.0]), "tanh"), [0.5 * (1 + math.tanh(inner))])
    assert abs(gelu(np.array([1.0]), "tanh")[0] - 0.8411919906082768) < 1e-15


def test_gelu_forms_differ_by_less_than_a_thousandth_and_more_than_nothing():
    x = np.linspace(-6, 6, 1001)
    difference = np.abs(gelu(x, "tanh") - gelu(x, "erf")).max()
    assert 1e-4 < difference < 1e-3


def test_mlp_of_one_hidden_unit():
    params = Mlp(
        Dense(np.array([[2.0], [1.0]]), np.array([-1.0])), Dense(np.array([[3.0, -1.0]]), np.array([0.5, 0.0]))
    )
    hidden = 0.841344746068543  # gelu(2·1 + 1·0 − 1) = gelu(1)
    assert_same(mlp(np.array([[1.0, 0.0]]), params, "erf"), [[3 * hidden + 0.5, -hidden]])
    dropped = mlp(np.array([[1.0, 0.0]]), params, "erf", dropout=np.array([[2.0]]))
    assert_same(dropped, [[6 * hidden + 0.5, -2 * hidden]])


def test_softmax_of_log_1_2_5():
    assert_same(softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]])


def test_softmax_survives_scores_of_ten_thousand_and_infinity():
    assert_same(softmax(np.array([[1e4, -1e4, 1e4]])), [[0.5, 0.0, 0.5]])
    assert_same(softmax(np.array([[1e300, -1e300]])), [[1.0, 0.0]])


def test_softmax_leaves_masked_keys_out_and_gives_zeros_where_nothing_is_left():
    scores = np.log([[1.0, 3.0, 9e9], [1.0, 1.0, 1.0]])
    mask = np.array([[True, True, False], [False, False, False]])
    assert_same(softmax(scores, mask), [[0.25, 0.75, 0.0], [0.0, 0.0, 0.0]])


def test_softmax_rows_sum_to_one_and_ignore_a_shift():
    scores = np.float64(normal(0, 3, 5, 7)) * 30
    assert_same(softmax(scores).sum(-1), np.ones((3, 5)))
    assert_same(softmax(scores + 123.0), softmax(scores), 1e-11)


def test_drop_multiplies_and_none_drops_nothing():
    x = np.array([1.0, 2.0, 3.0])
    assert_same(drop(x, np.array([0.0, 2.0, 1.0])), [0.0, 4.0, 3.0])
    assert drop(x, None) is x


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("token", [1, 2]), ("first", [1, 2]), ("mean", [3, 10 / 3]), ("max", [5, 6]), ("sum", [9, 10])],
)
def test_pooling_of_three_tokens(pooling, expected):
    tokens = np.array([[1.0, 2.0], [5.0, 2.0], [3.0, 6.0]])
    assert_same(pool(tokens, pooling), expected)


@pytest.mark.parametrize(("pooling", "expected"), [("mean", [-2, 3]), ("max", [-1, 4]), ("sum", [-4, 6])])
def test_pooling_counts_only_valid_tokens(pooling, expected):
    tokens = np.array([[-1.0, 2.0], [-3.0, 4.0], [99.0, np.nan]])
    assert_same(pool(tokens, pooling, np.array([True, True, False])), expected)
