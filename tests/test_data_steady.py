"""A video that is cut, grows or vanishes while it is read costs that video, whenever it happens, and is called that."""

import os
import shutil

import av
import numpy as np
import pytest
from videos import Coding, encode, scene

import vivit
from vivit.data import opening
from vivit.data.clips import BrokenVideoError, Pixels, evaluation_clips, training_clip
from vivit.data.sampling import Sampling
from vivit.data.sources import Example
from vivit.data.steady import steady
from vivit.demonstration import demo_checkpoint
from vivit.inference.classification import classify
from vivit.inference.features import write_features

FORMATS = {"a.mkv": Coding("ffv1", "bgr0"), "a.mp4": Coding(options={"g": "8", "bf": "3"}), "a.avi": Coding("mpeg4")}
CHANGES = {
    "shrank": lambda path: os.truncate(path, os.path.getsize(path) // 2),
    "grew": lambda path: path.write_bytes(path.read_bytes() + bytes(5000)),
    "was removed": os.unlink,
    "was changed": lambda path: os.utime(path, ns=(1, 1)),
    "was replaced by another file": lambda path: os.replace(path.with_name("copy"), path),
}
PIXELS = Pixels(sampling=Sampling(frames=8, stride=1), height=24, width=24)


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
    """A copy of the films, with a second one beside them that stays what it is."""
    for name in FORMATS:
        shutil.copy(films / name, tmp_path)
    shutil.copy(films / "a.mkv", tmp_path / "whole.mkv")
    shutil.copy(films / "a.mkv", tmp_path / "copy")
    return tmp_path


@pytest.fixture
def at_opening(monkeypatch):
    """Makes a change as soon as FFmpeg has opened a file for the n-th time. Returns how often it was opened."""

    def at(path, number, change):
        opened, count = av.open, [0]

        def changing(name, *rest, **options):
            container = opened(name, *rest, **options)
            if str(path) in name:
                count[0] += 1
                if count[0] == number:
                    change(path)
            return container

        monkeypatch.setattr(opening.av, "open", changing)
        return count

    return at


def features_of(model, path):
    broken = write_features(model, [str(path), str(path.with_name("whole.mkv"))], path.with_name("o.npz"), stride=1)
    with np.load(path.with_name("o.npz")) as found:
        assert found["videos"].tolist() == [str(path.with_name("whole.mkv"))]
    return broken[str(path)]


def classification_of(model, path):
    first, second = classify(model, [path, path.with_name("whole.mkv")], views=(2, 1), stride=1, threads=1)
    assert not isinstance(second, ValueError)
    return first


@pytest.mark.fast
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("work", [features_of, classification_of])
def test_what_changes_while_it_is_read_costs_that_file_alone(work, number, change, name, folder, model, at_opening):
    count = at_opening(folder / name, number, CHANGES[change])
    error = work(model, folder / name)
    assert count[0] >= number
    assert isinstance(error, ValueError)
    assert str(error).startswith(f"{folder / name} {change}")
    assert "while it was read: it must be whole" in str(error)


def test_a_training_clip_and_an_evaluation_of_such_a_file_are_broken_videos(folder, at_opening):
    for number, take in enumerate(
        (
            lambda example: training_clip(PIXELS, example, np.random.default_rng(0)),
            lambda example: evaluation_clips(PIXELS, example, 2, 1),
        )
    ):
        path = folder / list(FORMATS)[number]
        at_opening(path, 2, CHANGES["grew"])
        with pytest.raises(BrokenVideoError, match=r"grew from [\d,]+ to [\d,]+ bytes while it was read"):
            take(Example(str(path), ((0,),)))
        take(Example(str(path), ((0,),)))  # and as it is now it is probed anew


def test_a_clip_of_a_growing_file_says_so(folder, at_opening):
    at_opening(folder / "a.mkv", 2, CHANGES["grew"])
    with pytest.raises(ValueError, match=r"a.mkv grew from"):
        vivit.read_clip(folder / "a.mkv", frames=8, height=24, width=24)


@pytest.mark.fast
def test_another_error_stays_what_it_is_where_nothing_changed(folder):
    with pytest.raises(ValueError, match=r"^another$"), steady(folder / "a.mkv"):
        raise ValueError("another")
    with steady(folder / "missing"):
        pass
