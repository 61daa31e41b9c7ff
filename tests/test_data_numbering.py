"""What is lost from an h264 stream is told from the numbers of its pictures, where others refer to them."""

import av
import pytest
from videos import Coding, encode, scene

from vivit.data.numbering import Numbering
from vivit.data.sparing import can_be_spared, prefix_of

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
def test_a_lost_picture_is_told_before_the_next_one_if_others_refer_to_it(tmp_path, name, suffix):
    path, pixels = tmp_path / f"clip.{suffix}", "yuv444p" if name == "all colors" else "yuv420p"
    encode(path, scene(60, 64, 80), Coding(pixels=pixels, options=CODINGS[name]))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        prefix = prefix_of(stream.codec_context)
        whole = Numbering(stream.codec_context)
        assert not any(whole.lost_before(packet) for packet in packets)
        for lost in range(1, 19):
            numbering = Numbering(stream.codec_context)
            told = [numbering.lost_before(packet) for packet in [*packets[:lost], *packets[lost + 1 :]]]
            assert any(told) != can_be_spared(packets[lost], prefix), lost
            assert not any(told) or told.index(True) == lost


def test_a_stream_that_cannot_be_read_is_told_as_lost_and_other_codecs_never(tmp_path):
    path = tmp_path / "clip.mp4"
    for codec, told in (("libx264", True), ("mjpeg", False)):
        encode(path, scene(3), Coding(codec, "yuvj420p"))
        with av.open(str(path)) as container:
            numbering = Numbering(container.streams.video[0].codec_context)
            assert numbering.lost_before(av.Packet(b"\0\0\0\x02\x41\x01")) == told
