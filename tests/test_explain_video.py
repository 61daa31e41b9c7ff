"""From a video to an explanation: the view and the class of the maps, and `vivit explain`."""

import os
from dataclasses import replace

import checkpoints
import numpy as np
import pytest
from accuracy import assert_same
from videos import Coding, encode, scene

import vivit
from vivit import figures
from vivit.cli.main import main
from vivit.explanation.compute import explain
from vivit.explanation.relevance import explain_clip
from vivit.inference.classification import classify_videos
from vivit.model_data import clip_spec
from vivit.video.preprocessing import HUGGING_FACE, Preprocessing
from vivit.video.views import load_views

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CONFIG = replace(vivit.named("vivit-tiny/8x2-fe"), classes=(2, 3))  # 8 frames of 32x32
LABELS = (("run", "sit"), ("cat", "<b>dog</b>", "sit"))


@pytest.fixture(scope="module")
def model():
    return checkpoints.model(CONFIG, labels=LABELS, preprocessing=Preprocessing(resize=32, crop=None))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("explain") / "clip.mkv"
    encode(path, scene(36, 32, 48), Coding("ffv1", "bgr0"))
    return path


@pytest.fixture(scope="module")
def found(model, video):
    return explain(model, video, views=(2, 3))


def test_an_explanation_has_the_scores_of_classification(found, model, video):
    (said,) = classify_videos(model, [video], views=(2, 3))
    assert found.scores == said.heads
    assert [view.crop for view in found.views] == [0, 1, 2] * 2
    assert_same([view[:2] for view in found.views], [(0.0, 0.56)] * 3 + [(0.84, 1.4)] * 3)
    odds = np.exp(said.logits[:, :2])
    sure = (odds / odds.sum(1, keepdims=True)).max(1)
    labels = [LABELS[0][row.argmax()] for row in odds]
    assert [view.best[0].label for view in found.views] == labels
    assert_same([view.best[0].probability for view in found.views], sure, 1e-9)


def test_the_best_class_is_the_target_and_the_view_that_is_surest_of_it_is_pictured(found, model, video):
    (said,) = classify_videos(model, [video], views=(2, 3))
    target = found.targets[0]
    assert target[2:] == said.heads[0][0]
    assert LABELS[0][target.number] == target.label
    odds = np.exp(said.logits[:, :2])
    assert found.view == (odds / odds.sum(1, keepdims=True))[:, target.number].argmax()
    views = load_views(clip_spec(model, video), video, views=(2, 3))
    assert np.array_equal(found.frames, views.pixels[found.view])
    assert np.array_equal(found.stamps, views.views[found.view].stamps)


def test_maps_are_those_of_the_pictured_clip_and_the_chosen_class(model, video):
    found = explain(model, video, views=(2, 1), target="cat", view=2)
    assert found.targets[0][:3] == (1, 0, "cat")
    clip = load_views(clip_spec(model, video), video, views=(2, 1)).pixels[1]
    attention, rollout, relevance, rounding = explain_clip(model.params, clip, model.config, classes=[(1, 0)])
    assert_same(found.rollout, rollout, 1e-5)
    assert_same(found.relevance[0], relevance[0] - relevance[0].min(), 1e-5)
    assert 0 < rounding[0] < 1e-3 * np.ptp(relevance)
    assert [maps.stage for maps in found.attention] == [maps.stage for maps in attention]
    other = explain(model, video, views=(2, 1), target="run", view=2)
    assert not np.array_equal(other.relevance[0], found.relevance[0])


def test_the_five_best_classes_of_every_head_have_a_relevance_of_their_own(model, video):
    config = replace(CONFIG, classes=(2, 9))
    wide = checkpoints.model(config, labels=(("x", "y"), tuple("abcdefghi")), preprocessing=model.preprocessing)
    found = explain(wide, video, views=(1, 1), top=7)
    (said,) = classify_videos(wide, [video], views=(1, 1))
    assert [(one.head, one.label, one.probability) for one in found.targets] == [
        (head, *score) for head, best in enumerate(said.heads) for score in best[:5]
    ]
    assert found.relevance.shape == (7, 4, 16)
    one = explain_clip(wide.params, found.frames, config, classes=[found.targets[6][:2]]).relevance[0]
    assert_same(found.relevance[6], one - one.min(), 1e-5)
    asked = explain(wide, video, views=(1, 1), target=said.heads[1][3].label)
    assert [target.label for target in asked.targets[:2]] == [said.heads[1][3].label, said.heads[0][0].label]
    assert len(asked.targets) == 7


def test_preprocessed_floats_have_the_explanation_of_their_pixels(model):
    clip = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    other = replace(model, preprocessing=replace(HUGGING_FACE, resize=32, crop=None))
    one, two = other.explain(clip), other.explain(other.preprocessing.normalise(clip))
    assert (one.unit, one.name) == ("frame", "an array")
    assert np.array_equal(two.frames, clip)
    assert_same(two.relevance, one.relevance, 1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(target="cats"), r"class is 'cats': did you mean 'cat'\? it must be one of the model's, such as 'run'"),
        (dict(target="sit"), "class is 'sit': 2 heads have a class of that name"),
        (dict(view=7), "view is 7: it must be from 1 to 6"),
        (dict(view=0), "view is 0: it must be from 1 to 6"),
        (dict(top=0), "top is 0"),
    ],
)
def test_an_unknown_class_or_view_is_a_one_line_error(options, message, model, video):
    with pytest.raises(ValueError, match=message) as error:
        explain(model, video, views=(2, 3), **options)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    vivit.save(model, path)
    return str(path)


@pytest.mark.fast
def test_the_command_writes_a_page_and_a_picture(checkpoint, video, tmp_path, capsys):
    arguments = ["explain", str(video), "--checkpoint", checkpoint, "--views", "1x1"]
    page = tmp_path / "report.html"
    assert main([*arguments, "-o", str(page), "--class", "<b>dog</b>", "--png"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"wrote {page}", f"wrote {tmp_path / 'report.png'}"]
    text = page.read_text("utf-8")
    assert "&lt;b&gt;dog&lt;/b&gt;" in text
    assert "<b>dog" not in text
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "-o", str(tmp_path / "only.png")]) == 0
    assert main([*arguments, "--png", str(tmp_path / "other.png")]) == 0
    assert sorted(os.listdir(tmp_path)) == ["only.png", "other.png", "report.html", "report.png"]


def test_letters_that_no_font_here_has_are_said_on_standard_error(checkpoint, video, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "_families", lambda: {})
    named = tmp_path / "\u65e5\u672c.mkv"
    named.write_bytes(video.read_bytes())
    picture = tmp_path / "x.png"
    assert main(["explain", str(named), "--checkpoint", checkpoint, "--views", "1x1", "-o", str(picture)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert str(picture) in line
    assert "Noto Sans CJK (for U+65E5)" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no output is given: pass -o report.html or --png picture.png"),
        (["-o", "report.pdf"], "report.pdf must end in .html or .htm or .png"),
        (["-o", "nowhere/report.html"], "nowhere does not exist"),
        (["-o", "report.html", "--class", "owl"], "class is 'owl'"),
        (["-o", "report.html", "--view", "9"], "view is 9: it must be from 1 to 1"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, message, checkpoint, video, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["explain", str(video), "--checkpoint", checkpoint, "--views", "1x1", *arguments]
    assert main(command) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert os.listdir(tmp_path) == []
