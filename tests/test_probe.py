"""`vivit probe`: a logistic regression on a model's features becomes its head, for every command that takes a model."""

import json
import sys
from dataclasses import replace

import checkpoints
import numpy as np
import pytest
from videos import Coding, encode

import vivit
from vivit.cli.main import main
from vivit.data.reading import read_data
from vivit.inference.evaluation import evaluate
from vivit.inference.probe import fit, without_head
from vivit.video.preprocessing import Preprocessing

CONFIG = replace(vivit.named("vivit-tiny/8x2"), classes=(3,))
LEVELS = {"dark": 30, "grey": 120, "light": 220}
COUNTS = {"train": 4, "validation": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Tables of videos that a label tells by their brightness, and another by whether it is the left half's."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split, count in COUNTS.items():
        rows = ["path,level,side"]
        for label, level in LEVELS.items():
            for number in range(2 * count):
                side = ("left", "right")[number % 2]
                video = generator.integers(0, 30, (18, 32, 32, 3), np.uint8)
                video[:, :, slice(0, 16) if side == "left" else slice(16, 32)] += np.uint8(level)
                path = f"{split}-{label}-{number}.mkv"
                encode(folder / path, video, Coding("ffv1", "bgr0"))
                rows.append(f"{path},{label},{side}")
        (folder / f"{split}.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def model():
    return checkpoints.model(CONFIG, preprocessing=Preprocessing(resize=32, crop=None, stride=1))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    model.save(path)
    return path


@pytest.mark.fast
def test_a_probed_checkpoint_is_taken_by_every_command_and_has_the_accuracy_that_was_printed(
    data, folder, tmp_path, capsys
):
    out = tmp_path / "probed"
    assert main(["probe", "--data", str(data), "--checkpoint", str(folder), "-o", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["examples"] == {"train": 24, "validation": 12}
    assert min(head["top_1"] for head in printed["heads"].values()) > 0.9
    model = vivit.load(out)
    assert (model.heads, model.labels) == (("level", "side"), (("dark", "grey", "light"), ("left", "right")))
    command = ["evaluate", str(data), "--checkpoint", str(out), "--views", "1x1", "--split", "validation", "--json"]
    assert main(command) == 0
    evaluated = json.loads(capsys.readouterr().out)
    for head, own in printed["heads"].items():
        assert own["top_1"] == evaluated["heads"][head]["top_1"]
    assert printed["action"] == evaluated["action"]
    video = str(data / "validation-light-1.mkv")
    assert main(["classify", video, "--checkpoint", str(out), "--views", "1x1", "--top", "1"]) == 0
    shown = capsys.readouterr().out
    assert "light" in shown
    assert "right" in shown
    assert main(["explain", video, "--checkpoint", str(out), "-o", str(tmp_path / "page.html")]) == 0
    assert "light" in (tmp_path / "page.html").read_text()


def test_the_head_gives_the_logits_of_the_regression_with_several_views_and_keeps_the_stride(model, data):
    splits = read_data(data)
    result = model.probe(splits, stride=2, views=(2, 1), batch=4)
    assert result.model.preprocessing.stride == 2
    assert result.model.params.encoder is model.params.encoder
    report = evaluate(result.model, splits["validation"], views=(2, 1)).report
    assert report["heads"]["level"]["top_1"] == result.report["heads"]["level"]["top_1"]
    clip = np.random.default_rng(1).integers(0, 255, (2, 8, 32, 32, 3), np.uint8)
    features = np.asarray(without_head(model).logits(clip), np.float64)
    head = result.model.params.head
    np.testing.assert_allclose(
        result.model.logits(clip), features @ np.asarray(head.kernel) + np.asarray(head.bias), atol=1e-4
    )


@pytest.mark.fast
def test_channels_are_standardised_and_the_strength_is_that_of_the_lowest_loss():
    """Against scikit-learn's own pipeline, whose inputs are standardised and whose strengths are tried one by one."""
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 150)
    features = generator.normal(labels[:, None], 2, (150, 5)) * [1, 10, 100, 0.01, 0] + [0, 50, 1000, 3, 7]
    train, held_out = slice(0, 90), slice(90, 150)
    for classes in (3, 2):
        own = labels % classes
        head = fit(features[train], own[train], features[held_out], own[held_out], [*"abc"[:classes]])
        losses = {}
        for exponent in range(-4, 5):
            other = make_pipeline(StandardScaler(), LogisticRegression(C=10.0**-exponent, max_iter=1000))
            other.fit(features[train], own[train])
            chances = other.predict_proba(features[held_out])
            losses[10.0**exponent] = -np.log(chances[np.arange(60), own[held_out]]).mean()
            if 10.0**exponent == head.strength:
                logits = features[held_out] @ head.kernel + head.bias
                ours = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
                np.testing.assert_allclose(ours, chances, atol=2e-3)
        assert head.strength == min(losses, key=losses.__getitem__)
        assert head.loss == pytest.approx(losses[head.strength], abs=1e-3)


def test_a_video_that_cannot_be_read_is_left_out_and_named(model, data, tmp_path, caplog):
    (tmp_path / "text.mkv").write_text("no video")
    for name in ("train", "validation"):
        rows = (data / f"{name}.csv").read_text().splitlines()
        lines = [rows[0], *(f"{data}/{row}" for row in rows[1:]), f"{tmp_path}/text.mkv,dark,left"]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    result = vivit.probe(model, tmp_path, heads=["side"], broken="skip")
    assert list(result.broken) == [f"{tmp_path}/text.mkv"]
    assert result.examples == {"train": 24, "validation": 12}
    with pytest.raises(ValueError, match=r"text\.mkv"):
        vivit.probe(model, tmp_path, heads=["side"])


def test_progress_counts_the_clips_of_both_splits(model, data):
    seen = []
    model.probe(data, heads=["side"], progress=lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {36}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (36, 36)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.mkv,x,train\nb.mkv,y,train", "table.csv has train: it must have validation examples too"),
        ("a.mkv,x,train\nb.mkv,x,validation", "label has 1 class: it must have at least two"),
    ],
)
def test_data_that_does_not_fit_is_one_line_and_nothing_is_written(rows, message, folder, tmp_path, capsys):
    (tmp_path / "table.csv").write_text(f"path,label,split\n{rows}\n")
    out = tmp_path / "out"
    assert main(["probe", "--data", str(tmp_path / "table.csv"), "--checkpoint", str(folder), "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.fast
def test_a_class_without_training_examples_and_many_labels_are_refused(model):
    with pytest.raises(ValueError, match="train has no example of 'b': it must have one of every class"):
        fit(np.ones((2, 3)), np.array([0, 2]), np.ones((1, 3)), np.array([0]), ["a", "b", "c"])
    dataset = vivit.data.sources.Dataset((), ("label",), (("a", "b"),), multi_label=True)
    with pytest.raises(ValueError, match="the data has any number of labels per example: it must have one"):
        model.probe({"train": dataset, "validation": dataset})
    one = replace(dataset, multi_label=False)
    with pytest.raises(ValueError, match="the data has other classes in train than in validation"):
        model.probe({"train": one, "validation": replace(one, names=(("b", "c"),))})


@pytest.mark.fast
def test_without_the_extra_one_line_names_it(data, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    assert main(["probe", "--data", str(data), "--checkpoint", str(folder), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        'vivit probe: sklearn is not installed: install it with: pip install "vivit[probe]"\n'
    )


@pytest.mark.fast
def test_a_folder_that_is_read_is_not_written(data, folder, capsys):
    assert main(["probe", "--data", str(data), "--checkpoint", str(folder), "-o", str(folder)]) == 2
    assert f"{folder} is read" in capsys.readouterr().err
