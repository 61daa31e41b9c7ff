"""A video that is truncated, grows or vanishes while it is read raises an error that says so; others are unaffected."""

import os
import shutil

import av
import numpy as np
import pytest
from videos import Coding, encode, scene

import vivit
from vivit.data.clips import training_clip
from vivit.data.sources import Example
from vivit.demo import demo_checkpoint
from vivit.inference.classification import classify_videos
from vivit.inference.features import write_features
from vivit.video import container
from vivit.video.container import check_unchanged
from vivit.video.sampling import Sampling
from vivit.video.spec import ClipSpec
from vivit.video.views import load_views

FORMATS = {"a.mkv": Coding("ffv1", "bgr0"), "a.mp4": Coding(options={"g": "8", "bf": "3"}), "a.avi": Coding("mpeg4")}
CHANGES = {
    "shrank": lambda path: os.truncate(path, os.path.getsize(path) // 2),
    "grew": lambda path: path.write_bytes(path.read_bytes() + bytes(5000)),
    "was removed": os.unlink,
    "was changed": lambda path: os.utime(path, ns=(1, 1)),
    "was replaced by another file": lambda path: os.replace(path.with_name("copy"), path),
}
SPEC = ClipSpec(sampling=Sampling(frames=8, stride=1), height=24, width=24)


@pytest.fixture(scope="module")
def model():
    return vivit.load(demo_checkpoint())


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for name, coding in FORMATS.items():
        encode(folder / name, scene(60, 32, 32), coding)
    return folder


@pytest.fixture
def folder(films, tmp_path):
    """A copy of the videos, with a second one that stays unchanged."""
    for name in FORMATS:
        shutil.copy(films / name, tmp_path)
    shutil.copy(films / "a.mkv", tmp_path / "whole.mkv")
    shutil.copy(films / "a.mkv", tmp_path / "copy")
    return tmp_path


@pytest.fixture
def at_opening(monkeypatch):
    """Applies a change when FFmpeg has opened a file for the n-th time. Returns the number of openings."""

    def at(path, number, change):
        opened, count = av.open, [0]

        def changing(name, *rest, **options):
            container = opened(name, *rest, **options)
            if str(path) in name:
                count[0] += 1
                if count[0] == number:
                    change(path)
            return container

        monkeypatch.setattr(container.av, "open", changing)
        return count

    return at


def features_of(model, path):
    broken = write_features(model, [str(path), str(path.with_name("whole.mkv"))], path.with_name("o.npz"), stride=1)
    with np.load(path.with_name("o.npz")) as found:
        assert found["videos"].tolist() == [str(path.with_name("whole.mkv"))]
    return broken[str(path)]


def classification_of(model, path):
    first, second = classify_videos(model, [path, path.with_name("whole.mkv")], views=(2, 1), stride=1, threads=1)
    assert not isinstance(second, ValueError)
    return first


@pytest.mark.fast
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("work", [features_of, classification_of])
def test_a_file_that_changes_while_it_is_read_does_not_affect_others(
    work, number, change, name, folder, model, at_opening
):
    count = at_opening(folder / name, number, CHANGES[change])
    error = work(model, folder / name)
    assert count[0] >= number
    assert isinstance(error, ValueError)
    assert str(error).startswith(f"{folder / name} {change}")
    assert "while it was read: it must be complete" in str(error)


def test_a_training_clip_and_views_of_a_changed_file_report_the_change(folder, at_opening):
    for number, take in enumerate(
        (
            lambda example: training_clip(SPEC, example, np.random.default_rng(0)),
            lambda example: load_views(SPEC, example.path, (2, 1)),
        )
    ):
        path = folder / list(FORMATS)[number]
        at_opening(path, 2, CHANGES["grew"])
        with pytest.raises(ValueError, match=r"grew from [\d,]+ to [\d,]+ bytes while it was read"):
            take(Example(str(path), ((0,),)))
        take(Example(str(path), ((0,),)))  # and as it is now it is probed anew


def test_a_clip_of_a_growing_file_reports_the_growth(folder, at_opening):
    at_opening(folder / "a.mkv", 2, CHANGES["grew"])
    with pytest.raises(ValueError, match=r"a.mkv grew from"):
        vivit.read_clip(folder / "a.mkv", frames=8, height=24, width=24)


@pytest.mark.fast
def test_other_errors_stay_unchanged_if_the_file_did_not_change(folder):
    with pytest.raises(ValueError, match=r"^another$"), check_unchanged(folder / "a.mkv"):
        raise ValueError("another")
    with check_unchanged(folder / "missing"):
        pass
