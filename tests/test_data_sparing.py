"""Non-reference frames of an h264 stream are recognised by their NAL headers, and no other frame is skipped."""

import av
import pytest
from videos import Coding, encode, scene

from vivit.video.h264 import is_nonreference, length_size

pytestmark = pytest.mark.fast


def packets(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return length_size(stream.codec_context), [packet for packet in stream.container.demux(stream) if packet.size]


@pytest.mark.parametrize(("suffix", "prefix"), [("mp4", 4), ("ts", 0)])
def test_of_three_frames_between_references_two_can_be_skipped(tmp_path, suffix, prefix):
    path = tmp_path / f"clip.{suffix}"
    options = {"g": "100", "bf": "3", "x264-params": "b-adapt=0:b-pyramid=normal:scenecut=0:open-gop=0"}
    encode(path, scene(25), Coding(options=options))
    found, coming = packets(path)
    assert found == prefix
    # stored: a reference, the middle of the three before it, which the other two refer to, and those two
    assert [is_nonreference(packet, prefix) for packet in coming] == [False] + [False, False, True, True] * 6


@pytest.mark.parametrize(
    ("units", "spared"),
    [
        ([0x01, 0x01], True),  # slices that nothing refers to
        ([0x06, 0x01], True),  # a remark before one
        ([0x01, 0x41], False),  # another slice that is referred to
        ([0x67, 0x01], False),  # parameters that a later picture needs
        ([0x06], False),  # no picture at all
        ([0x02, 0x01], False),  # a slice in parts
        ([], False),
    ],
)
def test_all_units_of_a_skipped_packet_must_be_non_reference(units, spared):
    lengths = b"".join(bytes([0, 2, unit, 0x80]) for unit in units)
    starts = b"".join(bytes([0, 0, 1, unit, 0x80]) for unit in units)
    assert is_nonreference(av.Packet(lengths), 2) == spared
    assert is_nonreference(av.Packet(starts), 0) == spared
    assert not is_nonreference(av.Packet(lengths), None)  # another codec


def test_wrong_lengths_end_the_search(tmp_path):
    assert not is_nonreference(av.Packet(b"\xff\xff\xff\xff\x41"), 4)
    assert is_nonreference(av.Packet(b"\x00\x00\x00\x02\x01\x80\x00\x00\x00\xff\x01"), 4)
