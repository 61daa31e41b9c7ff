"""A loaded model: labels, preprocessing, classification of a video, the hub, and `vivit convert`."""

import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from accuracy import assert_same
from checkpoints import hugging_face_folder, model, same, tree
from strategies import random_params
from videos import write_video

import vivit
from vivit.cli.main import main
from vivit.inference.classification import classify_videos
from vivit.labels import read_labels
from vivit.reference.config import named
from vivit.reference.params import parameters
from vivit.video.preprocessing import Preprocessing

TINY = named("vivit-tiny/8x2")
NAMES = (("cat", "dog", "fish", "bird", "worm"),)


@pytest.mark.fast
def test_classify_gives_the_best_classes_of_each_head_with_their_probabilities(tmp_path):
    config = replace(TINY, classes=(3, 2))
    ready = model(config, labels=(NAMES[0][:3], NAMES[0][3:]))
    path = tmp_path / "clip.mkv"
    write_video(path, 20)
    first, second = ready.classify(path, top=2, views=(1, 1))
    assert (len(first), len(second)) == (2, 2)
    clip = ready.read(path, start=2)  # 15 of 20 frames: the middle
    logits = np.asarray(vivit.forward(ready.params, clip[None], config))[0]
    odds = np.exp(logits[:3]) / np.exp(logits[:3]).sum()
    assert first[0].label == NAMES[0][int(odds.argmax())]
    assert_same([score.probability for score in first], sorted(odds, reverse=True)[:2], 1e-5)
    assert ready.classify(clip, top=2) == (first, second)  # an array of the model's size is one clip
    with pytest.raises(ValueError, match="top is 0: it must be at least 1"):
        ready.classify(clip, top=0)
    (first, *_), (second, *_) = replace(ready, labels=None).classify(clip)
    assert first.label == f"class {odds.argmax()}"
    assert second.label == f"class {logits[3:].argmax()}"  # numbered head by head
    with pytest.raises(ValueError, match=r"classes is \(\): the model has no head"):
        model(replace(config, classes=())).classify(clip)


@pytest.mark.fast
def test_a_models_methods_are_the_functions_that_take_a_model():
    import vivit.explanation.compute  # a package named like a function would take its place

    for name in ("classify", "features", "explain", "save", "export"):
        function = getattr(vivit, name)
        assert getattr(vivit.Model, name) is function
        assert next(iter(inspect.signature(function).parameters)) == "model"
    assert type(replace(model(TINY), labels=None)) is vivit.Model


@pytest.mark.fast
def test_models_parameters_and_results_print_in_a_few_lines(tmp_path):
    config = replace(TINY, classes=(400, 5))
    labels = (tuple(f"a class with a name, {number}" for number in range(400)), NAMES[0])
    ready = model(config, labels=labels)
    write_video(tmp_path / "clip.mkv", 20)
    classified = next(classify_videos(ready, [tmp_path / "clip.mkv"], views=(2, 3)))
    found = ready.explain(tmp_path / "clip.mkv", views=(2, 3))
    vivit.save(ready, tmp_path / "model")
    loaded = vivit.load(tmp_path / "model")
    for shown in (ready, ready.params, ready.params.encoder, classified, found, loaded.report):
        text = repr(shown)
        assert text.count("\n") <= 6
        assert len(text) < 1000
        assert "array(" not in text
    assert f"{parameters(config):,}" in repr(ready)
    assert "8 frames of 32 × 32 pixels" in repr(ready)
    assert "400 ('a class with a name, 0', 'a class with a name, 1', …) and 5" in repr(ready)
    assert repr(ready.params).splitlines()[0] == f"Params of {parameters(config):,} numbers"
    assert repr(ready.params.head) == f"Dense(kernel=float32[{config.channels} 405], bias=float32[405])"
    assert f"clip.mkv': {found.scores[0][0].label}" in repr(found)


def test_a_clip_is_resized_and_cropped_as_the_checkpoint_says(tmp_path):
    path = tmp_path / "clip.mkv"
    write_video(path, 20, height=60, width=90)
    ready = model(TINY, preprocessing=Preprocessing(resize=48, crop=(32, 32)))
    assert np.array_equal(ready.read(path), vivit.read_clip(path, frames=8, height=32, width=32, resize=48))
    whole = model(TINY, preprocessing=Preprocessing(resize=(32, 32), crop=None))
    assert not np.array_equal(whole.read(path), ready.read(path))
    with pytest.raises(ValueError, match=r"crop is \(28, 28\): the config has \(height, width\) \(32, 32\)"):
        model(TINY, preprocessing=Preprocessing(resize=48, crop=(28, 28))).read(path)


def test_floats_are_used_unchanged_and_uint8_is_preprocessed():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 32, 32, 3), np.uint8)
    for preprocessing in (
        Preprocessing(),
        Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.5, 0.6, 0.7), offset=0.0, rescale=1 / 255),
    ):
        ready = model(TINY, preprocessing=preprocessing)
        floats = (pixels * preprocessing.rescale - preprocessing.offset - np.array(preprocessing.mean)) / np.array(
            preprocessing.std
        )
        assert_same(ready.logits(pixels), np.asarray(ready.logits(np.float32(floats))), 1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resize": 0}, "resize is 0: it must be positive integers"),
        ({"crop": (3,)}, r"crop is \(3,\): it must be positive integers"),
        ({"mean": (1, 2)}, r"mean is \(1, 2\): it must be three numbers"),
        ({"std": (1, 0, 1)}, "they must not be 0"),
        ({"rescale": float("nan")}, "rescale is nan: it must be a number"),
    ],
)
def test_wrong_preprocessing_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**fields)


def test_the_shipped_names_are_those_of_the_data_sets_in_their_order():
    (kinetics,), (something,) = read_labels("kinetics400"), read_labels("something_something_v2")
    assert (len(set(kinetics)), len(set(something))) == (400, 174)
    assert (kinetics[0], kinetics[1], kinetics[399]) == ("abseiling", "air drumming", "zumba")
    assert something[0] == "Approaching something with your camera"
    assert something[173] == "Wiping something off of something"
    assert list(kinetics) == sorted(kinetics)
    assert list(something) == sorted(something)


def test_names_come_from_a_file_of_the_users(tmp_path):
    forms = {
        "lines.txt": "cat\ndog\nfish\nbird\nworm\n",
        "list.json": json.dumps(NAMES[0]),
        "map.json": json.dumps({str(index): name for index, name in enumerate(NAMES[0])}),
        "heads.json": json.dumps(NAMES),
    }
    vivit.save(model(TINY), tmp_path / "ours")
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        assert vivit.load(tmp_path / "ours", labels=tmp_path / name).labels == NAMES
    (tmp_path / "short.txt").write_text("cat\ndog\n")
    (tmp_path / "numbers.json").write_text("[1, 2, 3, 4, 5]")
    (tmp_path / "gap.json").write_text('{"0": "a", "2": "b"}')
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name, message in {
        "short.txt": r"labels has \(2,\) names: the config has classes \(5,\)",
        "numbers.json": "has 1: every name must be a text",
        "gap.json": "numbers 2 classes up to 2",
        "bytes": "is no UTF-8 text",
        "nothing": "is no file: it must be one, or one of kinetics400",
    }.items():
        with pytest.raises(ValueError, match=message):
            vivit.load(tmp_path / "ours", labels=tmp_path / name)


def hub_cache(home, name):
    """A cache of huggingface_hub that holds one checkpoint, laid out as that library does."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    hugging_face_folder(repository / "snapshots" / "abc123", TINY)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")


@pytest.mark.fast
def test_a_name_on_the_hub_is_taken_from_its_cache_offline(tmp_path):
    hub_cache(tmp_path, "owner/name")
    code = """
import vivit
print(vivit.load("owner/name").config.frames)
try:
    vivit.load("owner/other")
except ValueError as error:
    print(error)
"""
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    )
    frames, error = done.stdout.splitlines()
    assert frames == "8"
    assert error.startswith("owner/other could not be downloaded from the hub: ")


def test_without_the_extra_a_name_says_what_to_install_and_local_paths_need_no_network(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r'pip install "vivit\[hub\]"'):
        vivit.load("owner/name")
    vivit.save(model(TINY), "runs/best")
    assert vivit.load("runs/best").config == TINY
    for path in ("runs/worst", "./owner/name", "nothing", "a/b/c"):
        with pytest.raises(ValueError, match="does not exist: it must be a folder"):
            vivit.load(path)


@pytest.mark.fast
def test_convert_goes_round_all_formats(tmp_path, capsys):
    hugging_face_folder(tmp_path / "port", TINY)
    path = {name: str(tmp_path / name) for name in ("port", "ours", "tree.npz", "again", "port2", "resized")}
    assert main(["convert", path["port"], path["ours"]]) == 0
    assert "encoder.layer.0…2.attention.attention.{query,key,value}.weight" in capsys.readouterr().out
    assert main(["convert", path["ours"], path["tree.npz"], "--to", "npz"]) == 0
    assert "weights only" in capsys.readouterr().out
    assert main(["convert", path["tree.npz"], path["again"], "--frames", "8"]) == 0
    assert main(["convert", path["again"], path["port2"], "--to", "huggingface"]) == 0
    assert main(["convert", path["port2"], path["resized"], "--frames", "16", "--height", "48", "--width", "24"]) == 0
    for name in ("ours", "again", "port2"):
        assert same(vivit.load(tmp_path / name).params, random_params(TINY))
    config = vivit.load(tmp_path / "resized").config
    assert (config.frames, config.height, config.width) == (16, 48, 24)


def test_convert_starts_a_video_model_from_an_image_model(tmp_path, capsys):
    arrays = {name: leaf[:, 0] if name == "x" else leaf for name, leaf in tree(replace(TINY, frames=2)).items()}
    arrays["embedding/kernel"] = arrays["embedding/kernel"][0]
    np.savez(tmp_path / "image", **{name.replace("output_projection", "head"): leaf for name, leaf in arrays.items()})
    (tmp_path / "config.json").write_text(json.dumps(dict(
        model="factorised_encoder", frames=4, height=32, width=32, tubelet=[2, 8, 8], channels=48, heads=4,
        hidden=96, layers=3, temporal_layers=1, classes=[3])))  # fmt: skip
    source, dest = str(tmp_path / "image.npz"), str(tmp_path / "ours")
    arguments = ["convert", source, dest, "--config", str(tmp_path / "config.json"), "--image", "inflation"]
    assert main(arguments) == 0
    assert "inflated over 2 frames" in capsys.readouterr().out
    assert vivit.load(dest).config.classes == (3,)
    assert main(["convert", source, dest, "--image", "inflation"]) == 2
    assert "--image takes all fields from --config" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{ours}", "{to}", "--to", "huggingface"], "cannot hold this model: model is 'factorised_encoder'"),
        (["{ours}", "{to}/deep/x", "--to", "npz"], "deep does not exist"),
        (["{ours}", "{to}", "--seed", "3"], "--seed and --keep-head apply to an image model"),
        (["{ours}", "{to}", "--config", "vivit-q/1x1"], "no variant is named 'vivit-q/1x1'"),
        (["{ours}", "{to}", "--frames", "7"], "frames is 7: it must be a positive multiple of the tubelet's 2"),
        (["{ours}", "{ours}", "--to", "npz"], "is a folder: name a file"),
    ],
)
def test_convert_of_bad_input_is_one_line_and_writes_nothing(arguments, message, tmp_path, capsys):
    vivit.save(model(replace(TINY, model="factorised_encoder")), tmp_path / "ours")
    places = dict(ours=str(tmp_path / "ours"), to=str(tmp_path / "to"))
    assert main(["convert", *(argument.format(**places) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == ["ours"]
