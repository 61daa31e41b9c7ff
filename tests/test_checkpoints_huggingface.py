"""Hugging Face's JSON files, without its code: activations, class names, files of its processors."""

import json
from dataclasses import replace

import numpy as np
import pytest
from accuracy import assert_same
from checkpoints import hugging_face_folder, model, tree

import vivit
from vivit.cli.main import main
from vivit.reference.config import named
from vivit.video.preprocessing import HUGGING_FACE, PUBLISHED, Preprocessing

pytestmark = pytest.mark.fast

TINY = named("vivit-tiny/8x2")
PREPROCESSINGS = {
    "published": PUBLISHED,
    "hugging_face": HUGGING_FACE,
    "no offset": Preprocessing(rescale=1 / 255, offset=0.0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "imagenet": Preprocessing(rescale=1 / 255, offset=0.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "half an offset": Preprocessing(rescale=1 / 64, offset=0.5, mean=(0.1, 0.2, 0.3), std=(2.0, 3.0, 4.0)),
}
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), np.uint8)


def written(folder, **preprocessing):
    """The preprocessor_config.json of a model with this preprocessing."""
    made = Preprocessing(**{"resize": 40, "crop": (32, 32), **preprocessing})
    vivit.save(model(TINY, preprocessing=made), folder, to="huggingface")
    return json.loads((folder / "preprocessor_config.json").read_text())


@pytest.mark.parametrize(
    ("activation", "form"),
    [("gelu", "erf"), ("gelu_python", "erf"), ("gelu_fast", "tanh"), ("gelu_new", "tanh"),
     ("gelu_pytorch_tanh", "tanh"), ("gelu_python_tanh", "tanh"), ("gelu_accurate", "tanh")],
)  # fmt: skip
def test_every_activation_that_is_a_gelu_of_ours_is_read(activation, form, tmp_path):
    folder = hugging_face_folder(tmp_path / "port", TINY, config={"hidden_act": activation})
    assert vivit.load(folder).config.gelu == form


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu_10", "relu"])
def test_another_activation_is_named(activation, tmp_path):
    folder = hugging_face_folder(tmp_path / "port", TINY, config={"hidden_act": activation})
    with pytest.raises(ValueError, match=f"hidden_act is '{activation}': it must be one of gelu, gelu_python, "):
        vivit.load(folder)


def test_names_of_all_classes_are_the_labels(tmp_path):
    names = ("cat", "dog", "fish", "bird", "worm")
    vivit.save(model(TINY, labels=(names,)), tmp_path / "port", to="huggingface")
    assert vivit.load(tmp_path / "port").labels == (names,)


@pytest.mark.parametrize("names", [["cat", "dog"], ["cat", "dog", "fish", "bird", "worm", "cow"], []])
def test_names_of_another_number_of_classes_are_no_labels(names, tmp_path):
    folder = hugging_face_folder(tmp_path / "port", TINY, config={"id2label": dict(enumerate(names))})
    assert vivit.load(folder).labels is None


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_both_of_their_processors_give_our_pixels_by_what_we_write(name, tmp_path):
    """VivitVideoProcessor subtracts 1 whatever offset says, VivitImageProcessor if it says so; then both normalise."""
    ours = PREPROCESSINGS[name]
    stated = written(
        tmp_path / "port", **{field: getattr(ours, field) for field in ("rescale", "offset", "mean", "std")}
    )
    assert stated["do_rescale"]
    assert stated["do_normalize"]
    mean, std = np.array(stated["image_mean"]), np.array(stated["image_std"])
    video = (PIXELS * stated["rescale_factor"] - 1 - mean) / std
    image = (PIXELS * stated["rescale_factor"] - bool(stated["offset"]) - mean) / std
    assert_same(video, image, 0)
    assert_same(video, ours.normalise(PIXELS), 1e-6)
    if name == "published":
        assert_same(video, PIXELS / 127.5 - 1, 1e-12)
    assert_same(vivit.load(tmp_path / "port").preprocessing.normalise(PIXELS), ours.normalise(PIXELS), 1e-6)


@pytest.mark.parametrize(
    ("preprocessing", "fields"),
    [
        (dict(resize=40), dict(do_resize=True, size={"shortest_edge": 40})),
        (dict(resize=(36, 48)), dict(do_resize=True, size={"height": 36, "width": 48})),
        (dict(resize=None), dict(do_resize=False)),
        (dict(), dict(do_center_crop=True, crop_size={"height": 32, "width": 32})),
        (dict(crop=None), dict(do_center_crop=False)),
        (dict(stride=3), dict(do_rescale=True, do_normalize=True)),
    ],
)
def test_what_we_write_has_the_fields_that_their_processors_look_for(preprocessing, fields, tmp_path):
    stated = written(tmp_path / "port", **preprocessing)
    fields |= dict(image_processor_type="VivitImageProcessor", video_processor_type="VivitVideoProcessor", num_frames=8)
    assert {name: stated[name] for name in fields} == fields
    assert stated["resample"] == 2  # bilinear
    assert "fps" not in stated  # which no number of frames may stand beside
    again = vivit.load(tmp_path / "port").preprocessing
    assert again == Preprocessing(**{"resize": 40, "crop": (32, 32), **preprocessing})


SAVED = {  # by VivitVideoProcessor.save_pretrained of transformers 5.24
    "crop_size": {"height": 32, "width": 32}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
    "do_rescale": True, "do_resize": True, "do_sample_frames": False, "image_mean": [0.0, 0.25, 0.5],
    "image_std": [1.0, 2.0, 4.0], "resample": 2, "rescale_factor": 1 / 127.5, "return_metadata": False,
    "size": {"shortest_edge": 37}, "video_processor_type": "VivitVideoProcessor",
}  # fmt: skip
NESTED = {"processor_class": "SomeProcessor", "video_processor": SAVED}


@pytest.mark.parametrize(("file", "content"), [("video_preprocessor_config", SAVED), ("processor_config", NESTED)])
@pytest.mark.parametrize("alone", [True, False])
def test_what_todays_transformers_writes_is_read_before_what_older_ones_wrote(file, content, alone, tmp_path):
    folder = hugging_face_folder(tmp_path / "port", TINY, **{file: content})
    if alone:
        (folder / "preprocessor_config.json").unlink()
    found = vivit.load(folder).preprocessing
    expected = (PIXELS / 127.5 - 1 - [0.0, 0.25, 0.5]) / [1.0, 2.0, 4.0]
    assert_same(found.normalise(PIXELS), expected, 1e-6)
    assert (found.resize, found.crop) == (37, (32, 32))


def test_a_processor_with_other_parts_keeps_its_own_file(tmp_path):
    folder = hugging_face_folder(tmp_path / "port", TINY, processor_config={"tokenizer": {}})
    assert vivit.load(folder).preprocessing == vivit.video.preprocessing.preprocessing_for(32, 32)


@pytest.mark.parametrize(("rescales", "offset"), [(True, 1.0), (False, 0.0)])
def test_their_video_processor_subtracts_one_whenever_it_rescales(rescales, offset, tmp_path):
    stated = SAVED | {"offset": False, "do_rescale": rescales}
    folder = hugging_face_folder(tmp_path / "port", TINY, preprocessor_config=stated)
    assert vivit.load(folder).preprocessing.offset == offset


def test_a_nested_processor_that_is_no_object_is_one_line(tmp_path):
    folder = hugging_face_folder(tmp_path / "port", TINY, processor_config={"video_processor": "Vivit"})
    with pytest.raises(
        ValueError, match=r"processor_config\.json: video_processor is 'Vivit': it must be a JSON object"
    ):
        vivit.load(folder)


@pytest.mark.parametrize("source", ["demo", "ours", "tree"])
def test_a_model_that_the_port_cannot_hold_is_refused_before_anything_else(source, tmp_path, capsys, monkeypatch):
    """Before its weights, which are broken, are read, what they leave open is asked for, or DEST is looked at."""
    monkeypatch.chdir(tmp_path)
    config = named("vivit-tiny/8x2-fsa")
    vivit.save(model(config), "ours")
    (tmp_path / "ours" / "model.safetensors").write_bytes(b"broken")
    np.savez(tmp_path / "tree", **tree(config))
    arguments = {"demo": ["demo"], "ours": ["ours"], "tree": ["tree.npz", "--model", config.model]}[source]
    (tmp_path / "taken").write_text("mine")
    monkeypatch.setattr("vivit.checkpoints.load.load", lambda *_, **__: pytest.fail("it was read"))
    assert main(["convert", *arguments, "taken", "--to", "huggingface"]) == 2
    said = capsys.readouterr().err
    reason = "pooling is 'mean': it must be 'token'" if source == "demo" else "model is 'factorised_self_att"
    assert said.startswith(f"vivit convert: Hugging Face's ViViT cannot hold this model: {reason}")
    assert said.count("\n") == 1


def test_the_demo_model_is_converted_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "demo", "tree.npz", "--to", "npz"]) == 0
    with np.load("tree.npz") as file:
        assert file["embedding/kernel"].shape == (4, 12, 12, 3, 72)


def test_a_model_is_refused_by_its_config_before_its_weights_are_looked_at(tmp_path):
    made = model(replace(named("vivit-tiny/8x2-fe"), classes=()))
    bias = np.full_like(made.params.embedding.bias, np.nan)
    made = replace(made, params=made.params._replace(embedding=made.params.embedding._replace(bias=bias)))
    with pytest.raises(ValueError, match="cannot hold this model: model is 'factorised_encoder'"):
        vivit.save(made, tmp_path / "port", to="huggingface")
