"""Every frame of awkward and real files equals that of sequential decoding; files that are not videos raise errors."""

import os
import struct
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import av
import numpy as np
import pytest
from awkward import AWKWARD
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from videos import Coding, encode, scene, write_audio

from vivit.video import decode
from vivit.video.container import Limits
from vivit.video.crops import cover
from vivit.video.decode import ShortVideoError, read_frames
from vivit.video.index import _stamps, frame_index, probe

TURNS = {
    "turned_90": lambda frame: np.rot90(frame, 1),
    "turned_180": lambda frame: np.rot90(frame, 2),
    "turned_270": lambda frame: np.rot90(frame, -1),
    "mirrored": lambda frame: frame[:, ::-1],
    "turned_and_mirrored": lambda frame: np.rot90(frame[:, ::-1], -1),
}
STAMPED = {  # of the others frames are counted
    "variable_frame_rate",
    "one_keyframe",
    "declares_a_hundredth",
    "two_video_streams",
    *TURNS,
    "one_frame",
    "odd_sizes",
    "grey",
    "ten_bit",
    "ten_bit_hevc",
    "open_groups_of_pictures",
    "no_keyframes_but_refresh",
    "refresh_in_a_transport_stream",
    "transport_stream",
    "starts_before_zero",
    "hidden_frames_vp9",
    "av1",
    "live_vp9",
    "live_h264_that_breaks_off",
    "fragments",
    "starts_late",
    "cover_picture",
    "dumped_jpegs",
    "parts_of_a_webcam",
    "ivf",
    "wide_pixels",
    "full_range",
    "half_chroma",
    "interlaced_h264",
    "flash",
    "a_gap_in_time",
    "equal_stamps",
    "starts_between_keyframes",
    "cut_between_keyframes",
    "loses_packets",
}
UNEVEN = {
    "variable_frame_rate",
    "live_vp8",
    "live_vp9",
    "live_h264_that_breaks_off",
    "a_gap_in_time",
    "frames_left_out_of_avi",
    "loses_packets",
    "cut_between_keyframes",
    "equal_stamps",
}
REAL = ("bikes.mp4", "carphone_pristine.mp4", "carphone_distorted.mp4")


def sequential(path, stream=0):
    """Returns all frames, uint8[n h w 3], and their timestamps, decoded in order by one thread."""
    frames, stamps = zip(*((_rgb(frame), frame.time) for frame in _decoded(path, stream)), strict=True)
    return np.stack(frames), stamps


def on_screen(path, stream=0):
    """Returns the frame displayed at every packet's timestamp: the frame with this timestamp, else the one before it.

    Frames before the first keyframe are ignored, and decoding restarts at every keyframe of a damaged file.
    """
    with av.open(str(path)) as container:
        base = container.streams.video[stream].time_base
        packets = [packet for packet in container.demux(container.streams.video[stream]) if packet.size]
    stamps = sorted({packet.pts for packet in packets if not packet.is_discard})
    start = next((packet.pts for packet in packets if packet.is_keyframe), stamps[0])
    coming = _decoded(path, stream, anew=any(packet.is_corrupt for packet in packets))
    decoded = {frame.pts: _rgb(frame) for frame in coming if frame.pts >= start and not frame.is_corrupt}
    shown, frames = next(iter(decoded.values())), []
    for stamp in stamps:
        shown = decoded.get(stamp, shown)
        frames.append(shown)
    return np.stack(frames), [float(stamp * base) for stamp in stamps]


def _rgb(frame):
    return frame.to_ndarray(format="gbrp")


def _decoded(path, stream, anew=False):
    with av.open(str(path)) as container:
        video = container.streams.video[stream]
        video.codec_context.thread_count = 1
        for packet in container.demux(video):
            if anew and packet.is_keyframe and not packet.is_corrupt:
                yield from video.decode(None)
                video.codec_context.flush_buffers()
            yield from packet.decode()


@pytest.fixture(scope="module")
def awkward(tmp_path_factory):
    """Returns a function from a name to the path, frames and timestamps of an awkward file; each is written once."""
    folder, known = tmp_path_factory.mktemp("awkward"), {}

    def get(name):
        if name not in known:
            suffix, write = AWKWARD[name]
            path = folder / f"{name}.{suffix}"
            write(path)
            frames, stamps = (on_screen if name in STAMPED else sequential)(path, name == "two_video_streams")
            known[name] = path, np.stack([TURNS.get(name, np.asarray)(frame) for frame in frames]), stamps
        return known[name]

    return get


@pytest.mark.fast
@pytest.mark.parametrize("name", AWKWARD)
def test_every_frame_of_an_awkward_file_is_the_right_one(awkward, name, monkeypatch):
    path, expected, _ = awkward(name)
    video = probe(path)
    assert (len(video.stamps), video.height, video.width) == expected.shape[:3]
    assert (video.table is not None) == (name in STAMPED)
    monkeypatch.setattr(decode, "SEEK_OVER", 0)
    for index in range(len(expected)):
        assert np.array_equal(read_frames(video, [index])[0], expected[index]), index
    for threads in (1, 3):
        assert np.array_equal(read_frames(path, range(len(expected)), threads=threads), expected)
    with pytest.raises(ShortVideoError, match=f"has {len(expected)} frames: frame {len(expected)} was requested"):
        read_frames(path, [0, len(expected)])


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system tells no thread's scheduling")
def test_an_encoder_that_takes_priority_gives_it_back(tmp_path):
    before = os.sched_getscheduler(0)
    encode(tmp_path / "clip.mp4", scene(2, 64, 64), Coding("libsvtav1", options={"preset": "12"}))
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize("name", AWKWARD)
def test_stamps_are_those_of_the_decoded_frames_where_they_increase(awkward, name):
    path, expected, stamps = awkward(name)
    video = probe(path)
    if None in stamps or (np.diff(stamps) <= 0).any():
        stamps = np.arange(len(expected)) / 25
    np.testing.assert_allclose(video.stamps, np.subtract(stamps, stamps[0]), atol=1e-9)
    assert name in UNEVEN or abs(video.rate - 25) < 1e-6


@pytest.mark.fast
@pytest.mark.parametrize("ticks", [[5, 9, 9, 13], [5, 9, 8, 13], [5, None, 13, 17]])
def test_stamps_that_are_missing_or_do_not_increase_are_those_of_the_declared_rate(ticks):
    stream = SimpleNamespace(time_base=Fraction(1, 100), average_rate=Fraction(5), guessed_rate=None)
    np.testing.assert_allclose(_stamps(SimpleNamespace(stream=stream), ticks), [0, 0.2, 0.4, 0.6])
    np.testing.assert_allclose(_stamps(SimpleNamespace(stream=stream), [5, 6, 13]), [0, 0.01, 0.08])


@pytest.fixture(scope="module")
def real(real_films):
    return {name: (real_films[name], probe(real_films[name]), sequential(real_films[name])[0]) for name in REAL}


@pytest.mark.fast
@given(st.sampled_from(REAL), st.lists(st.integers(0, 10**6), min_size=1, max_size=6), st.booleans())
def test_any_frames_of_real_videos_in_any_order_are_the_right_ones(real, name, numbers, probed):
    path, video, expected = real[name]
    indices = [number % len(expected) for number in numbers]
    assert np.array_equal(read_frames(video if probed else path, indices), expected[indices])


@pytest.mark.fast
def test_a_real_video_with_one_keyframe_is_read_to_its_end(real_films):
    path = real_films["bigbuckbunny.mp4"]
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    assert len(probe(path).stamps) == len(decoded) == 132
    assert np.array_equal(read_frames(path, [131])[0], decoded[131].to_ndarray(format="rgb24"))


def test_pictures_are_scaled_and_cut_before_they_are_turned(awkward):
    path, _, _ = awkward("turned_90")
    with av.open(str(path)) as container:
        stored = Image.fromarray(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    scaled = np.asarray(stored.resize((96, 72), Image.Resampling.BILINEAR), np.int64)
    taken = read_frames(path, [0], fit=partial(cover, tall=96, wide=50))
    assert abs(taken[0] - np.rot90(scaled)[:, 11:61]).max() <= 1


def test_where_the_size_changes_every_frame_alone_has_its_own_and_several_have_that_of_the_first(tmp_path):
    path, parts = tmp_path / "grows.h264", []
    for number, (height, width) in enumerate([(48, 64), (96, 128)]):
        part = tmp_path / f"{number}.h264"
        encode(part, scene(10, height, width, seed=number), Coding(options={"g": "5", "bf": "2"}))
        parts.append(part)
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    small, large = (sequential(part)[0] for part in parts)
    for index in range(20):
        assert np.array_equal(read_frames(path, [index])[0], small[index] if index < 10 else large[index - 10])
    both = read_frames(path, [9, 15])
    assert both.shape == (2, 48, 64, 3)
    assert np.array_equal(both[0], small[9])


@given(st.sets(st.integers(0, 59), min_size=1, max_size=12))
def test_skipped_frames_change_no_requested_frame(forward_and_back, wanted):
    video, expected = forward_and_back
    indices = sorted(wanted)
    assert np.array_equal(read_frames(video, indices), expected[indices])


def test_non_reference_frames_are_skipped_if_they_are_not_requested(forward_and_back, monkeypatch):
    video, expected = forward_and_back
    came, decoded = [], decode._decoded
    monkeypatch.setattr(decode, "_decoded", lambda *given: (came.append(1) or each for each in decoded(*given)))
    assert np.array_equal(read_frames(video, range(0, 60, 4)), expected[::4])
    assert len(came) <= 40  # of three frames between two references two are referred to by none


@pytest.fixture(scope="module")
def forward_and_back(tmp_path_factory):
    """Returns a file with non-reference frames, and frames between references that others refer to."""
    path = tmp_path_factory.mktemp("pyramid") / "clip.mp4"
    options = {"g": "25", "bf": "3", "x264-params": "b-adapt=0:b-pyramid=normal:scenecut=0"}
    encode(path, scene(60), Coding(options=options))
    return probe(path), sequential(path)[0]


@pytest.fixture
def decoded_packets(monkeypatch):
    """Counts the packets that reach a decoder where keyframes can be sought."""
    counted, packets = [], decode.packets
    monkeypatch.setattr(decode, "packets", lambda file: (counted.append(1) or each for each in packets(file)))
    return counted


def test_of_a_ten_hour_file_only_what_is_needed_is_decoded(tmp_path, decoded_packets):
    path = tmp_path / "long.mp4"
    stamps = range(0, 900 * 4000, 4000)  # every 40 s
    encode(path, np.tile(scene(30, 32, 32), (30, 1, 1, 1)), Coding(options={"g": "30", "bf": "2"}, stamps=stamps))
    video = probe(path)
    assert (len(video.stamps), video.stamps[-1]) == (900, 35_960)
    expected = sequential(path)[0]
    for read in (video, path):
        decoded_packets.clear()
        assert np.array_equal(read_frames(read, [5, 400, 401, 899]), expected[[5, 400, 401, 899]])
        assert len(decoded_packets) < 90


def test_a_misleading_keyframe_is_detected(tmp_path, decoded_packets):
    path = tmp_path / "clip.mp4"
    encode(path, scene(120), Coding(options={"g": "12", "bf": "2"}))
    video, expected = probe(path), sequential(path)[0]
    table = video.table
    moved = table._replace(ticks=table.ticks + (np.arange(120) > 70))  # a stamp that no frame has
    wrong = type(video)(**{**vars(video), "table": moved})
    assert np.array_equal(read_frames(wrong, [50, 90]), expected[[50, 90]])
    halves = table._replace(ticks=np.sort([table.ticks, table.ticks + 1], axis=None))  # as of fields, two to a frame
    wrong = type(video)(**{**vars(video), "table": halves})
    assert np.array_equal(read_frames(wrong, [0, 4, 8]), expected[[0, 4, 8]])
    unclean = table._replace(keys=np.arange(120))  # frames at which decoding cannot start
    wrong = type(video)(**{**vars(video), "table": unclean})
    assert np.array_equal(read_frames(wrong, [90, 5]), expected[[90, 5]])


def test_broken_files_are_refused_in_one_line(tmp_path, demo_path):
    def made(name, data=b""):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    whole = demo_path.read_bytes()
    sound, still = tmp_path / "sound.wav", tmp_path / "still.mp4"
    write_audio(sound)
    encode(still, scene(1)[:0], Coding())
    files = [
        (made("empty.mp4"), "cannot be read as a video: "),
        (made("text.mp4", b"no video\n" * 99), "cannot be read as a video: "),
        (made("head.mp4", whole[:1000]), "cannot be read as a video: "),
        (made("tail.mp4", whole[len(whole) // 2 :]), "cannot be read as a video: "),
        (sound, "has no video stream"),
        (still, "has no video stream|has 0 frames|cannot be read as a video"),
        (tmp_path / "missing.mp4", "is not a file: it must be a video"),
        (tmp_path, "is not a file: it must be a video"),
    ]
    for path, reason in files:
        for read in (probe, partial(read_frames, indices=[0])):
            with pytest.raises(ValueError, match=reason) as error:
                read(path)
            assert str(path) in str(error.value)
            assert "\n" not in str(error.value)


def test_a_cover_picture_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        cover_stream = container.add_stream("mjpeg", rate=25)
        cover_stream.width, cover_stream.height, cover_stream.pix_fmt = 64, 48, "yuvj420p"
        cover_stream.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(scene(1)[0])
        for packet in [*cover_stream.encode(picture), *cover_stream.encode(None)]:
            container.mux(packet)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        for packet in [*sound.encode(silence), *sound.encode(None)]:
            container.mux(packet)
    with pytest.raises(ValueError, match="has no video stream"):
        probe(path)


def test_a_title_in_another_encoding_is_no_reason_to_refuse_a_video(tmp_path):
    path = tmp_path / "titled.mkv"
    encode(path, scene(2), Coding("ffv1"), title="caf\N{LATIN SMALL LETTER E WITH ACUTE} ")
    path.write_bytes(path.read_bytes().replace("\N{LATIN SMALL LETTER E WITH ACUTE} ".encode(), b"\xe9\xff "))
    assert len(probe(path).stamps) == 2


def test_pictures_beyond_the_limit_are_refused_and_the_limit_can_be_raised(tmp_path):
    path = tmp_path / "large.mkv"
    encode(path, scene(3, 64, 96), Coding("ffv1"))
    with pytest.raises(ValueError, match="has pictures of 96x64: they must have at most 6143 pixels"):
        probe(path, limits=Limits(pixels=64 * 96 - 1))
    assert len(probe(path, limits=Limits(pixels=64 * 96)).stamps) == 3
    with pytest.raises(ValueError, match="has more than 2 packets"):
        probe(path, limits=Limits(packets=2))


def test_absurd_dimensions_are_refused_before_anything_is_decoded(tmp_path):
    path = tmp_path / "absurd.avi"
    encode(path, scene(3), Coding("ffv1"))
    whole = path.read_bytes()
    place = whole.index(b"strf") + 8 + 4
    path.write_bytes(whole[:place] + struct.pack("<ii", 60_000, 60_000) + whole[place + 8 :])
    with pytest.raises(ValueError, match=r"absurd\.avi (has pictures|cannot be read as a video)"):
        probe(path)


@pytest.mark.parametrize("indices", [[], [-1], [3, -2]])
def test_invalid_frame_numbers_are_rejected(demo_path, indices):
    with pytest.raises(ValueError, match="they must be frame numbers, from 0"):
        read_frames(demo_path, indices)


@pytest.mark.fast
def test_a_file_without_faults_is_decoded_by_its_timestamps_alone(tmp_path, monkeypatch):
    encode(tmp_path / "clip.mp4", scene(40), Coding())
    expected = read_frames(tmp_path / "clip.mp4", [3, 39])
    monkeypatch.delattr(decode, "displayed_frames")  # which would decode the file from its start
    assert np.array_equal(read_frames(tmp_path / "clip.mp4", [3, 39]), expected)


@pytest.mark.fast
@pytest.mark.parametrize(("tick", "index"), [(0, 0), (10, 1), (20, 2), (5, None), (25, None), (-1, None), (None, None)])
def test_a_timestamp_is_found_among_those_of_the_table_or_is_none_of_them(tick, index):
    assert frame_index(np.array([0, 10, 20]), tick) == index
