"""Every format through the public loader: fixtures, round trips over configs, recorded and missing fields."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from accuracy import assert_same
from checkpoints import flax_bytes, hugging_face_folder, model, nested, said, same, tree
from hypothesis import HealthCheck, given, settings
from published import FIXTURES, NAMES, published
from strategies import SMALL, configs, random_params, seeds, small, video

import vivit
from vivit.reference.config import named
from vivit.reference.params import leaves
from vivit.video.preprocessing import HUGGING_FACE, PUBLISHED

TINY = named("vivit-tiny/8x2")
FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def hf_fixture(tmp_path):
    folder = tmp_path / "port"
    folder.mkdir()
    shutil.copy(FIXTURES / "hf_vivit_tiny.config.json", folder / "config.json")
    shutil.copy(FIXTURES / "hf_vivit_tiny.safetensors", folder / "model.safetensors")
    return folder


@pytest.mark.fast
def test_the_pytorch_ports_folder_gives_its_logits(hf_fixture):
    loaded = vivit.load(hf_fixture)
    pixels = np.load(FIXTURES / "hf_vivit_tiny.input.npz")["pixel_values"].transpose(0, 1, 3, 4, 2)
    assert loaded.config == TINY.canonical
    assert_same(loaded.logits(pixels), np.load(FIXTURES / "hf_vivit_tiny.logits.npz")["logits_f64"], 1e-5)


@pytest.mark.fast
@pytest.mark.parametrize("name", NAMES)
def test_published_weights_as_npz_and_msgpack_give_the_published_logits(name, tmp_path):
    fixture = published(name)
    arrays = {path[7:]: array for path, array in fixture.arrays.items() if path.startswith("params/")}
    np.savez(tmp_path / "tree", **arrays)
    (tmp_path / "checkpoint").write_bytes(flax_bytes({"params": nested(arrays)}))
    for path in ("tree.npz", "checkpoint"):
        hints = said(fixture.config)
        loaded = vivit.load(tmp_path / path, **hints)
        assert loaded.config.canonical == fixture.config.canonical
        assert_same(loaded.logits(fixture.arrays["input"]), fixture.arrays["logits_f64"], 1e-5)


@pytest.mark.fast
@given(config=configs(), seed=seeds)
@FOLDER
def test_our_own_format_and_the_joined_tree_give_back_every_number(config, seed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("round")
    labels = tuple(
        tuple(f"class {head} {index}" for index in range(count)) for head, count in enumerate(config.classes)
    )
    before = model(config, seed, labels=labels or None)
    vivit.save(before, folder / "ours")
    after = vivit.load(folder / "ours")
    assert (after.config, after.labels, after.preprocessing) == (config, before.labels, before.preprocessing)
    assert same(after.params, before.params)
    vivit.save(before, folder / "tree.npz", to="npz")
    assert same(vivit.load(folder / "tree.npz", config).params, before.params)
    found = vivit.load(folder / "tree.npz", **said(config))
    assert same(found.params, before.params)
    assert found.config.canonical == replace(config.canonical, gelu="tanh", epsilon=1e-6)  # as published


@pytest.mark.fast
@pytest.mark.parametrize("wrap", ["params", "optimizer/target", "target", "optimizer/target/params"])
@pytest.mark.parametrize("chunks", [False, True])
def test_published_msgpack_with_optimizer_state_and_chunks(wrap, chunks, tmp_path):
    config = replace(TINY, model="factorised_encoder")
    arrays = tree(config)
    outer = wrap.split("/")[0]
    value = nested({f"{wrap}/{name}": array for name, array in arrays.items()})
    momentum = {"step": np.int32(7), "param_states": nested({f"{name}/momentum": a for name, a in arrays.items()})}
    if outer == "optimizer":
        value["optimizer"]["state"] = momentum
    else:
        value["opt_state"] = {"0": {"trace": nested(arrays)}}
    value |= {"global_step": 3, "accum_train_time": np.float32(1.5), "rng": np.array([1, 2], np.uint32)}
    (tmp_path / "checkpoint_7").write_bytes(flax_bytes(value, chunks=chunks))
    loaded = vivit.load(tmp_path / "checkpoint_7")
    assert same(loaded.params, random_params(config))
    assert f"under {wrap}/" in loaded.report.notes[0]


@pytest.mark.fast
def test_one_error_names_all_fields_that_a_tree_does_not_record(tmp_path):
    np.savez(tmp_path / "three", **tree(named("vivit-tiny/8x2-fsa")))
    with pytest.raises(ValueError, match=r"order= .*pooling= .*frames= height= width= .*8 frames of 32x32; 32 frames"):
        vivit.load(tmp_path / "three.npz")
    np.savez(tmp_path / "four", **tree(named("vivit-tiny/8x2-fdp")))
    with pytest.raises(ValueError, match=r"model= \(spatio_temporal or factorised_dot_product.*pooling= \(first"):
        vivit.load(tmp_path / "four.npz")
    np.savez(tmp_path / "average", **tree(named("vivit-tiny/8x2-fe-average")))
    with pytest.raises(ValueError, match=r"pass frames=.*the clip of 32x32"):
        vivit.load(tmp_path / "average.npz")
    assert vivit.load(tmp_path / "average.npz", frames=8).config.frames == 8


@pytest.mark.fast
def test_frames_complete_an_ambiguous_size_and_resize_a_known_one(tmp_path):
    np.savez(tmp_path / "one", **tree(TINY))
    assert vivit.load(tmp_path / "one.npz", frames=32).config.height == 16
    assert vivit.load(tmp_path / "one.npz", height=64).config.frames == 2
    with pytest.raises(ValueError, match="the checkpoint's own frames="):
        vivit.load(tmp_path / "one.npz", frames=6)
    assert vivit.load(tmp_path / "one.npz", TINY, frames=6).config.frames == 6
    np.savez(tmp_path / "two", **tree(named("vivit-tiny/8x2-fe")))
    assert vivit.load(tmp_path / "two.npz", frames=6).config.frames == 6


@pytest.mark.fast
def test_a_wide_picture_needs_its_height_and_width(tmp_path):
    config = replace(TINY, model="factorised_encoder", height=24, width=40)
    np.savez(tmp_path / "wide", **tree(config))
    with pytest.raises(ValueError, match="height= width="):
        vivit.load(tmp_path / "wide.npz")
    assert vivit.load(tmp_path / "wide.npz", height=24, width=40).config.width == 40


@pytest.mark.fast
def test_overrides_must_not_contradict_the_file(tmp_path, hf_fixture):
    with pytest.raises(ValueError, match=r"pooling is 'mean': .* has 'token'"):
        vivit.load(hf_fixture, pooling="mean")
    with pytest.raises(ValueError, match="config is Config"):
        vivit.load(hf_fixture, replace(TINY, epsilon=1e-5))
    np.savez(tmp_path / "one", **tree(TINY))
    with pytest.raises(ValueError, match=r"classes is \(3, 3\): .* has 5 in all"):
        vivit.load(tmp_path / "one.npz", frames=8, classes=(3, 3))


@pytest.mark.parametrize("model_name", ["spatio_temporal", "factorised_encoder", "factorised_self_attention"])
def test_another_clip_size_computes_what_resized_positions_compute(model_name, tmp_path):
    config = small(model_name)
    vivit.save(model(config), tmp_path / "ours")
    clip = video(replace(config, frames=8, height=18, width=21), 1)
    expected = vivit.load(tmp_path / "ours").logits(clip, resize=True)
    resized = vivit.load(tmp_path / "ours", frames=8, height=18, width=21)
    assert_same(resized.logits(clip), np.asarray(expected), 1e-5)
    changes = {one.leaf: one.change for one in resized.report.origins if "interpolated" in one.change}
    assert "interpolated from" in changes["encoder/positions"]
    with pytest.raises(ValueError, match="frames is 7: it must be a positive multiple of the tubelet's 2"):
        vivit.load(tmp_path / "ours", frames=7)


@pytest.mark.fast
def test_a_sharded_folder_and_both_generations_of_names_load_alike(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = hugging_face_folder(tmp_path / "port", TINY)
    expected = vivit.load(folder).params
    weights = load_file(folder / "model.safetensors")
    newer = {}
    for name, array in weights.items():
        name = name.replace("encoder.layer.", "layers.").replace("attention.output.dense", "attention.o_proj")
        for part in ("query", "key", "value"):
            name = name.replace(f"attention.attention.{part}", f"attention.{part[0]}_proj")
        newer[name.replace("intermediate.dense", "mlp.fc1").replace("output.dense", "mlp.fc2")] = array
    names = sorted(newer)
    (folder / "model.safetensors").unlink()
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: newer[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same(vivit.load(folder).params, expected)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("stated", "lowest", "highest"),
    [
        ({"rescale_factor": 1 / 127.5, "offset": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}, -3, 1),
        ({"rescale_factor": 1 / 127.5, "offset": True, "do_normalize": False}, -1, 1),
        ({"rescale_factor": 1 / 255, "offset": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}, -1, 1),
        ({"video_processor_type": "VivitVideoProcessor"}, -3, 1),
    ],
)
def test_the_stated_preprocessing_is_used_and_saved(stated, lowest, highest, tmp_path):
    stated = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, **stated}
    folder = hugging_face_folder(tmp_path / "port", TINY, preprocessor_config=stated)
    loaded = vivit.load(folder)
    ends = loaded.preprocessed(np.array([[0, 0, 0], [255, 255, 255]], np.uint8))
    if ends.dtype == np.uint8:  # forward scales it to -1…1
        ends = ends / 127.5 - 1
    assert_same(ends, [[lowest] * 3, [highest] * 3], 1e-6)
    assert f"preprocessing: {lowest}…{highest}, from the checkpoint" in loaded.report.notes
    assert (loaded.preprocessing.resize, loaded.preprocessing.crop) == (40, (32, 32))
    vivit.save(loaded, tmp_path / "ours")
    assert vivit.load(tmp_path / "ours").preprocessing == loaded.preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 32, 32, 3), np.uint8)
    expected = loaded.logits(np.float32(pixels * ((highest - lowest) / 255.0) + lowest))
    assert_same(loaded.logits(pixels), np.asarray(expected), 1e-5)


@pytest.mark.fast
def test_a_named_preprocessing_replaces_the_stated_one(hf_fixture):
    fields = ("rescale", "offset", "mean", "std")
    for name, wanted in (("published", PUBLISHED), ("hugging_face", HUGGING_FACE)):
        found = vivit.load(hf_fixture, preprocessing=name).preprocessing
        assert [getattr(found, field) for field in fields] == [getattr(wanted, field) for field in fields]
        assert found.crop == (32, 32)
    with pytest.raises(ValueError, match="preprocessing is 'imagenet': it must be a Preprocessing or one of published"):
        vivit.load(hf_fixture, preprocessing="imagenet")


@pytest.mark.fast
def test_a_bare_model_has_no_head_and_its_pooler_is_the_representation(tmp_path):
    for representation in (None, 48):
        config = replace(TINY, classes=(), representation=representation)
        folder = hugging_face_folder(tmp_path / f"bare{representation}", config)
        loaded = vivit.load(folder)
        assert loaded.config == config.canonical
        assert loaded.params.head is None
        assert same(loaded.params, random_params(config))


@pytest.mark.fast
def test_missing_projection_biases_read_as_zeros(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = hugging_face_folder(tmp_path / "port", TINY, config={"qkv_bias": False})
    weights = load_file(folder / "model.safetensors")
    kept = {name: array for name, array in weights.items() if ".attention.attention." not in name or "bias" not in name}
    save_file(kept, folder / "model.safetensors")
    loaded = vivit.load(folder)
    assert not np.asarray(loaded.params.encoder.blocks.attention.qkv.bias).any()
    assert "zeros: the source has none" in {one.change for one in loaded.report.origins}


@pytest.mark.fast
def test_the_report_lists_every_leaf(hf_fixture):
    loaded = vivit.load(hf_fixture)
    assert [one.leaf for one in loaded.report.origins] == [path for path, _ in leaves(loaded.params)]
    text = str(loaded.report)
    assert "encoder.layer.0…2.attention.attention.{query,key,value}.weight" in text
    changes = {one.leaf: one.change for one in loaded.report.origins}
    assert changes["encoder/blocks/attention/qkv/kernel"] == "transposed, concatenated, 3 layers stacked"
    assert changes["encoder/blocks/attention/qkv/bias"] == "concatenated, 3 layers stacked"
    assert changes["encoder/blocks/mlp/out/kernel"] == "transposed, 3 layers stacked"
    assert changes["encoder/blocks/mlp/out/bias"] == "3 layers stacked"
    assert changes["encoder/class_token"] == "reshaped"
    assert changes["encoder/norm/scale"] == "unchanged"


@pytest.mark.fast
def test_numbers_of_half_precision_become_float32_and_are_reported(tmp_path):
    arrays = {name: array.astype(np.float16) for name, array in tree(SMALL).items()}
    np.savez(tmp_path / "half", **arrays)
    loaded = vivit.load(tmp_path / "half.npz", SMALL)
    assert {leaf.dtype for _, leaf in leaves(loaded.params)} == {np.dtype("float32")}
    assert all("from float16" in one.change for one in loaded.report.origins)
    layers = f"encoderblock_0…{SMALL.layers - 1}/MultiHeadDotProductAttention_0/{{query,key,value}}/kernel"
    assert layers in str(loaded.report)
