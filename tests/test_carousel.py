"""The digit carousel: files match their parameters, splits share no scan, and only order reveals the verb."""

import csv
import json

import numpy as np
import pytest

from vivit.data import carousel
from vivit.data.augmentation import directions
from vivit.data.carousel import NOUNS, STEPS, VERBS, load_scans, plan, render, write_carousel
from vivit.video.clip import read_clip

pytestmark = pytest.mark.fast

COUNTS = dict(train=12, validation=8, test=4)


@pytest.fixture(scope="module")
def scans():
    return load_scans()


@pytest.fixture(scope="module")
def written(tmp_path_factory, scans):
    folder = tmp_path_factory.mktemp("data") / "carousel"
    write_carousel(folder, seed=3, **COUNTS)
    return folder


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_decoded_videos_are_exactly_what_was_rendered(written, scans):
    images, digits = scans
    for split, count in COUNTS.items():
        rows = table(written / f"{split}.csv")
        assert len(rows) == count
        for row, video in zip(rows, plan(split, count, digits, seed=3), strict=True):
            assert row == {"path": video.path, "verb": VERBS[video.verb], "noun": NOUNS[digits[video.scan]]}
            clip = read_clip(written / row["path"], frames=16, height=24, width=24, stride=1)
            expected = render(images[video.scan], STEPS[video.verb], video.phase, 16)
            np.testing.assert_array_equal(clip, np.repeat(expected[..., np.newaxis], 3, axis=-1))


def test_the_card_says_what_was_written(written):
    card = json.loads((written / "carousel.json").read_text())
    assert card["seed"] == 3
    assert card["videos"] == COUNTS
    assert card["scans"] == {"train": 3, "validation": 2, "test": 1}
    assert card["verbs"] == list(VERBS)
    assert sum(1 for _ in written.rglob("*.mkv")) == sum(COUNTS.values())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(written, tmp_path):
    write_carousel(tmp_path / "same", seed=3, **COUNTS)
    write_carousel(tmp_path / "other", seed=4, **COUNTS)
    files = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "same") for path in (tmp_path / "same").rglob("*.*"))
    assert all((written / file).read_bytes() == (tmp_path / "same" / file).read_bytes() for file in files)
    assert (written / "train.csv").read_bytes() != (tmp_path / "other/train.csv").read_bytes()


@pytest.mark.parametrize("frames", [8, 16])
def test_all_verbs_show_the_same_frames_in_another_order(scans, frames):
    images, digits = scans
    videos = list(plan("test", 1200, digits, seed=0))
    for first in range(0, len(videos), len(STEPS)):
        four = videos[first : first + len(STEPS)]
        assert [video.verb for video in four] == list(range(len(STEPS)))
        assert len({(video.scan, video.phase) for video in four}) == 1
        clips = [render(images[video.scan], STEPS[video.verb], video.phase, frames) for video in four]
        assert len({clip.tobytes() for clip in clips}) == len(STEPS)
        assert len({clip[0].tobytes() for clip in clips}) == 1
        assert len({tuple(sorted(frame.tobytes() for frame in clip)) for clip in clips}) == 1


def test_eight_frames_from_anywhere_show_every_place_once(scans):
    clip = render(scans[0][0], 3, 5, 16)
    everything = sorted(frame.tobytes() for frame in clip[:8])
    assert len(set(everything)) == 8
    for start in range(9):
        assert sorted(frame.tobytes() for frame in clip[start : start + 8]) == everything


def test_the_splits_share_no_scan_and_use_every_scan(scans):
    _, digits = scans
    counts = dict(train=4788, validation=1200, test=1200)
    used = [{video.scan for video in plan(split, count, digits, seed=0)} for split, count in counts.items()]
    assert [len(scans) for scans in used] == [1197, 300, 300]
    assert set.union(*used) == set(range(1797))


def test_scans_are_used_again_when_more_videos_are_wanted(scans):
    videos = list(plan("test", 2400, scans[1], seed=0))
    assert [video.scan for video in videos[:1200]] == [video.scan for video in videos[1200:]]
    assert [video.phase for video in videos[:1200]] != [video.phase for video in videos[1200:]]


def test_the_ring_goes_round_the_centre_clockwise_and_leaves_a_border():
    rows, columns = np.array(carousel.PLACES).T + carousel.SCAN / 2 - carousel.SIZE / 2
    np.testing.assert_allclose(np.hypot(rows, columns), 4, atol=0.25)
    assert rows.sum() == columns.sum() == 0
    assert min(map(min, carousel.PLACES)) == carousel.SIZE - max(map(max, carousel.PLACES)) - carousel.SCAN == 4
    angles = np.unwrap(np.arctan2(rows, columns))  # rows go down: growing angles are clockwise
    assert (np.diff(angles) > 0).all()


def test_every_verb_is_a_direction_so_that_flips_are_warned_of():
    assert directions(VERBS) == list(VERBS)
    assert not directions(NOUNS)


def test_progress_counts_to_the_end(scans, tmp_path):
    calls = []
    write_carousel(tmp_path / "new", **COUNTS, frames=8, progress=lambda *call: calls.append(call))
    assert calls == [(done, 24) for done in range(1, 25)]


def test_an_empty_folder_is_filled_and_a_full_one_refused(scans, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    write_carousel(".", **COUNTS, frames=8)
    assert (tmp_path / "empty/carousel.json").is_file()
    with pytest.raises(ValueError, match=r"empty exists already: name a new folder or an empty one"):
        write_carousel(tmp_path / "empty", **COUNTS, frames=8)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file exists already"):
        write_carousel(tmp_path / "file", **COUNTS)


def test_a_failure_leaves_no_files(scans, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_carousel(tmp_path / "new", **COUNTS, progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(seed=-1), r"seed is -1: it must be an integer, 0 or more"),
        (dict(train=6), r"train is 6: it must be a positive multiple of 4"),
        (dict(test=0), r"test is 0: it must be a positive multiple of 4"),
        (dict(frames=12), r"frames is 12: it must be 8 or 16"),
    ],
)
def test_invalid_numbers_are_rejected(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_carousel(tmp_path / "new", **{**COUNTS, **arguments})


def test_the_scans_are_those_of_scikit_learn(scans):
    datasets = pytest.importorskip("sklearn.datasets")
    data, target = datasets.load_digits(return_X_y=True)
    images, digits = scans
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, np.round(data.reshape(1797, 8, 8) * (255 / 16)))
    np.testing.assert_array_equal(digits, target)
