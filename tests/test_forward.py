"""Production's models against the oracle: values, every stage and gradients, both dtypes, padding, sizes, options."""

from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accuracy import assert_as_accurate
from hypothesis import given, settings
from strategies import DTYPES, MODELS, SMALL, configs, mostly_thorough, random_params, seeds, small, video
from trees import on_device, replaced

import vivit
from vivit.audit import baseline
from vivit.audit.bound import depth_of
from vivit.conformance.quickly import QUICKLY
from vivit.reference import models as reference
from vivit.reference.layers import dense
from vivit.reference.params import convert, leaves


def growth(features, representation):
    """How much one relative rounding grows in a representation: it is that of tanh's argument, which may be a sum."""
    return 1.0 if representation is None else max(1.0, np.abs(dense(features, representation)).max())


@pytest.mark.fast
@settings(max_examples=6)
@given(config=configs(), seed=seeds)
def test_every_stage_of_every_variant_is_as_accurate_as_the_plain_formulation(config, seed):
    params, clips = random_params(config, seed), video(config, seed)
    expected = {}
    reference.forward(params, clips, config, capture=expected)
    grown = dict.fromkeys(("prelogits", "logits"), growth(expected["features"], params.representation))
    params = on_device(params)
    for dtype in DTYPES:
        actual, yardstick = {}, {}
        logits = vivit.forward(params, clips, config, dtype=dtype, capture=actual)
        baseline.forward(params, clips, config, dtype=dtype, capture=yardstick)
        assert list(actual) == list(yardstick) == list(expected)
        for stage, values in expected.items():
            bound = dict(depth=depth_of(config), condition=grown.get(stage, 1.0))
            assert_as_accurate(actual[stage], yardstick[stage], values, dtype, f"{stage}, {dtype}", **bound)
        assert logits.dtype == jnp.float32
        assert np.array_equal(logits, actual["logits"])


@pytest.mark.parametrize(
    ("model", "dtype"),
    mostly_thorough(
        list(product(MODELS, DTYPES)), (MODELS[0], "float32"), (MODELS[1], "bfloat16"), (MODELS[2], "float32")
    ),
)
def test_gradients_of_the_models_have_the_slope_of_the_oracle(model, dtype):
    config = small(model, layers=2, representation=23, pooling="mean")
    params, clips = random_params(config), video(config, 1)
    cotangent = np.random.default_rng(2).standard_normal((2, 24)).astype(np.float32)

    def gradient(forward):
        def inner(params):
            return (forward(params, clips, config, dtype=dtype) * cotangent).sum()

        return dict(leaves(jax.jit(jax.grad(inner), compiler_options=QUICKLY)(on_device(params))))

    ours, yardstick = gradient(vivit.forward), gradient(baseline.forward)
    generator = np.random.default_rng(3)
    step = 1e-5
    slopes, actual, plain_slopes = [], [], []
    for path, leaf in leaves(convert(params, lambda _, leaf: np.float64(leaf))):
        for direction in generator.standard_normal((3, *leaf.shape)) / np.sqrt(leaf.size):
            ends = [
                (reference.forward(replaced(params, path, leaf + size * direction), clips, config) * cotangent).sum()
                for size in (step, -step)
            ]
            slopes.append((ends[0] - ends[1]) / (2 * step))
            actual.append((np.float64(ours[path]) * direction).sum())
            plain_slopes.append((np.float64(yardstick[path]) * direction).sum())
    assert_as_accurate(np.array(actual), np.array(plain_slopes), np.array(slopes), dtype, depth=2 * depth_of(config))


def test_patches_of_another_size_are_refused():
    params = on_device(random_params(SMALL, 1))
    with pytest.raises(ValueError, match=r"patches have shape \(2, 3, 9, 126\): they must be \[b 3 10 126\]"):
        vivit.forward(params, np.zeros((2, 3, 9, 126), np.float32), SMALL)
    with pytest.raises(ValueError, match=r"attention is 'flash': it must be one of auto, pallas, xla"):
        vivit.forward(params, video(SMALL, 1), SMALL, attention="flash")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({"dtype": np.float64}, {}, "video has dtype float64: it must be uint8 .0 to 255., float32 or bfloat16"),
        ({"dtype": np.int32}, {}, "video has dtype int32"),
        ({"shape": (15, 14, 3)}, {}, r"video has shape \(15, 14, 3\): it must be \[b frames height width 3\]"),
        (
            {"shape": (6, 15, 14, 3)},
            {},
            r"video has shape \(6, 15, 14, 3\), that of one clip: it must be \[b 6 15 14 3\]",
        ),
        ({"shape": (0, 6, 15, 14, 3)}, {}, "video has 0 examples"),
        ({"shape": (1, 4, 15, 14, 3)}, {}, "pass resize=True to resize the positions; for shorter clips pad"),
        ({"shape": (1, 5, 15, 14, 3)}, {"resize": True}, "frames is 5: it must be a positive multiple"),
        ({}, {"frames_valid": np.array([7])}, r"frames_valid is \[7\]: each must be from 1 to the video's 6"),
        ({}, {"frames_valid": np.array([0])}, r"frames_valid is \[0\]: each must be from 1"),
        ({}, {"frames_valid": np.array([1, 2])}, r"frames_valid is int64\[2\]: it must be int\[b\] with b = 1"),
        ({}, {"dtype": "float16"}, "dtype is float16: it must be float32 or bfloat16"),
        ({}, {"remat": "all"}, "remat is 'all': it must be one of none, fast, lean"),
        ({}, {"dropout": 1.0}, "dropout is 1.0: it must be a number from 0 up to, not including, 1"),
        ({}, {"stochastic_depth": -0.1}, "stochastic_depth is -0.1: it must be a number from 0"),
    ],
)
def test_invalid_arguments_give_one_line(fields, options, message):
    clips = np.zeros(fields.get("shape", (1, 6, 15, 14, 3)), fields.get("dtype", np.float32))
    with pytest.raises(ValueError, match=message) as error:
        vivit.forward(random_params(SMALL), clips, SMALL, **options)
    assert "\n" not in str(error.value)


def test_params_of_another_config_and_a_video_that_is_no_array_are_refused():
    with pytest.raises(ValueError, match="params do not fit the config: head/bias has shape"):
        vivit.forward(random_params(replace(SMALL, classes=(5,))), video(SMALL, 0), SMALL)
    with pytest.raises(ValueError, match="video is a str: it must be an array"):
        vivit.forward(random_params(SMALL), "clip.mp4", SMALL)  # pyright: ignore[reportArgumentType]
