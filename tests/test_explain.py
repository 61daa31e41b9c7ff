"""Production's maps, rollout and relevance against the reference's matrices, with gradients without backpropagation."""

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
import pytest
from accuracy import assert_as_accurate, assert_same
from explanations import CONFIGS, TINY, captured, plain_attentions, weighted_gradients, weights_of
from hypothesis import given, settings
from strategies import mostly_thorough, random_params, seeds, video

import vivit
from vivit.audit.bound import depth_of
from vivit.explanation.attention_maps import stages_of
from vivit.explanation.filters import filters, most_used
from vivit.explanation.relevance import Backward, explain_clip, stacks_of, through_layer
from vivit.reference import relevance as reference
from vivit.reference.params import convert, shapes
from vivit.reference.tubelet import embed, pixels

pytestmark = pytest.mark.usefixtures("compiled_quickly")

HEAD, NUMBER, INDEX = 1, 1, 4  # the second class of the second head, behind the three of the first


class Case(NamedTuple):
    """One clip through production, the reference and the plain formulation; the last two with ∇A∘A of the logit."""

    actual: tuple
    expected: tuple[dict, dict]
    plain: tuple[dict, dict]


EVERY_RUN = "model 1, class token", "model 2, max", "model 3, mean, time first", "model 4, sum"


@pytest.fixture(scope="module", params=mostly_thorough(CONFIGS, *EVERY_RUN))
def name(request):
    """Of a config; of module scope, so that the tests of one config run one after the other and compile it once."""
    return request.param


@lru_cache(maxsize=4)
def case(name, seed):
    config = CONFIGS[name]
    params, clip = random_params(config, seed), video(config, seed, 1)[0]
    return Case(
        explain_clip(params, clip, config, classes=[(0, 2), (HEAD, NUMBER)]),
        (captured(params, clip, config), weighted_gradients(params, clip, config, INDEX)),
        plain_attentions(params, clip, config, INDEX),
    )


def maps_of(stage, weights, config):
    """(space, time, time_of_class) as AttentionMaps says, from [h q k], [t h q k] or [s h q k]; None or [h …]."""
    time, height, width = config.grid
    space = height * width
    if stage.endswith("space_weights"):
        seen = weights[:, :, 0, 1:] if config.class_token else weights.mean(axis=2)
        return seen.transpose(1, 0, 2), None, None
    if stage.endswith("time_weights"):
        return weights.mean(axis=2).transpose(1, 2, 0), weights.mean(axis=0), None
    whole_frames = stage.startswith("temporal_encoder")
    first = int(config.class_token)
    seen = weights[:, 0, 1:] if config.class_token else weights.mean(axis=1)
    frames = np.repeat(np.arange(time), 1 if whole_frames else space)
    over_time, over_time_of_class = np.zeros((len(weights), time, time)), np.zeros((len(weights), time))
    among = weights[:, first:, first:]
    for key in range(time):
        over_time_of_class[:, key] = seen[:, frames == key].sum(axis=1)
        for query in range(time):
            over_time[:, query, key] = among[:, frames == query][:, :, frames == key].sum(axis=2).mean(axis=1)
    return (
        None if whole_frames else seen.reshape(-1, time, space),
        over_time,
        over_time_of_class if config.class_token else None,
    )


@settings(max_examples=3)
@given(seed=seeds)
def test_maps_are_the_captured_weights_summed_up(name, seed):
    config = CONFIGS[name]
    (attention, *_), (stages, _), (yardstick, _) = case(name, seed)
    weights = weights_of(stages)
    assert [(maps.stage, len(maps.heads)) for maps in attention] == [
        (stage, values.shape[-3]) for stage, values in weights.items()
    ]
    for maps in attention:
        stage = maps.stage
        expected, plain = (maps_of(stage, each[stage], config) for each in (stages, yardstick))
        for actual, *bound in zip(maps[2:], plain, expected, strict=True):
            assert (actual is None) == (bound[1] is None)
            if actual is not None:
                assert actual.dtype == np.float32
                assert_as_accurate(actual, *bound, "float32", stage, depth=depth_of(config))


@settings(max_examples=3)
@given(seed=seeds)
def test_rollout_and_relevance_are_rows_of_the_matrices_of_the_reference(name, seed):
    config = CONFIGS[name]
    (_, rollout, of_both, _), (stages, products), (plain_stages, plain_products) = case(name, seed)
    actual = rollout, of_both[1]

    def token_contributions(compose, attentions):
        return reference.token_contributions(stages, config, compose, attentions)

    # rounding is as large as the products of both signs are, of which relevance keeps one
    either_sign = {stage: np.abs(values) for stage, values in products.items()}
    expected = token_contributions(reference.relevance, products)
    condition = token_contributions(reference.relevance, either_sign).max() / expected.max()
    plain = token_contributions(reference.relevance, plain_products)
    assert [row.dtype for row in actual] == [np.float32] * 2
    assert_as_accurate(
        actual[1], plain, expected, "float32", "relevance", depth=2 * depth_of(config), condition=condition
    )
    rollouts = (token_contributions(reference.rollout, each) for each in (plain_stages, stages))
    assert_as_accurate(actual[0], *rollouts, "float32", "rollout", depth=depth_of(config))


@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_rounding_is_distinguished_from_relevance(pooling):
    """A logit that adds up all channels of a layer norm without scale does not depend on the clip."""
    config = replace(TINY, pooling=pooling)
    params, clip = random_params(config, 1), video(config, 1, 1)[0]
    kernel = np.array(params.head.kernel)
    kernel[:, 0] = 0.37
    flat = params.encoder._replace(norm=params.encoder.norm._replace(scale=np.ones(12, np.float32)))
    params = params._replace(head=params.head._replace(kernel=kernel), encoder=flat)
    found = explain_clip(params, clip, config, classes=[(0, 0), (0, 1), (1, 3)])
    spans = np.ptp(found.relevance, axis=(1, 2))
    assert spans[0] <= found.rounding[0]
    assert (spans[1:] > 100 * found.rounding[1:]).all()


def test_a_constant_clip_has_no_relevance_beyond_rounding():
    config = replace(TINY, pooling="mean", positions="none")
    clip = np.full((6, 15, 7, 3), 0.3, np.float32)
    found = explain_clip(random_params(config, 2), clip, config, classes=[(0, 0), (1, 2)])
    assert (np.ptp(found.relevance, axis=(1, 2)) <= found.rounding).all()
    assert (found.rounding < 1e-4 * found.relevance.max(axis=(1, 2))).all()


def test_the_first_half_of_the_heads_of_model_4_attends_over_time():
    assert stages_of("factorised_dot_product", 4) == {"time_weights": range(2), "space_weights": range(2, 4)}


def test_uint8_and_its_scaled_floats_have_the_same_explanation():
    params = random_params(TINY)
    clip = np.random.default_rng(0).integers(0, 256, (6, 15, 7, 3), np.uint8)
    of_bytes = explain_clip(params, clip, TINY, classes=[(0, 2)])
    of_pixels = explain_clip(params, np.float32(clip) / 127.5 - 1, TINY, classes=[(0, 2)])
    for one, other in zip(of_bytes[1:3], of_pixels[1:3], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize(
    ("classes", "head", "number", "message"),
    [
        ((3, 4), 2, 0, "head is 2: the model has 2 heads, numbered from 0"),
        ((3, 4), -1, 0, "head is -1: the model has 2 heads, numbered from 0"),
        ((), 0, 0, "head is 0: the model has 0 heads, numbered from 0"),
        ((3, 4), 0, 3, "number is 3: head 0 has 3 classes, numbered from 0"),
        ((3, 4), 1, -1, "number is -1: head 1 has 4 classes, numbered from 0"),
    ],
)
def test_an_unknown_class_is_rejected(classes, head, number, message):
    config = replace(TINY, classes=classes)
    with pytest.raises(ValueError, match=message):
        explain_clip(
            random_params(config), video(config, 0, 1)[0], config, classes=[(0, 0)] * bool(classes) + [(head, number)]
        )


def test_a_clip_of_another_size_is_refused():
    with pytest.raises(ValueError, match="video"):
        explain_clip(random_params(TINY), np.zeros((5, 15, 7, 3), np.float32), TINY, classes=[(0, 0)])


def test_a_layer_of_vivit_b_never_holds_the_weights_of_all_heads():
    config = vivit.named("vivit-b/16x2")
    params = convert(shapes(config), lambda _, leaf: jax.ShapeDtypeStruct(leaf.shape, np.float32))
    (stack,) = stacks_of(params, config)
    one = convert(stack.params.blocks, lambda _, leaf: jax.ShapeDtypeStruct(leaf.shape[1:], np.float32))
    tokens, row = (jax.ShapeDtypeStruct((1, 3137, *shape), np.float32) for shape in ((768,), ()))
    lowered = through_layer.lower(tokens, one, Backward(tokens, row, row), stack.cores, stack.layer, stack.grid)
    weights = config.heads * 3137**2 * 4  # bytes
    assert lowered.compile().memory_analysis().temp_size_in_bytes < weights


def test_a_filter_times_the_pixels_of_a_tubelet_is_a_channel_of_its_token():
    params, clip = random_params(TINY), video(TINY, 0, 1)
    kernels = filters(params)
    assert kernels.shape == (12, 2, 3, 7, 3)
    assert kernels.dtype == np.float32
    tubelet = np.float64(clip[0, 2:4, 3:6])  # time index 1, the second of five places
    expected = (kernels * tubelet).sum(axis=(1, 2, 3, 4)) + params.embedding.bias
    assert_same(embed(pixels(clip), convert(params.embedding, lambda _, leaf: np.float64(leaf)))[0, 1, 1], expected)


def test_the_filters_that_move_their_channel_most_come_first():
    kernels = filters(random_params(TINY))
    pictures = np.random.default_rng(0).standard_normal((4096, 2 * 3 * 7 * 3))
    kernels *= np.exp(np.random.default_rng(1).permutation(12) / 4)[:, None, None, None, None]
    deviations = (pictures @ kernels.reshape(12, -1).T).std(axis=0)
    assert list(most_used(kernels)) == list(np.argsort(-deviations))
    assert len(most_used(kernels, 5)) == 5
