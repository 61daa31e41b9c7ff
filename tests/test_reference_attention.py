"""The reference's attention cores against loops over every token and head, and their invariants."""

import math

import numpy as np
import pytest
from accuracy import assert_same
from hypothesis import given
from hypothesis import strategies as st
from strategies import CORE_FAULTS, CORES, attention_shapes, normal, seeds

from vivit.reference import attention

pytestmark = pytest.mark.fast


def looped(qkv, heads, may_see, axis_of_head, mask=None, dropout=None):
    """Attention as Python loops over b, t, s, heads and keys. may_see(axis, (t, s), (t', s')) selects the keys.

    dropout: a function of (axis, b, t, s, head, key t, key s) to a multiplier.
    """
    b, t, s, fused = qkv.shape
    c = fused // 3
    d = c // heads
    out = np.zeros((b, t, s, c))
    places = [(time, place) for time in range(t) for place in range(s)]
    for example in range(b):
        for head in range(heads):
            axis = axis_of_head(head)
            lanes = range(head * d, (head + 1) * d)
            for time, place in places:
                keys = [
                    key for key in places
                    if may_see(axis, (time, place), key) and (mask is None or mask[example, key[0], key[1]])
                ]  # fmt: skip
                scores = [
                    sum(qkv[example, time, place, lane] * qkv[example, *key, c + lane] for lane in lanes) / math.sqrt(d)
                    for key in keys
                ]
                largest = max(scores, default=0.0)
                exponentials = [math.exp(score - largest) for score in scores]
                for key, exponential in zip(keys, exponentials, strict=True):
                    weight = exponential / sum(exponentials)
                    if dropout is not None:
                        weight *= dropout(axis, example, time, place, head, *key)
                    for lane in lanes:
                        out[example, time, place, lane] += weight * qkv[example, *key, 2 * c + lane]
    return out


def may_see(axis, query, key):
    return {"all": True, "space": query[0] == key[0], "time": query[1] == key[1]}[axis]


def run(core, qkv, heads, **kwargs):
    """Runs a core on [b t s 3c], including joint. Returns its result and the axis that each head attends over."""
    b, t, s, fused = qkv.shape
    if core == "joint":
        if kwargs.get("mask") is not None:
            kwargs["mask"] = kwargs["mask"].reshape(b, t * s)
        out = attention.joint(qkv.reshape(b, t * s, fused), heads, **kwargs)
        return out.reshape(b, t, s, fused // 3)
    return getattr(attention, core)(qkv, heads, **kwargs)


def axis_of_head(core, heads):
    if core == "factorised_dot_product":
        return lambda head: "time" if head < heads // 2 else "space"
    return lambda head: {"joint": "all", "spatial": "space", "temporal": "time"}[core]


@pytest.mark.parametrize("core", CORES)
@given(shape=st.sampled_from(attention_shapes), seed=seeds)
def test_every_core_equals_a_loop_over_tokens_and_heads(core, shape, seed):
    b, t, s, heads, d = shape
    qkv = np.float64(normal(seed, b, t, s, 3 * heads * d))
    assert_same(run(core, qkv, heads), looped(qkv, heads, may_see, axis_of_head(core, heads)))


@pytest.mark.parametrize("core", CORES)
def test_every_core_equals_the_loop_under_a_mask_with_rows_that_see_nothing(core):
    b, t, s, heads, d = 2, 3, 5, 2, 7
    qkv = np.float64(normal(1, b, t, s, 3 * heads * d))
    mask = np.random.default_rng(2).random((b, t, s)) < 0.5
    mask[0, 1] = False  # a frame of padding
    mask[1, :, 2] = False  # a place of padding
    assert_same(run(core, qkv, heads, mask=mask), looped(qkv, heads, may_see, axis_of_head(core, heads), mask))


@pytest.mark.parametrize("core", CORES)
def test_what_is_not_finite_in_the_query_of_a_masked_token_counts_as_zero(core):
    qkv = np.float64(normal(3, 1, 2, 3, 12))
    mask = np.array([[[True, False, True], [True, True, False]]])
    zero = qkv.copy()
    qkv[0, 0, 1, :3], zero[0, 0, 1, :3] = (np.nan, np.inf, -np.inf), 0.0
    qkv[0, 1, 2, 4:] = np.nan  # its key and value are not read
    assert_same(run(core, qkv, 2, mask=mask), run(core, zero, 2, mask=mask))


@pytest.mark.parametrize("core", CORES)
def test_every_core_equals_the_loop_under_dropout(core):
    b, t, s, heads, d = 2, 3, 5, 4, 3
    qkv = np.float64(normal(3, b, t, s, 3 * heads * d))
    per_axis = heads // 2 if core == "factorised_dot_product" else heads
    over_time = np.abs(np.float64(normal(4, b, s, per_axis, t, t)))
    over_space = np.abs(np.float64(normal(5, b, t, per_axis, s, s)))
    over_all = np.abs(np.float64(normal(6, b, heads, t * s, t * s)))
    given_dropout = {
        "joint": over_all,
        "spatial": over_space,
        "temporal": over_time,
        "factorised_dot_product": (over_time, over_space),
    }[core]

    def multiplier(axis, example, time, place, head, key_time, key_place):
        if axis == "all":
            return over_all[example, head, time * s + place, key_time * s + key_place]
        if axis == "time":
            return over_time[example, place, head, time, key_time]
        return over_space[example, time, head % per_axis, place, key_place]

    expected = looped(qkv, heads, may_see, axis_of_head(core, heads), dropout=multiplier)
    assert_same(run(core, qkv, heads, dropout=given_dropout), expected)


def test_attention_of_two_tokens_by_hand():
    # one head of one channel: scores of query 1 are (ln 3)·(0, 1) → weights 1/4, 3/4; query 2 is 0 → 1/2, 1/2
    qkv = np.array([[[math.log(3), 0.0, 8.0], [0.0, 1.0, 4.0]]])
    capture = {}
    assert_same(attention.joint(qkv, 1, capture=capture), [[[0.25 * 8 + 0.75 * 4], [6.0]]])
    assert_same(capture["weights"], [[[[0.25, 0.75], [0.5, 0.5]]]])


@pytest.mark.parametrize("core", CORES)
def test_captured_weights_sum_to_one(core):
    capture = {}
    run(core, np.float64(normal(7, 2, 3, 5, 3 * 4 * 6)), 4, capture=capture)
    assert capture
    for weights in capture.values():
        assert_same(weights.sum(-1), np.ones(weights.shape[:-1]))


@pytest.mark.parametrize("core", CORES)
def test_every_core_is_equivariant_under_permutations_of_time_and_of_space(core):
    qkv = np.float64(normal(8, 2, 5, 7, 3 * 2 * 3))
    generator = np.random.default_rng(9)
    time, space = generator.permutation(5), generator.permutation(7)
    assert_same(run(core, qkv[:, time][:, :, space], 2), run(core, qkv, 2)[:, time][:, :, space])


def test_spatial_attention_of_one_frame_is_joint_attention():
    qkv = np.float64(normal(10, 2, 1, 11, 3 * 3 * 5))
    assert_same(run("spatial", qkv, 3), run("joint", qkv, 3))


def test_temporal_attention_of_one_place_is_joint_attention():
    qkv = np.float64(normal(11, 2, 11, 1, 3 * 3 * 5))
    assert_same(run("temporal", qkv, 3), run("joint", qkv, 3))


@pytest.mark.parametrize(("t", "s"), [(1, 7), (7, 1)])
def test_model_4_with_one_axis_of_length_one_copies_the_values_of_the_heads_on_that_axis(t, s):
    heads, d = 4, 3
    qkv = np.float64(normal(12, 2, t, s, 3 * heads * d))
    out, value = run("factorised_dot_product", qkv, heads), qkv[..., 2 * heads * d :]
    half = heads * d // 2
    alone, other = (slice(0, half), slice(half, None)) if t == 1 else (slice(half, None), slice(0, half))
    assert_same(out[..., alone], value[..., alone])
    assert_same(out[..., other], run("joint", qkv, heads)[..., other])


@pytest.mark.parametrize(("core", "shape", "heads", "mask", "message"), CORE_FAULTS)
def test_invalid_arguments_are_rejected(core, shape, heads, mask, message):
    mask = None if mask is None else np.ones(mask, bool)
    with pytest.raises(ValueError, match=message):
        getattr(attention, core)(np.zeros(shape), heads, mask=mask)
