"""Cached frames are the decoded ones; damaged entries are decoded again; the folder stays within its limit."""

import logging
import os

import numpy as np
import pytest
from videos import write_video

from vivit.video.cache import Cache, cached_frames
from vivit.video.crops import as_stored
from vivit.video.decode import read_frames
from vivit.video.index import probe

pytestmark = pytest.mark.fast

STORED = np.arange(10)


@pytest.fixture
def video(tmp_path):
    write_video(tmp_path / "clip.mkv", 12, height=16, width=24)
    return probe(tmp_path / "clip.mkv")


@pytest.fixture
def calls():
    return []


@pytest.fixture
def get(video, tmp_path, calls):
    """Returns frames through a cache, and appends every decoding to `calls`."""
    cache = Cache(tmp_path / "cache")

    def get(wanted, cache=cache, stored=STORED):
        def decode(indices):
            calls.append(len(indices))
            return read_frames(video, indices)

        frames = cached_frames(cache, video, stored, np.array(wanted), as_stored(16, 24), decode)
        assert np.array_equal(frames, read_frames(video, wanted))
        return cache

    return get


def test_frames_are_decoded_once(get, calls):
    for wanted in ([0, 4], [9, 9, 1], [3]):
        cache = get(wanted)
    assert calls == [10]
    assert 10 * 16 * 24 * 3 < cache.size() < 10 * 16 * 24 * 3 + 1000


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "header", "text"])
def test_a_damaged_entry_is_detected_and_written_again(get, calls, caplog, damage):
    cache = get([0, 5])
    (entry,) = cache.folder.iterdir()
    data = bytearray(entry.read_bytes())
    if damage == "bit":
        data[-3 * 16 * 24 * 3] ^= 1  # in frame 7
    elif damage == "header":
        data[10:40] = b"x" * 30
    entry.write_bytes({"cut": data[:-100], "empty": b"", "text": b"no entry"}.get(damage, data))
    with caplog.at_level(logging.WARNING, "vivit.data"):
        get([7])
        get([7])
    assert calls == [10, 10]
    assert len(caplog.records) == 1
    assert "is decoded again" in caplog.text


def test_a_changed_video_is_another_entry(get, calls, video):
    get([1])
    write_video(video.path, 11, height=16, width=24)
    os.utime(video.path, ns=(1, 1))
    get([1])
    assert calls == [10, 10]


def test_the_least_recently_used_entry_is_removed_first(get, calls, video, tmp_path):
    one = 16 * 24 * 3
    cache = Cache(tmp_path / "small", limit=7 * one + 2000)
    for start in (0, 3):
        get([start], cache, np.arange(start, start + 3))
    for entry in cache.folder.iterdir():
        os.utime(entry, (1, 1))
    get([1], cache, np.arange(0, 3))  # used again
    get([6], cache, np.arange(6, 9))
    assert cache.size() <= cache.limit
    get([1], cache, np.arange(0, 3))
    assert calls == [3, 3, 3]
    get([4], cache, np.arange(3, 6))
    assert calls == [3, 3, 3, 3]


def test_files_of_killed_processes_are_removed_when_the_cache_is_opened(tmp_path):
    left = tmp_path / ".vivit-killed.partial"
    left.mkdir()
    (left / "entry.frames").write_bytes(bytes(100))
    assert Cache(tmp_path).size() == 0
    assert not left.exists()


@pytest.mark.parametrize("bound", ["limit", "largest"])
def test_videos_larger_than_the_limit_are_decoded_without_the_cache(get, calls, tmp_path, bound):
    cache = get([2], Cache(tmp_path / "tiny", **{bound: 100}))
    assert calls == [1]
    assert cache.size() == 0
    with pytest.raises(ValueError, match=f"{bound} is 0: it must be a positive number of bytes"):
        Cache(tmp_path / "tiny", **{bound: 0})


def test_decoding_goes_on_where_the_cache_cannot_be_written(get, caplog, monkeypatch):
    def full(*arguments, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with caplog.at_level(logging.WARNING, "vivit.data"):
        cache = get([2])
    assert "decoding continues without it: no space left" in caplog.text
    assert cache.size() == 0
