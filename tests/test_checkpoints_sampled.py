"""Published checkpoints of uniformly sampled frames, whose kernel is an image's, as opposed to image models."""

from dataclasses import replace

import numpy as np
import pytest
from accuracy import assert_same
from checkpoints import flax_bytes, model, nested, said, same, tree
from strategies import MODELS, random_params, small, video

import vivit
from vivit.reference import models
from vivit.reference.config import named

pytestmark = pytest.mark.fast

SAMPLED = dict(tubelet=(1, 3, 7), sampled_frames=4)  # of 6 frames of 15x14: 5·2 patches of each
TINY = replace(named("vivit-tiny/8x2"), tubelet=(1, 8, 8))  # 32x32: 4·4 patches a frame


def published(config):
    """Random weights as the published code names and shapes them: each sampled frame is embedded as an image."""
    arrays = tree(config)
    arrays["embedding/kernel"] = arrays["embedding/kernel"].reshape(*config.tubelet[1:], 3, config.channels)
    return arrays


def write(path, arrays, root=""):
    """Arrays under a root, as npz, or as msgpack if the name has no ending."""
    arrays = {root + name: array for name, array in arrays.items()}
    if path.suffix:
        np.savez(path, **arrays)
    else:
        path.write_bytes(flax_bytes(nested(arrays)))
    return path


@pytest.mark.parametrize("root", ["", "opt/target/", "optimizer/target/"])
@pytest.mark.parametrize("file", ["tree.npz", "checkpoint"])
@pytest.mark.parametrize("name", MODELS)
def test_a_published_checkpoint_of_sampled_frames_is_read_with_and_without_its_config(name, file, root, tmp_path):
    config = small(name, **SAMPLED)
    path = write(tmp_path / file, published(config), root)
    for loaded in (vivit.load(path, config), vivit.load(path, **said(config))):
        assert loaded.config.canonical == config.canonical
        assert same(loaded.params, random_params(config))


@pytest.mark.parametrize("name", MODELS)
def test_a_published_kernel_embeds_each_sampled_frame_as_an_image(name, tmp_path):
    config = small(name, **SAMPLED)
    loaded = vivit.load(write(tmp_path / "tree.npz", published(config)), config)
    clip = video(config, 1)
    assert_same(loaded.logits(clip), models.forward(random_params(config), clip, config), 1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_sampled_frames_is_written_as_it_is_published(name, tmp_path):
    config = small(name, **SAMPLED)
    vivit.save(model(config), tmp_path / "tree.npz", to="npz")
    with np.load(tmp_path / "tree.npz") as file:
        written = dict(file)
    expected = published(config)
    assert {name: array.shape for name, array in written.items()} == {name: a.shape for name, a in expected.items()}
    assert all(np.array_equal(written[name], expected[name]) for name in expected)


def test_a_kernel_with_an_axis_of_one_frame_is_read_too(tmp_path):
    config = small("factorised_encoder", **SAMPLED)
    arrays = published(config)
    arrays["embedding/kernel"] = arrays["embedding/kernel"][np.newaxis]
    path = write(tmp_path / "tree.npz", arrays)
    for loaded in (vivit.load(path, config), vivit.load(path, **said(config))):
        assert same(loaded.params, random_params(config))


def test_a_config_of_longer_tubelets_does_not_fit_an_images_kernel(tmp_path):
    path = write(tmp_path / "tree.npz", published(small("factorised_encoder", **SAMPLED)))
    with pytest.raises(ValueError, match=r"kernel has shape \(3, 7, 3, 30\), it must be \(2, 3, 7, 3, 30\)"):
        vivit.load(path, small("factorised_encoder"))


ASKED = [  # suffix, sampled frames, what is said, what the error asks for
    ("-fe", 3, {}, r"pass frames= \(of the clips that frames are sampled from\); or config=$"),
    ("-fe-average", 3, {}, r"pass sampled_frames= height= width= \(one of the clip of 32x32\); frames= .* config=$"),
    ("-fsa", 3, {}, r"pass order= .*; pooling= .*; sampled_frames= .*3 sampled frames of 32x32; 12 .* config=$"),
    ("-fsa", 4, {}, r"1 sampled frames of 64x64; 4 sampled frames of 32x32.* config=$"),  # names of a video alone
    ("-fdp", 3, {}, r"pass model= .*; pooling= .*; sampled_frames= .*3 sampled frames of 32x32; 12 .* config=$"),
    ("", 3, {}, r"pass sampled_frames= height= width= .*; frames= .*; or config=$"),  # no picture has 48 patches
    ("", 4, {}, r"sampled_frames= .*; or config=; if it is an image model: start from it with vivit.from_image_model"),
    ("", 4, dict(frames=8), r"pass sampled_frames= height= width= .*is an image model: start from it"),
    ("", 1, dict(frames=3), r"is an image model: start from it with vivit.from_image_model; .* pass sampled_frames=1"),
    ("", 1, dict(frames=8, height=32, width=32), r"is an image model: start from it .* pass sampled_frames=1"),
    ("-fe", 4, dict(frames=3), "sampled_frames is 4: it must be at most frames, 3"),
]


@pytest.mark.parametrize(("suffix", "frames", "given", "message"), ASKED)
def test_an_error_names_the_missing_fields_of_sampled_frames(suffix, frames, given, message, tmp_path):
    config = replace(named("vivit-tiny/8x2" + suffix), tubelet=(1, 8, 8), sampled_frames=frames)
    path = write(tmp_path / "tree.npz", published(config))
    with pytest.raises(ValueError, match=message):
        vivit.load(path, **given)


SETTLED = [  # sampled frames, what is said
    (4, dict(frames=8, height=32, width=32)),  # 64 positions
    (4, dict(frames=8, sampled_frames=4)),
    (3, dict(frames=9)),  # 48 positions: 12 frames of 16x16 are more than 9
    (1, dict(frames=8, sampled_frames=1)),
    (4, dict(frames=8, model="spatio_temporal", height=32, width=32)),
]


@pytest.mark.parametrize(("frames", "given"), SETTLED)
def test_the_number_of_positions_and_the_given_size_determine_sampled_frames(frames, given, tmp_path):
    config = replace(TINY, sampled_frames=frames, frames=given["frames"])
    loaded = vivit.load(write(tmp_path / "tree.npz", published(config)), **given)
    assert loaded.config == config.canonical


NAMED_AS_IMAGES = [("LayerNorm_1", "LayerNorm_2"), ("MlpBlock_0", "MlpBlock_3"), ("output_projection", "head"),
                   ("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_1"),
                   ("Transformer/posembed_input/pos_embedding", "pos_embedding"),
                   ("Transformer/encoderblock_0/", "Transformer/encoderblock/")]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), NAMED_AS_IMAGES)
def test_names_that_only_image_models_have_are_always_an_image_model(ours, theirs, tmp_path):
    config = replace(TINY, sampled_frames=4)
    arrays = {name.replace(ours, theirs): array for name, array in published(config).items()}
    path = write(tmp_path / "tree.npz", arrays)
    for given in ({}, dict(config=config), said(config)):
        with pytest.raises(ValueError, match=r"tree.npz is an image model: start from it with vivit.from_image_model"):
            vivit.load(path, **given)


@pytest.mark.parametrize("suffix", ["-fe", "-fsa"])
def test_a_video_model_of_sampled_frames_is_no_image_model_to_start_from(suffix, tmp_path):
    config = replace(named("vivit-tiny/8x2" + suffix), tubelet=(1, 8, 8), sampled_frames=4)
    path = write(tmp_path / "tree.npz", published(config))
    with pytest.raises(ValueError, match=r"is a video model: load it with vivit\.load"):
        vivit.from_image_model(path, named("vivit-tiny/8x2" + suffix))
