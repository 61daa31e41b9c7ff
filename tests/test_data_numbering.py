"""Missing reference frames of an h264 stream are detected from the frame numbers in its headers."""

from types import SimpleNamespace

import av
import pytest
from videos import Coding, encode, scene

from vivit.video import h264
from vivit.video.h264 import FrameNumbers, is_nonreference, length_size

pytestmark = pytest.mark.fast

CODINGS = {
    "pyramid": {"x264-params": "scenecut=0:b-adapt=0:b-pyramid=normal", "bf": "3", "g": "20"},
    "open groups": {"x264-params": "scenecut=0:open-gop=1", "bf": "2", "g": "20"},
    "refreshed": {"x264-params": "scenecut=0:intra-refresh=1", "bf": "0", "g": "20"},
    "interlaced": {"x264-params": "interlaced=1", "bf": "2", "g": "20"},
    "all colors": {"x264-params": "scenecut=0:cqm=jvt", "bf": "1", "g": "20", "profile": "high444"},
}


@pytest.mark.parametrize("suffix", ["mp4", "ts"])  # units with lengths, units with start codes
@pytest.mark.parametrize("name", CODINGS)
def test_a_missing_reference_frame_is_detected_at_the_next_frame(tmp_path, name, suffix):
    path, pixels = tmp_path / f"clip.{suffix}", "yuv444p" if name == "all colors" else "yuv420p"
    encode(path, scene(60, 64, 80), Coding(pixels=pixels, options=CODINGS[name]))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        prefix = length_size(stream.codec_context)
        whole = FrameNumbers(stream.codec_context)
        assert not any(whole.gap_before(packet) for packet in packets)
        for lost in range(1, 19):
            numbering = FrameNumbers(stream.codec_context)
            told = [numbering.gap_before(packet) for packet in [*packets[:lost], *packets[lost + 1 :]]]
            assert any(told) != is_nonreference(packets[lost], prefix), lost
            assert not any(told) or told.index(True) == lost


def test_an_unreadable_stream_counts_as_missing_frames_and_other_codecs_are_ignored(tmp_path):
    path = tmp_path / "clip.mp4"
    for codec, told in (("libx264", True), ("mjpeg", False)):
        encode(path, scene(3), Coding(codec, "yuvj420p"))
        with av.open(str(path)) as container:
            numbering = FrameNumbers(container.streams.video[0].codec_context)
            assert numbering.gap_before(av.Packet(b"\0\0\0\x02\x41\x01")) == told


def test_a_packet_without_slices_misses_no_frame(tmp_path):
    path = tmp_path / "clip.mp4"
    encode(path, scene(3), Coding())
    with av.open(str(path)) as container:
        numbering = FrameNumbers(container.streams.video[0].codec_context)
    assert numbering.gap_before(av.Packet(b"\0\0\0\x01\x06")) is False  # SEI


def test_extradata_may_end_before_the_parameter_sets():
    assert list(h264._parameter_sets(b"\1\x64\0\x0a\xff")) == []


def code(value):
    """An unsigned Exp-Golomb code (ITU-T H.264, 9.1), as bits."""
    return "0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}"


def signed_code(value):
    return code(2 * value - 1 if value > 0 else -2 * value)


HIGH = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)  # 7.3.2.1.1
ORDERS = (code(0) + code(3), code(1) + "1" + code(5) + code(6) + code(2) + code(7) * 2, code(2))  # of pictures


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("profile", [66, 77, *HIGH])
def test_the_fields_of_a_sequence_are_read_past_those_before_them(profile, order, gaps):
    colors = code(1) + code(0) * 2 + "0" + "0" if profile in HIGH else ""
    bits = f"{profile:08b}" + "0" * 16 + code(3) + colors + code(5) + order + code(4) + f"{gaps:b}"
    found = sequence(bits)
    assert (found.number, found.length, found.gaps_allowed, found.separate_colors) == (3, 9, gaps, False)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(
    "deltas",
    [
        [1, -2, 3] + [0] * 13,  # sixteen entries
        [-8],  # the next entry is 0: the others are as the last
        [120, 127, 1],  # 8 + 248 is 0, as they are counted modulo 256
    ],
)
def test_scaling_lists_are_skipped(deltas, separate):
    lists = "1" + "".join(map(signed_code, deltas)) + "0" * 11
    colors = code(3) + f"{separate:b}" + code(0) * 2 + "0" + "1" + lists
    found = sequence(f"{244:08b}" + "0" * 16 + code(0) + colors + code(6) + code(2) + code(1) + "1")
    assert (found.length, found.gaps_allowed, found.separate_colors) == (10, True, separate)


@pytest.mark.parametrize("separate", [False, True])
def test_the_number_of_a_frame_follows_its_color_plane(separate):
    numbers = object.__new__(FrameNumbers)
    numbers._last = None
    numbers._pictures = {2: SimpleNamespace(separate_colors=separate, length=4, gaps_allowed=False)}
    plane = "01" if separate else ""
    slices = [b"\x61" + packed(code(0) + code(7) + code(2) + plane + f"{number:04b}") for number in (14, 15, 0, 0, 2)]
    assert [numbers._gap_before(memoryview(each)) for each in slices] == [False] * 4 + [True]


def packed(bits):
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def sequence(bits):
    return h264._SequenceParameters(h264._BitReader(memoryview(packed(bits))))


@pytest.mark.parametrize(
    ("header", "alone"),
    [(0x01, True), (0x21, False), (0x41, False), (0x61, False), (0x06, False)],
)
def test_a_frame_is_no_reference_if_its_slices_say_so(header, alone):
    packet = av.Packet(b"\0\0\0\x02" + bytes([header, 0x80]))
    assert is_nonreference(packet, 4) == alone
    assert not is_nonreference(packet, None)


def test_units_are_found_behind_start_codes_that_touch():
    units = [bytes(unit) for unit in h264.nal_units(b"\0\0\1\x41\0\0\1\0\0\1\x06\x07", 0)]
    assert [unit[:1] for unit in units] == [b"\x41", b"\0", b"\x06"]
