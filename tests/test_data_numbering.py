"""Missing reference frames of an h264 stream are detected from the frame numbers in its headers."""

import av
import pytest
from videos import Coding, encode, scene

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
