"""The invariants of the reference's four models, for any weights."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from accuracy import assert_same
from strategies import MODELS, SMALL, normal, random_params, small, video
from trees import replaced

from vivit.reference import models
from vivit.reference.dropout import AttentionDrops, BlockDrops, Drops, EncoderDrops, FactorisedBlockDrops, MlpDrops
from vivit.reference.params import Dense, convert
from vivit.reference.positions import tile
from vivit.reference.tubelet import central_frame, inflate

pytestmark = pytest.mark.fast

SAMPLED = {"tubelet": (1, 3, 7), "sampled_frames": 4}


@pytest.mark.parametrize(
    ("model", "pooling"),
    [
        *product(MODELS[:2], ("token", "first", "mean", "max", "sum")),
        *product(MODELS[2:], ("mean", "max", "sum")),
    ],
)
@pytest.mark.parametrize("embedding", [{}, SAMPLED])
def test_a_padded_clip_gives_the_logits_of_the_clip_without_padding(model, embedding, pooling):
    config = replace(small(model), pooling=pooling, positions="sinusoidal_3d", **embedding)
    params = random_params(config)
    frames_valid = np.array([4, 2, 6])
    clips = video(config, 0, batch=3)
    padded = models.forward(params, clips, config, frames_valid=frames_valid)
    for example, valid in enumerate(frames_valid):
        alone = models.forward(params, clips[example : example + 1, :valid], config, resize=True)
        assert_same(padded[example], alone[0])


@pytest.mark.parametrize("model", MODELS)
def test_padding_is_never_read_and_a_tubelet_that_is_begun_ends_as_a_still(model):
    config = small(model)
    params = random_params(config)
    clips = video(config, 1)
    valid = np.array([3, 5])
    expected = models.forward(params, clips, config, frames_valid=valid)
    for example, count in enumerate(valid):
        clips[example, count:] = np.nan
    assert np.array_equal(models.forward(params, clips, config, frames_valid=valid), expected)
    clips[0, 3:] = clips[0, 2]
    completed = models.forward(params, clips, config, frames_valid=np.array([4, 5]))
    assert np.array_equal(completed, expected)


@pytest.mark.parametrize("frames_valid", [[0, 6], [7, 6], [3], [3.0, 3.0]])
def test_frames_valid_that_does_not_fit_is_refused(frames_valid):
    with pytest.raises(ValueError, match=r"frames_valid is .*: (each|it) must be"):
        models.forward(random_params(SMALL), video(SMALL, 0), SMALL, frames_valid=np.array(frames_valid))


@pytest.mark.parametrize("initialise", [inflate, central_frame])
def test_an_image_model_tiled_over_time_and_averaged_gives_a_still_video_the_images_logits(initialise):
    image = replace(small("factorised_encoder"), frames=1, tubelet=(1, 3, 7), temporal_layers=0)
    image_params = convert(random_params(image), lambda _, leaf: np.float64(leaf))
    clip = replace(image, frames=6, tubelet=(2, 3, 7))
    kernel = initialise(image_params.embedding.kernel[0], 2)
    clip_params = replaced(image_params, "embedding/kernel", kernel)
    picture = video(image, 2)
    still = np.repeat(picture, 6, axis=1)
    assert_same(models.forward(clip_params, still, clip), models.forward(image_params, picture, image))


def test_model_3_with_a_silent_temporal_attention_gives_a_still_video_the_images_features():
    clip = small("factorised_self_attention", layers=2)
    params = convert(random_params(clip), lambda _, leaf: np.float64(leaf))
    blocks = params.encoder.blocks
    silent = Dense(np.zeros_like(blocks.time_attention.out.kernel), np.zeros_like(blocks.time_attention.out.bias))
    blocks = blocks._replace(time_attention=blocks.time_attention._replace(out=silent))
    space_positions = params.encoder.positions[:10]
    positions = tile(space_positions, (1, 5, 2), 3)
    params = params._replace(encoder=params.encoder._replace(blocks=blocks, positions=positions))
    one = replace(clip, frames=2)
    one_params = replaced(params, "encoder/positions", space_positions)
    still = np.repeat(video(one, 3)[:, :1], 6, axis=1)
    assert_same(models.forward(params, still, clip), models.forward(one_params, still[:, :2], one))


def test_without_temporal_layers_the_order_of_frames_does_not_matter_and_with_them_it_does():
    averaged = replace(small("factorised_encoder"), tubelet=(1, 3, 7), temporal_layers=0)
    clips = video(averaged, 4)
    assert_same(*(models.forward(random_params(averaged), v, averaged) for v in (clips, clips[:, ::-1])))
    encoded = replace(averaged, temporal_layers=2)
    forwards, backwards = (models.forward(random_params(encoded), v, encoded) for v in (clips, clips[:, ::-1]))
    assert np.abs(forwards - backwards).max() > 1e-3


def test_both_orders_of_model_3_differ_and_agree_where_one_axis_is_silent():
    first, second = (small("factorised_self_attention", order=order) for order in ("time_space", "space_time"))
    params = random_params(first)
    clips = video(first, 5)
    assert np.abs(models.forward(params, clips, first) - models.forward(params, clips, second)).max() > 1e-3
    for leaf in ("kernel", "bias"):
        path = f"encoder/blocks/time_attention/out/{leaf}"
        zeros = np.zeros_like(getattr(params.encoder.blocks.time_attention.out, leaf))
        params = replaced(params, path, zeros)
    assert_same(models.forward(params, clips, first), models.forward(params, clips, second))


def test_the_heads_logits_stand_one_after_the_other():
    config = small("spatio_temporal")
    params = random_params(config)
    both = models.forward(params, video(config, 6), config)
    verb_head = Dense(params.head.kernel[:, :11], params.head.bias[:11])
    verb = models.forward(params._replace(head=verb_head), video(config, 6), replace(config, classes=(11,)))
    assert both.shape == (2, 24)
    assert_same(both[:, :11], verb)


def test_a_representation_layer_is_a_dense_layer_and_tanh():
    config = small("spatio_temporal", representation=23)
    params = random_params(config)
    capture = {}
    models.forward(params, video(config, 7), config, capture=capture)
    expected = np.tanh(capture["features"] @ params.representation.kernel + params.representation.bias)
    assert_same(capture["prelogits"], expected)
    assert capture["prelogits"].shape == (2, 23)


def test_a_dropped_branch_leaves_the_residual_stream_unchanged():
    config = small("spatio_temporal", layers=1)
    params = random_params(config)
    nothing = np.zeros((1, 2, 1, 1))
    drops = Drops(EncoderDrops(blocks=BlockDrops(AttentionDrops(depth=nothing), MlpDrops(depth=nothing))))
    capture = {}
    models.forward(params, video(config, 8), config, drops=drops, capture=capture)
    assert np.array_equal(capture["encoder/0/out"], capture["encoder/tokens"])


def test_a_dropped_mlp_leaves_the_sum_after_both_attentions_unchanged():
    config = small("factorised_self_attention", layers=1)
    drops = Drops(EncoderDrops(blocks=FactorisedBlockDrops(mlp=MlpDrops(depth=np.zeros((1, 2, 1, 1, 1))))))
    capture = {}
    models.forward(random_params(config), video(config, 8), config, drops=drops, capture=capture)
    over_time = capture["encoder/tokens"] + capture["encoder/0/time_attention"]
    assert np.array_equal(capture["encoder/0/out"], over_time + capture["encoder/0/space_attention"])


def test_dropping_the_tokens_leaves_only_what_does_not_depend_on_the_video():
    config = small("spatio_temporal")
    params = random_params(config)
    drops = Drops(EncoderDrops(tokens=np.zeros((2, 31, config.channels))))
    logits = [models.forward(params, video(config, seed), config, drops=drops) for seed in (9, 10)]
    assert np.array_equal(*logits)


def test_uint8_and_its_scaled_floats_give_the_same_logits():
    config = small("factorised_dot_product")
    clips = np.random.default_rng(11).integers(0, 256, (2, 6, 15, 14, 3), np.uint8)
    params = random_params(config)
    assert_same(models.forward(params, clips, config), models.forward(params, clips / 127.5 - 1, config))


def test_capture_names_every_stage_in_order():
    config = small("factorised_encoder", layers=1, temporal_layers=1)
    capture = {}
    models.forward(random_params(config), video(config, 12), config, capture=capture)
    assert list(capture) == [
        "tokens",
        "encoder/tokens",
        "encoder/0/space_weights",
        "encoder/0/attention",
        "encoder/0/mlp",
        "encoder/0/out",
        "encoder/norm",
        "frames",
        "temporal_encoder/tokens",
        "temporal_encoder/0/weights",
        "temporal_encoder/0/attention",
        "temporal_encoder/0/mlp",
        "temporal_encoder/0/out",
        "temporal_encoder/norm",
        "features",
        "prelogits",
        "logits",
    ]


def test_parameters_that_do_not_fit_are_refused():
    config = small("spatio_temporal", layers=2)
    with pytest.raises(ValueError, match="params do not fit the config: encoder/"):
        models.forward(random_params(config), video(config, 7), replace(config, layers=3))


@pytest.mark.parametrize(("order", "axes"), [("time_space", ("time", "space")), ("space_time", ("space", "time"))])
def test_capture_names_both_attentions_of_model_3_in_their_order(order, axes):
    config = small("factorised_self_attention", layers=1, order=order)
    capture = {}
    models.forward(random_params(config), video(config, 12), config, capture=capture)
    names = [f"encoder/0/{axis}_{what}" for axis in axes for what in ("weights", "attention")]
    assert list(capture)[2:-4] == [*names, "encoder/0/mlp", "encoder/0/out"]


def test_the_models_do_not_change_what_they_are_given():
    config = small("factorised_self_attention")
    params, clips = random_params(config), video(config, 13)
    before = convert(params, lambda _, leaf: np.copy(leaf)), clips.copy()
    models.forward(params, clips, config, frames_valid=np.array([3, 6]))
    assert np.array_equal(clips, before[1])
    assert np.array_equal(params.encoder.blocks.mlp.out.kernel, before[0].encoder.blocks.mlp.out.kernel)
    assert normal(0, 2).dtype == np.float32
