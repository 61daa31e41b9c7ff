"""The reference's rollout and relevance against values computed by hand and loops, and their invariants."""

import numpy as np
import pytest
from accuracy import assert_same
from explanations import CONFIGS, captured, drops_of, weighted_gradients
from hypothesis import given
from strategies import normal, random_params, seeds, video

from vivit.reference import attention, models, relevance

pytestmark = pytest.mark.fast


def stochastic(seed, *shape):
    """Random weights whose rows sum to 1."""
    values = np.random.default_rng(seed).random(shape)
    return values / values.sum(axis=-1, keepdims=True)


def test_rollout_of_two_layers_by_hand():
    # Â₁ = [3/4 1/4; 0 1], Â₂ = [5/8 3/8; 1/2 1/2]; two heads of the second have the mean [1/4 3/4; 1 0]
    first = np.array([[[0.5, 0.5], [0, 1]]])
    second = np.array([[[0.5, 0.5], [1, 0]], [[0, 1], [1, 0]]])
    assert_same(relevance.rollout([first, second]), [[15 / 32, 17 / 32], [3 / 8, 5 / 8]])


def test_relevance_of_two_layers_by_hand():
    # what is positive, over the heads: Ā₁ = [1 1; 0 4], R₁ = [2 1; 0 5]; Ā₂ = [0 1; 0 0], R₂ = R₁ + [0 5; 0 0]
    first = np.array([[[2.0, -4.0], [0.0, 6.0]], [[-2.0, 2.0], [0.0, 2.0]]])
    second = np.array([[[0.0, 1.0], [-1.0, 0.0]]])
    assert_same(relevance.relevance([first, second]), [[2, 6], [0, 5]])


@given(seed=seeds)
def test_the_rows_of_rollout_sum_to_one(seed):
    weights = [stochastic(seed, 2, 5, 5), stochastic(seed + 1, 3, 5, 5)]
    assert_same(relevance.rollout(weights).sum(axis=1), np.ones(5))


@given(seed=seeds)
def test_a_token_that_no_other_attends_to_reaches_no_other(seed):
    weights = [stochastic(seed + index, 2, 5, 5) for index in range(3)]
    for one in weights:
        one[:, :, 3] = np.where(np.arange(5) == 3, one[:, :, 3], 0)
    for compose in (relevance.rollout, relevance.relevance):
        column = compose(weights)[:, 3]
        assert not column[[0, 1, 2, 4]].any()
        assert column[3] > 0


def test_without_gradients_every_token_is_relevant_to_itself_only():
    assert_same(relevance.relevance([np.zeros((2, 5, 5)), -stochastic(0, 2, 5, 5)]), np.eye(5))


def test_attention_within_frames_and_over_time_has_the_positions_of_a_loop():
    t, s, h = 3, 5, 2
    within, over = stochastic(0, t, h, s, s), stochastic(1, s, h, t, t)
    space, time = np.zeros((2, h, t * s, t * s))
    for head, a, b in np.ndindex(h, t * s, t * s):
        (query_time, query_place), (key_time, key_place) = divmod(a, s), divmod(b, s)
        if query_time == key_time:
            space[head, a, b] = within[query_time, head, query_place, key_place]
        if query_place == key_place:
            time[head, a, b] = over[query_place, head, query_time, key_time]
    assert_same(relevance.space_matrix(within), space)
    assert_same(relevance.time_matrix(over), time)


@pytest.mark.parametrize(
    ("pooling", "row"),
    [
        ("token", [1, 0, 0]),
        ("first", [1, 0, 0]),
        ("mean", [1 / 3, 1 / 3, 1 / 3]),
        ("sum", [1 / 3, 1 / 3, 1 / 3]),
        ("max", [1 / 4, 1 / 8, 5 / 8]),
    ],
)
def test_pooled_features_by_hand(pooling, row):
    tokens = np.array([[2.0, 0.0, -3.0, 5.0], [1.0, 0.0, -4.0, 7.0], [1.0, 9.0, -1.0, 7.0]])  # [n c]
    assert_same(relevance.pooling_shares(tokens, pooling), row)


@pytest.mark.parametrize("name", ["model 2, class tokens", "model 2, max", "model 2, frames averaged"])
def test_model_2_is_a_row_over_frames_times_a_row_of_each_frame(name):
    config = CONFIGS[name]
    stages = captured(random_params(config), video(config, 0, 1)[0], config)
    time, first = config.grid[0], int(config.class_token)
    frames = np.full(time, 1 / 3)
    if config.temporal_layers:
        over_frames = relevance.rollout([stages[f"temporal_encoder/{index}/weights"] for index in range(2)])
        frames = (relevance.pooling_shares(stages["temporal_encoder/norm"], config.pooling) @ over_frames)[first:]
    expected = []
    for index in range(time):
        of_frame = relevance.rollout([stages[f"encoder/{layer}/space_weights"][index] for layer in range(2)])
        row = relevance.pooling_shares(stages["encoder/norm"][index], config.pooling) @ of_frame
        expected.append(frames[index] * row[first:])
    assert_same(relevance.token_contributions(stages, config, relevance.rollout, stages), np.array(expected))


@pytest.mark.parametrize("name", CONFIGS)
def test_rollout_of_a_clip_sums_to_one_but_for_class_tokens(name):
    config = CONFIGS[name]
    stages = captured(random_params(config), video(config, 0, 1)[0], config)
    total = relevance.token_contributions(stages, config, relevance.rollout, stages).sum()
    if config.class_token:
        assert 0 < total < 1
    else:
        assert_same(total, 1)


def test_the_slope_in_a_multiplier_is_the_gradient_of_the_weight_times_the_weight():
    query, key, value, cotangent = (np.float64(normal(index, 5, 4)) for index in range(4))

    def result(multiplier):  # linear in the weights, so that a step of any size has the slope
        return (attention.attend(query, key, value, dropout=multiplier)[0] * cotangent).sum()

    _, weights = attention.attend(query, key, value)
    slopes = [result(1 + step.reshape(5, 5)) - result(np.ones((5, 5))) for step in np.eye(25)]
    assert_same(np.reshape(slopes, (5, 5)), weights * (cotangent @ value.T))


def test_complex_steps_give_the_slopes_of_finite_differences():
    config = CONFIGS["model 4, sum"]
    params, clip = random_params(config), video(config, 0, 1)[0]
    found = weighted_gradients(params, clip, config, 4)
    ones = {name: np.ones((1, *values.shape)) for name, values in found.items()}

    def logit(name, direction):
        multipliers = {**ones, name: ones[name] + direction}
        return models.forward(params, clip[np.newaxis], config, drops=drops_of(multipliers, config))[0, 4]

    for seed, (name, slopes) in enumerate(found.items()):
        direction = 1e-5 * np.random.default_rng(seed).standard_normal(ones[name].shape)
        slope = (logit(name, direction) - logit(name, -direction)) / 2
        assert_same(slope, (slopes * direction).sum(), relative=1e-7)
