"""Starting from image models: every published form, all four models, still videos that give the image's features."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from accuracy import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_params

import vivit
from vivit.checkpoints import flax_names, torch_names
from vivit.checkpoints.image_source import read_image_model
from vivit.checkpoints.name_map import PRODUCT, write_params
from vivit.reference import models
from vivit.reference.config import Config, named
from vivit.reference.params import leaves
from vivit.reference.positions import resize

IMAGE = Config(  # an image ViT as the one-frame video model that it is: 3x3 patches of 4x4 pixels
    model="spatio_temporal",
    frames=1,
    height=12,
    width=12,
    tubelet=(1, 4, 4),
    channels=24,
    heads=4,
    hidden=10,
    layers=2,
    classes=(7,),
)
AVERAGED = replace(IMAGE, pooling="mean")
SIZES = dict(channels=24, heads=4, hidden=10, layers=2, classes=(5,))


def image_arrays(config=IMAGE, form="vision_transformer", seed=0):
    """Random weights of an image ViT under the names of one of the published forms."""
    arrays = write_params(random_params(config, seed), flax_names.name_map(config, image=True), config)
    arrays = {name.replace("output_projection/", "head/"): array for name, array in arrays.items()}
    if form.startswith("vision_transformer"):
        for ours, theirs in (("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_1"),
                             ("LayerNorm_1", "LayerNorm_2"), ("MlpBlock_0", "MlpBlock_3")):  # fmt: skip
            arrays = {name.replace(ours, theirs): array for name, array in arrays.items()}
    else:
        arrays["pos_embedding"] = arrays.pop("Transformer/posembed_input/pos_embedding")
    if "folded" in form:
        arrays["cls"] = arrays["cls"] + arrays["pos_embedding"][:, :1]
        arrays["pos_embedding"] = arrays["pos_embedding"][:, 1:]
    if "scanned" in form:
        stacked = [name for name in arrays if "/encoderblock_0/" in name]
        for name in stacked:
            layers = [arrays.pop(name.replace("_0/", f"_{index}/", 1)) for index in range(config.layers)]
            arrays[name.replace("encoderblock_0", "encoderblock")] = np.stack(layers)
    prefix = {"opt": "opt/target/", "params": "params/", "img": "params/img/"}.get(form.rpartition("-")[2], "")
    return {prefix + name: array for name, array in arrays.items()}


FORMS = (
    "vision_transformer",
    "vision_transformer-opt",
    "big_vision",
    "big_vision-params",
    "big_vision-img",
    "big_vision-folded-params",
    "big_vision-scanned-params",
    "big_vision-folded-scanned-img",
)


@pytest.fixture
def image_path(tmp_path):
    np.savez(tmp_path / "image", **image_arrays())
    return tmp_path / "image.npz"


@pytest.mark.fast
@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_computes_what_the_image_model_computes(form, tmp_path):
    np.savez(tmp_path / "image", **image_arrays(form=form))
    image = read_image_model(tmp_path / "image.npz", heads=1, head=True)
    picture = np.random.default_rng(1).uniform(-1, 1, (2, 1, 12, 12, 3))
    expected = models.forward(random_params(IMAGE), picture, IMAGE)
    assert_same(models.forward(image.params, picture, image.config), expected, 1e-6)
    assert (image.config.gelu, image.config.epsilon) == ("tanh", 1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_no_published_form_is_taken_for_a_video_model_of_sampled_frames(form, tmp_path):
    np.savez(tmp_path / "image", **image_arrays(form=form))
    config = replace(IMAGE, frames=6, sampled_frames=1)  # which has as many positions
    for said in ({}, dict(frames=6), dict(config=config)):
        with pytest.raises(ValueError, match=r"is an image model: start from it with vivit\.from_image_model$"):
            vivit.load(tmp_path / "image.npz", **said)


@given(
    suffix=st.sampled_from(("", "-fe", "-fsa", "-fdp", "-fe-average")),
    embedding=st.sampled_from(("central_frame", "inflation")),
    size=st.sampled_from(((6, 20, 8), (3, 12, 12), (10, 4, 16))),
    token=st.booleans(),
)
@settings(max_examples=12)
def test_every_leaf_of_any_model_at_any_size_matches_the_report(suffix, embedding, size, token, tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "image.npz"
    source = IMAGE if token else AVERAGED
    np.savez(path, **image_arrays(source))
    t = 1 if size[0] % 2 else 2
    config = replace(named("vivit-tiny/8x2" + suffix), **SIZES, tubelet=(t, 4, 4))
    config = replace(config, frames=size[0], height=size[1], width=size[2])
    started = vivit.from_image_model(path, config, embedding, 3)
    report = {one.leaf: one for one in started.report.origins}
    params, image = dict(leaves(started.params)), dict(leaves(random_params(source)))
    assert list(report) == list(params)
    kernel = params["embedding/kernel"]
    if embedding == "inflation":
        assert_same(kernel, np.repeat(image["embedding/kernel"], t, 0) / t, 1e-7)
    else:
        assert_same(kernel[t // 2], image["embedding/kernel"][0], 0)
        assert not np.delete(np.asarray(kernel), t // 2, axis=0).any()
    time, height, width = config.grid
    own, table = np.split(image["encoder/positions"], [int(token)])
    table = resize(np.float64(table), (1, 3, 3), (1, height, width))
    if "-fe" not in suffix:
        table = np.concatenate([table] * time)
    if config.class_token:
        table = np.concatenate([own if token else np.zeros((1, 24)), table])
    assert_same(params["encoder/positions"], table, 1e-6)
    if config.class_token and token:
        assert_same(params["encoder/class_token"], image["encoder/class_token"], 0)
    for leaf, one in report.items():
        if one.source and leaf not in ("embedding/kernel", "encoder/positions"):
            theirs = leaf.replace("space_norm", "attention_norm").replace("space_attention", "attention")
            assert_same(params[leaf], image[theirs], 0)
    fresh = {leaf for leaf, one in report.items() if not one.source}
    assert {"head/kernel", "head/bias"} <= fresh
    assert {leaf for leaf in params if leaf.startswith("temporal_encoder/")} <= fresh
    if suffix == "-fsa":
        assert not np.asarray(params["encoder/blocks/time_attention/out/kernel"]).any()
        assert np.asarray(params["encoder/blocks/time_attention/qkv/kernel"]).std() > 0.1
    assert sum(array.size for array in params.values()) == sum(np.prod(one.shape) for one in report.values())


STILL = [  # model, image model, clip: where a still video must give the image model's features
    ("spatio_temporal", AVERAGED, dict(pooling="mean", frames=6)),
    ("spatio_temporal", IMAGE, dict(pooling="token", frames=2)),
    ("factorised_encoder", IMAGE, dict(pooling="token", frames=6, temporal_layers=0)),
    ("factorised_encoder", AVERAGED, dict(pooling="mean", frames=6, temporal_layers=0)),
    ("factorised_self_attention", AVERAGED, dict(pooling="mean", frames=6, order="time_space")),
    ("factorised_self_attention", AVERAGED, dict(pooling="mean", frames=6, order="space_time")),
]


@pytest.mark.parametrize("embedding", ["central_frame", "inflation"])
@pytest.mark.parametrize(("model", "source", "fields"), STILL)
def test_a_still_video_gives_the_image_models_features(model, source, fields, embedding, tmp_path):
    np.savez(tmp_path / "image", **image_arrays(source))
    config = Config(model=model, height=12, width=12, tubelet=(2, 4, 4), **SIZES, **fields)
    started = vivit.from_image_model(tmp_path / "image.npz", config, embedding)
    picture = np.random.default_rng(2).uniform(-1, 1, (2, 1, 12, 12, 3)).astype(np.float32)
    expected, stages = {}, {}
    models.forward(random_params(source), picture, source, capture=expected)
    started.logits(np.repeat(picture, config.frames, axis=1), capture=stages)
    assert_same(stages["features"], expected["features"], 1e-5)


def test_temporal_attention_that_starts_as_identity_learns(tmp_path):
    np.savez(tmp_path / "image", **image_arrays(AVERAGED))
    config = Config(
        model="factorised_self_attention", frames=4, height=12, width=12, tubelet=(2, 4, 4), pooling="mean", **SIZES
    )
    started = vivit.from_image_model(tmp_path / "image.npz", config)
    head = random_params(config).head
    params = started.params._replace(head=head)  # a zero head hides the gradient
    clip = np.random.default_rng(3).uniform(-1, 1, (1, 4, 12, 12, 3)).astype(np.float32)
    slopes = jax.grad(lambda params: (vivit.forward(params, clip, config) ** 2).sum())(params)
    assert np.abs(slopes.encoder.blocks.time_attention.out.kernel).max() > 1e-3


def test_the_head_is_kept_on_request_with_its_representation(tmp_path):
    source = replace(IMAGE, representation=9)
    np.savez(tmp_path / "image", **image_arrays(source))
    config = replace(named("vivit-tiny/8x2"), **{**SIZES, "classes": (7,)}, tubelet=(2, 4, 4), representation=9)
    started = vivit.from_image_model(tmp_path / "image.npz", config, keep_head=True)
    assert_same(started.params.head.kernel, random_params(source).head.kernel, 0)
    assert_same(started.params.representation.kernel, random_params(source).representation.kernel, 0)
    fresh = vivit.from_image_model(tmp_path / "image.npz", config)
    assert not np.asarray(fresh.params.head.kernel).any()
    (unused,) = (note for note in fresh.report.notes if note.startswith("not used: "))
    assert {"head/kernel", "head/bias", "pre_logits/kernel", "pre_logits/bias"} == set(
        unused.removeprefix("not used: ").split(", ")
    )


def test_the_same_seed_draws_the_same_fresh_leaves(image_path):
    config = replace(named("vivit-tiny/8x2-fe"), **SIZES, tubelet=(2, 4, 4))

    def kernel(seed):
        started = vivit.from_image_model(image_path, config, seed=seed)
        return np.asarray(started.params.temporal_encoder.blocks.mlp.out.kernel)

    assert np.array_equal(kernel(1), kernel(1))
    assert not np.array_equal(kernel(1), kernel(2))


@pytest.mark.parametrize(
    ("fields", "embedding", "message"),
    [
        (dict(channels=30, heads=5, layers=3), "inflation", r"channels is 30: .*heads is 5: .*layers is 3: the image"),
        (dict(tubelet=(2, 8, 8)), "inflation", r"tubelet is \(2, 8, 8\): the image model's patches are \(4, 4\)"),
        ({}, "average", "embedding is 'average': it must be one of central_frame, inflation"),
    ],
)
def test_invalid_arguments_are_named(fields, embedding, message, image_path):
    config = replace(named("vivit-tiny/8x2"), **SIZES, tubelet=(2, 4, 4))
    config = replace(config, **fields)
    with pytest.raises(ValueError, match=message):
        vivit.from_image_model(image_path, config, embedding)


def test_a_kept_head_must_fit_and_a_video_checkpoint_is_no_image_model(image_path, tmp_path):
    config = replace(named("vivit-tiny/8x2"), **SIZES, tubelet=(2, 4, 4))
    with pytest.raises(ValueError, match=r"classes is \(5,\): the image model's head has \(7,\)"):
        vivit.from_image_model(image_path, config, keep_head=True)
    with pytest.raises(ValueError, match="does not exist: it must be an image model's file"):
        vivit.from_image_model(tmp_path / "nothing", config)
    with pytest.raises(ValueError, match=r"is an image model: start from it with vivit\.from_image_model"):
        vivit.load(image_path, frames=8)


@pytest.mark.fast
def test_timms_projection_is_cut_in_three_and_what_has_no_three_parts_keeps_its_name():
    weight, bias = np.arange(12.0).reshape(6, 2), np.arange(7.0)
    found = torch_names.timm_names({"blocks.3.attn.qkv.weight": weight, "blocks.3.attn.qkv.bias": bias})
    parts = [f"encoder.layer.3.attention.attention.{part}.weight" for part in ("query", "key", "value")]
    assert list(found.arrays) == [*parts, "encoder.layer.3.attn.qkv.bias"]
    for part, expected in zip(parts, (weight[:2], weight[2:4], weight[4:]), strict=True):
        assert np.array_equal(found.arrays[part], expected)
        assert found.original_names[part] == "blocks.3.attn.qkv.weight"


@pytest.mark.fast
def test_every_name_of_timm_has_one_here():
    layer, own = "blocks.11.", "encoder.layer.11."
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        layer + "norm1.weight": own + "layernorm_before.weight",
        layer + "norm2.bias": own + "layernorm_after.bias",
        layer + "attn.proj.bias": own + "attention.output.dense.bias",
        layer + "mlp.fc1.weight": own + "intermediate.dense.weight",
        layer + "mlp.fc2.weight": own + "output.dense.weight",
        "norm.weight": "layernorm.weight",
        "head.bias": "classifier.bias",
    }
    found = torch_names.timm_names({name: np.zeros(2) for name in names})
    assert found.original_names == {ours: name for name, ours in names.items()}


@pytest.mark.fast
@pytest.mark.parametrize(("scale", "dense"), [("ls1", "attn.proj"), ("ls2", "mlp.fc2")])
def test_layer_scale_is_multiplied_into_its_dense_layer_where_it_fits(scale, dense):
    place = {"attn.proj": "attention.output.dense", "mlp.fc2": "output.dense"}[dense]
    arrays = {
        f"blocks.0.{dense}.weight": np.ones((2, 3)), f"blocks.0.{dense}.bias": np.array([5.0, 7.0]),
        f"blocks.0.{scale}.gamma": np.array([2.0, 3.0]),
    }  # fmt: skip
    found = torch_names.timm_names(arrays)
    weight, bias = (f"encoder.layer.0.{place}.{leaf}" for leaf in ("weight", "bias"))
    assert list(found.arrays) == list(found.original_names) == [weight, bias]
    assert np.array_equal(found.arrays[weight], [[2.0] * 3, [3.0] * 3])
    assert np.array_equal(found.arrays[bias], [10.0, 21.0])
    assert found.original_names[weight] == f"blocks.0.{dense}.weight{PRODUCT}blocks.0.{scale}.gamma"
    narrow = torch_names.timm_names(arrays | {f"blocks.0.{scale}.gamma": np.ones(3)})
    assert f"encoder.layer.0.{scale}.gamma" in narrow.arrays
    assert np.array_equal(narrow.arrays[bias], [5.0, 7.0])


@pytest.mark.fast
@pytest.mark.parametrize("image", [True, False])
def test_the_ports_embedding_has_channels_first(image):
    params = random_params(IMAGE)
    arrays = write_params(params, torch_names.name_map(IMAGE, image=image), IMAGE)
    (kernel,) = params.embedding.kernel  # of one frame: [height width colors c]
    expected = kernel.transpose(3, 2, 0, 1)
    found = arrays["embeddings.patch_embeddings.projection.weight"]
    assert np.array_equal(found, expected if image else expected[:, :, np.newaxis])


@pytest.mark.fast
def test_newer_names_of_the_port_become_the_older_ones():
    newer = {
        f"vit.layers.3.{name}.weight": np.zeros(1)
        for name in (
            "attention.q_proj",
            "attention.k_proj",
            "attention.v_proj",
            "attention.o_proj",
            "mlp.fc1",
            "mlp.fc2",
        )
    }
    older = ("attention.attention.query", "attention.attention.key", "attention.attention.value",
             "attention.output.dense", "intermediate.dense", "output.dense")  # fmt: skip
    assert list(torch_names.plain_names(newer).arrays) == [f"encoder.layer.3.{name}.weight" for name in older]
