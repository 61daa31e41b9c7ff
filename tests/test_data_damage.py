"""A frame does not depend on where decoding starts, in damaged files too; damage is reported once or is an error."""

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videos import Coding, copy, encode, scene, without_reordering

from vivit.cli.main import main
from vivit.data.clips import BrokenVideoError
from vivit.data.loading import Share, training_batches
from vivit.data.sources import Dataset, Example
from vivit.video import damage, decode
from vivit.video.cache import Cache
from vivit.video.crops import as_stored
from vivit.video.decode import read_frames
from vivit.video.index import probe
from vivit.video.sampling import Sampling
from vivit.video.sliding import stream_frames
from vivit.video.spec import ClipSpec

pytestmark = pytest.mark.fast

os.environ.setdefault("SVT_LOG", "1")
FRAMES, KEYS = 90, 25


def _x264(**options):
    return Coding(options={"g": str(KEYS), "x264-params": "scenecut=0:b-adapt=0", **options})


def _x265(options):
    return Coding(
        "libx265", options={"x265-params": f"keyint={KEYS}:min-keyint={KEYS}:scenecut=0:log-level=none:{options}"}
    )


CODINGS = {
    "h264 forward": ("mp4", _x264(bf="0")),
    "h264 pyramid": ("mkv", _x264(bf="3", **{"x264-params": "scenecut=0:b-adapt=0:b-pyramid=normal"})),
    "h264 open": ("ts", _x264(bf="2", **{"x264-params": "scenecut=0:open-gop=1"})),
    "h264 refreshed": ("mkv", _x264(bf="2", **{"x264-params": "scenecut=0:intra-refresh=1"})),
    "hevc": ("mp4", _x265("open-gop=0")),
    "hevc open": ("ts", _x265("open-gop=1:bframes=3")),
    "vp9": ("webm", Coding("libvpx-vp9", options={"g": str(KEYS), "cpu-used": "8", "lag-in-frames": "12"})),
    "av1": ("mp4", Coding("libsvtav1", options={"g": str(KEYS), "preset": "12"})),
    "jpeg": ("mkv", Coding("mjpeg", "yuvj420p")),
}
CLOSED = ("h264 forward", "h264 pyramid", "hevc", "jpeg")  # no picture refers to one before the keyframe before it


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Returns a function from a coding and the packets to drop to a file; each file is written once."""
    folder, known = tmp_path_factory.mktemp("damaged"), {}

    def get(name, lost=frozenset()):
        if (name, lost) not in known:
            suffix, coding = CODINGS[name]
            path = folder / f"{name} {sorted(lost)}.{suffix}"
            if lost:
                copy(get(name), path, lambda number: number not in lost)
            else:
                encode(path, scene(FRAMES, 64, 64 if name == "av1" else 80), coding)
            known[name, lost] = path
        return known[name, lost]

    return get


RUNS = st.builds(range, st.integers(1, 60), st.integers(61, 80)).map(lambda run: run[:18])
LOST = st.one_of(st.frozensets(st.integers(1, FRAMES - 1), max_size=5), RUNS.map(frozenset))


@settings(max_examples=40)
@given(st.sampled_from(list(CODINGS)), LOST, st.integers(0, 10**6), st.sampled_from([0, 32]))
def test_a_frame_does_not_depend_on_how_it_is_reached(written, name, lost, seed, seek_over):
    path = written(name, lost)
    video, generator = probe(path), np.random.default_rng(seed)
    count = len(video.stamps)
    assert count == FRAMES - len(lost)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decode, "SEEK_OVER", seek_over)
        in_a_row = read_frames(video, range(count))
        for threads in (2, 0):
            assert np.array_equal(read_frames(video, range(count), threads=threads), in_a_row)
        for index in generator.integers(0, count, 6).tolist():
            source, threads = (video, path)[index % 2], int(generator.integers(3))
            assert np.array_equal(read_frames(source, [index], threads=threads)[0], in_a_row[index]), index
        some = np.unique(generator.integers(0, count, 5))
        assert np.array_equal(read_frames(video, some), in_a_row[some])
        for index, picture in stream_frames(video, some, fit=as_stored):
            assert np.array_equal(picture, in_a_row[index]), index


@settings(max_examples=15)
@given(st.sampled_from(CLOSED), st.frozensets(st.integers(1, FRAMES - 1), min_size=1, max_size=3))
def test_where_nothing_was_lost_since_the_keyframe_frames_are_those_of_the_whole_file(written, name, lost):
    whole, cut = probe(written(name)), probe(written(name, lost))
    frames, expected = read_frames(cut, range(len(cut.stamps))), read_frames(whole, range(FRAMES))
    length = 1 if name == "jpeg" else KEYS
    damaged = {number // length for number in lost}  # closed groups are stored one after the other
    for frame, number in zip(frames, np.rint(cut.stamps * 25).astype(int), strict=True):
        assert number // length in damaged or np.array_equal(frame, expected[number]), number


@pytest.fixture(scope="module")
def every_17th_lost(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lost")
    encode(folder / "whole.mp4", scene(150), Coding("libx265", options={"x265-params": "keyint=50:log-level=none"}))
    copy(folder / "whole.mp4", folder / "clip.mp4", lambda number: number % 17 != 16)
    return folder / "clip.mp4"


def test_a_lost_picture_is_the_one_before_it_and_is_counted_once(every_17th_lost, caplog):
    with av.open(str(every_17th_lost)) as container:
        ticks = sorted(packet.pts for packet in container.demux(video=0) if packet.size)
    with av.open(str(every_17th_lost)) as container:
        decoded = {frame.pts: frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)}
    assert len(decoded) < len(ticks) == 142
    video = probe(every_17th_lost)
    with caplog.at_level(logging.WARNING):
        frames = [read_frames(video, [index])[0] for index in range(142)]
    good = [index for index in range(142) if index == 0 or not np.array_equal(frames[index], frames[index - 1])]
    assert 30 < len(good) <= len(decoded)
    for index in good:
        assert np.array_equal(frames[index], decoded[ticks[index]])
    (said,) = caplog.messages
    assert (
        said
        == f"{every_17th_lost}: {142 - len(good)} of 142 frames are damaged, each is replaced by the frame before it"
    )


def test_pictures_damaged_at_the_start_are_the_first_good_one(tmp_path):
    whole, path = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    encode(whole, scene(40), Coding(options={"g": "8", "bf": "2", "x264-params": "scenecut=0"}))
    copy(whole, path, lambda number: number >= 5)
    video = probe(path)
    frames, expected = read_frames(video, range(len(video.stamps))), read_frames(whole, range(40))
    late = 40 - len(frames)
    assert len(frames) == 35
    for index in range(len(frames)):
        assert np.array_equal(frames[index], expected[max(8, index + late)])
        assert np.array_equal(read_frames(path, [index])[0], frames[index])


def test_an_undamaged_stream_that_is_reordered_further_from_the_middle_on_loses_nothing(tmp_path, caplog):
    path, parts = tmp_path / "deeper.ts", [scene(60), scene(50, seed=1)]
    codings = [_x264(bf="0"), _x264(bf="3", **{"x264-params": "scenecut=0:b-adapt=0:b-pyramid=normal"})]
    without_reordering(path, parts, codings)
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 109  # FFmpeg by itself loses one
    video, caplog.handler.level = probe(path), logging.WARNING
    frames = read_frames(video, range(110))
    assert len(np.unique(frames.reshape(110, -1), axis=0)) == 110
    for threads in (1, 2, 0):
        for index in range(0, 110, 7):
            assert np.array_equal(read_frames(video, [index], threads=threads)[0], frames[index])
    assert not caplog.messages


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_jump_in_an_undamaged_file_decodes_from_the_keyframe_alone(tmp_path, monkeypatch, suffix, threads):
    path = tmp_path / f"clip.{suffix}"
    encode(path, scene(400, 32, 32), Coding(options={"g": "20", "bf": "2"}))
    video, counted = probe(path), []
    for module, name in ((decode, "packets"), (decode, "frames"), (damage, "packets")):
        inner = getattr(module, name)
        monkeypatch.setattr(module, name, lambda file, inner=inner: (counted.append(1) or each for each in inner(file)))
    for target in (395, 217):
        for read in (
            lambda target: read_frames(video, [target], threads=threads),
            lambda target: read_frames(path, [target], threads=threads),
            lambda target: list(stream_frames(video, np.array([target]), fit=as_stored, threads=threads)),
        ):
            counted.clear()
            read(target)
            assert 0 < len(counted) <= 20 + 40  # of a group of 20, and what is passed over on the way to it


def _training(path, folder, broken):
    dataset = Dataset((Example(str(path), ((0,),)),), ("label",), (("one",),))
    spec = ClipSpec(sampling=Sampling(frames=8, stride=15), height=32, width=32, cache=Cache(folder))
    with training_batches(dataset, spec, Share(batch=1), broken=broken) as batches:
        return next(batches)


def test_training_refuses_a_damaged_file_or_says_how_much_is_damaged(every_17th_lost, tmp_path, caplog):
    damage._warn.cache_clear()
    assert _training(every_17th_lost, tmp_path, "skip").index.tolist() == [0]
    said = [record.getMessage() for record in caplog.records if record.name == "vivit.data"]
    assert [text.endswith("damaged, each is replaced by the frame before it") for text in said] == [True]
    for _ in range(2):  # nor is what was kept then taken for undamaged
        with pytest.raises(BrokenVideoError, match=r"clip\.mp4: \d+ of 142 frames are damaged"):
            _training(every_17th_lost, tmp_path, "fail")


def test_threads_that_meet_the_same_damage_at_once_say_so_once(every_17th_lost, monkeypatch):
    said = []
    monkeypatch.setattr(damage._log, "warning", lambda *arguments: (time.sleep(0.1), said.append(arguments)))
    damage._warn.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: damage.displayed_frames(str(every_17th_lost), None), range(4)))
    assert len(said) == 1


def test_commands_use_a_damaged_file_and_say_once_how_much_is_damaged(every_17th_lost, caplog):
    damage._warn.cache_clear()
    assert main(["classify", str(every_17th_lost)]) == 0
    assert [
        text.partition(": ")[2].partition(",")[0].endswith("of 142 frames are damaged") for text in caplog.messages
    ] == [True]
