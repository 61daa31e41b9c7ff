"""The error bound itself: correct results pass and wrong ones fail, also when the baseline has the same mistake."""

from dataclasses import replace

import checkpoints
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from strategies import DTYPES, seeds, small

from vivit import layers, models
from vivit.audit import checkpoint, variants
from vivit.audit.bound import CAP, compare, depth_of
from vivit.reference.config import named

EPSILON = {"float32": 2.0**-23, "bfloat16": 2.0**-7}


def rounding(expected, dtype):
    return np.asarray(jnp.asarray(expected, dtype), np.float64)


@pytest.mark.fast
def test_a_mean_is_held_to_the_bound_of_the_tokens_that_it_averages():
    expected = np.ones((1, 4))
    lucky, common = expected + 1e-7, expected + 4e-6
    assert not compare(common, lucky, expected, "float32", depth=1).passed
    assert compare(common, lucky, expected, "float32", depth=1, least_error=3e-6).passed
    assert not compare(common, lucky, expected, "float32", depth=1, least_error=1e-6).passed
    means = {
        (model, pooling): checkpoint.averaged_stages(replace(small(model), pooling=pooling))
        for model, pooling in [
            ("spatio_temporal", "token"),
            ("spatio_temporal", "mean"),
            ("factorised_encoder", "max"),
            ("factorised_encoder", "mean"),
        ]
    }
    assert list(means.values()) == [
        {},
        {"features": "encoder/norm", "prelogits": "encoder/norm"},
        {},
        {"frames": "encoder/norm", "features": "temporal_encoder/norm", "prelogits": "temporal_encoder/norm"},
    ]
    averaged = replace(small("factorised_encoder"), temporal_layers=0, representation=5)
    assert checkpoint.averaged_stages(averaged) == {"features": "frames"}


@pytest.mark.fast
@pytest.mark.parametrize("dtype", DTYPES)
@given(seed=seeds)
def test_what_is_rounded_once_passes_and_one_wrong_number_does_not(dtype, seed):
    expected = np.random.default_rng(seed).standard_normal((5, 7))
    near = rounding(expected, dtype)
    assert compare(near, near, expected, dtype, depth=1).passed
    far = near.copy()
    far[3, 2] += 9 * EPSILON[dtype] * np.abs(expected).max()
    comparison = compare(far, near, expected, dtype, depth=1)
    assert not comparison.passed
    assert comparison.worst == (3, 2)
    assert str(comparison).startswith("error")


@pytest.mark.fast
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", [1, 3])
def test_a_mistake_that_the_baseline_shares_passes_nothing(dtype, depth):
    expected = np.random.default_rng(depth).standard_normal((5, 7))
    cap = CAP[dtype] * np.sqrt(depth) * EPSILON[dtype] * np.abs(expected).max()
    for size, baseline_over_cap in ((0.99, False), (1.01, True)):
        wrong = expected + size * cap * np.eye(5, 7)
        comparison = compare(wrong, wrong, expected, dtype, depth=depth)
        assert comparison.baseline_over_cap == baseline_over_cap
        assert comparison.passed != baseline_over_cap
        assert compare(expected, wrong, expected, dtype, depth=depth).passed != baseline_over_cap  # not even the truth
    assert str(comparison).startswith("the baseline's own error")


@pytest.mark.fast
def test_the_terms_of_a_difference_widen_the_cap_and_not_the_bound():
    expected = np.random.default_rng(0).standard_normal((5, 7))
    wrong = expected + 1e-3
    assert compare(wrong, wrong, expected, "float32", depth=1).baseline_over_cap
    allowed = compare(wrong, wrong, expected, "float32", depth=1, terms=1e3)
    assert allowed.passed
    assert allowed.bound == compare(wrong, wrong, expected, "float32", depth=1).bound


@pytest.mark.fast
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_passes(value):
    expected = np.random.default_rng(0).standard_normal((5, 7))
    broken = expected.copy()
    broken[1, 4] = value
    assert not compare(broken, expected, expected, "float32", depth=1).passed
    assert not compare(expected, broken, expected, "float32", depth=1).passed


@pytest.mark.fast
def test_at_test_sizes_the_cap_of_float32_is_a_hundred_thousandth():
    assert CAP["float32"] * np.sqrt(3) * EPSILON["float32"] == pytest.approx(1e-5, rel=0.02)
    assert depth_of(small("spatio_temporal")) == depth_of(small("factorised_self_attention")) == 3
    assert depth_of(small("factorised_encoder")) == 3 + 2
    assert depth_of(small("factorised_encoder", temporal_layers=0)) == 3


def test_an_audit_fails_where_production_and_the_baseline_share_a_mistake(monkeypatch):
    monkeypatch.setattr(models, "pool", lambda *arguments: 1.01 * layers.pool(*arguments))
    config = replace(named("vivit-tiny/8x2-fe"), classes=(2, 7))
    clip = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    rows = list(variants.audit(clip, {"one": config}))
    assert [row.passed for row in rows] == [False, True]  # a hundredth is within bfloat16's rounding
    assert rows[0].departs.startswith("frames: the baseline's own error")
    verdict = checkpoint.audit_checkpoint(checkpoints.model(config), clip)
    assert not verdict.passed
    assert verdict.first_failures[0].stage == "frames"


@pytest.mark.fast
def test_arrays_of_other_shapes_are_not_compared():
    with pytest.raises(ValueError, match=r"shapes \(5,\), \(5, 1\) and \(5,\) differ: they must be the same"):
        compare(np.zeros(5), np.zeros((5, 1)), np.zeros(5), "float32", depth=1)
