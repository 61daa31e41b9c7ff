"""Files that refer to others, never end or are not videos: a one-line error names the file, and no other is read."""

import os
import re
import socket
from functools import partial

import numpy as np
import pytest
from videos import Coding, encode, scene, write_audio

from vivit import Limits, read_clip
from vivit.video.decode import read_frames
from vivit.video.index import probe

pytestmark = pytest.mark.fast

READERS = (probe, partial(read_frames, indices=[0]), partial(read_clip, frames=1))
HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.6,\n{}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1" width="64" height="48">'
    "<BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>"
)
CONCAT = "ffconcat version 1.0\nfile {}\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {} RTP/AVP 96\na=rtpmap:96 H264/90000\n"


def refused(path, reason="cannot be read as a video"):
    for read in READERS:
        with pytest.raises(ValueError, match=reason) as error:
            read(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """Changes to a folder that contains secret.ts, a video that no test names."""
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "secret.ts", scene(8), Coding("mpeg2video"))
    return tmp_path


@pytest.mark.parametrize("suffix", ["m3u8", "mp4", "txt"])
@pytest.mark.parametrize("playlist", [HLS, DASH, CONCAT])
def test_a_playlist_does_not_lead_to_other_files(beside, playlist, suffix):
    path = beside / f"list.{suffix}"
    for name in ("secret.ts", beside / "secret.ts", f"file:{beside / 'secret.ts'}"):
        path.write_text(playlist.format(name))
        refused(path)


@pytest.mark.parametrize("playlist", [HLS, DASH, CONCAT, SDP])
def test_a_playlist_does_not_lead_to_the_network(tmp_path, playlist):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        path = tmp_path / "list.m3u8"
        path.write_text(playlist.format(port if playlist is SDP else f"http://127.0.0.1:{port}/secret.ts"))
        refused(path)
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()


def test_a_name_is_never_read_as_an_address_or_a_sequence(beside):
    inner = scene(3)
    for name in (
        "concat:secret.ts|secret.ts",
        "subfile,,start,0,end,0,,:secret.ts",
        "http:/127.0.0.1:9/x.avi",
        "%03d.avi",
    ):
        path = beside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(beside / "inner.avi", inner, Coding("rawvideo", "bgr24"))
        os.replace(beside / "inner.avi", path)
        assert np.array_equal(read_frames(name.replace(":/1", "://1"), range(3)), inner)


def test_a_series_of_pictures_and_a_text_are_no_videos(beside):
    for number in range(3):
        encode(beside / f"{number:03d}.png", scene(1), Coding("png", "rgb24", container={"update": "1"}))
    (beside / "000.png").rename(beside / "%03d.png")
    refused(beside / "%03d.png")
    for suffix in ("txt", "nfo", "ans", "mp4"):
        (beside / f"letter.{suffix}").write_text("\x1b[31mDear reader,\n" * 99)
        refused(beside / f"letter.{suffix}")


def test_endless_files_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe.mp4", tmp_path / "zero.mp4", "/dev/zero", tmp_path):
        refused(path, "is not a file: it must be a video")


def test_an_error_of_the_system_is_one_line(tmp_path):
    for read in READERS:
        with pytest.raises(ValueError, match="a path has at most 4,095") as error:
            read("x" * 5000)
        assert len(str(error.value)) < 600
        for name in ("a\0b", "\ud800"):
            with pytest.raises(
                ValueError, match=re.escape(f"{name!r} is no path: it must consist of characters that file")
            ):
                read(name)
    refused("/proc/self/mem")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    refused(tmp_path / "loop.mp4", "loop.mp4 cannot be read: Too many levels of symbolic links")
    if os.geteuid():  # root may read everything
        path = tmp_path / "locked.mp4"
        encode(path, scene(2), Coding())
        path.chmod(0)
        refused(path, "cannot be read as a video: Permission denied")


def test_names_that_are_no_text_are_opened(tmp_path):
    inner = scene(3)
    for name in ("caf\udce9.avi", "a\nb.avi", "-i.avi", "100%.avi", "a?b#c&d.avi"):
        encode(tmp_path / "inner.avi", inner, Coding("rawvideo", "bgr24"))
        os.replace(tmp_path / "inner.avi", tmp_path / name)
        assert np.array_equal(read_frames(tmp_path / name, range(3)), inner)


def test_a_file_cut_anywhere_gives_frames_or_one_line(tmp_path):
    for suffix, coding in (
        ("mp4", Coding()),
        ("mkv", Coding()),
        ("ts", Coding("mpeg2video")),
        ("avi", Coding("mpeg4")),
    ):
        whole = tmp_path / f"whole.{suffix}"
        encode(whole, scene(12), coding)
        data, cut, ends = whole.read_bytes(), tmp_path / f"cut.{suffix}", set()
        for length in range(0, len(data), len(data) // 40):
            cut.write_bytes(data[:length])
            taken = attempt(cut)
            assert isinstance(taken, str) or taken.shape == (1, 48, 64, 3)
            ends.add(type(taken))
        assert ends == {str, np.ndarray}


def attempt(path):
    """Returns frame 2, or the text of a one-line error that names the file."""
    try:
        return read_frames(path, [2])
    except ValueError as error:
        text = str(error)
    return text if str(path) in text and "\n" not in text else None


def test_sound_alone_has_no_video_stream(tmp_path):
    for suffix in ("wav", "mkv"):
        write_audio(tmp_path / f"sound.{suffix}")
        refused(tmp_path / f"sound.{suffix}", "has no video stream")


def test_limits_of_a_clip_can_be_set(tmp_path):
    path = tmp_path / "clip.mkv"
    encode(path, scene(3, 64, 96), Coding("ffv1"))
    with pytest.raises(ValueError, match=r"clip\.mkv has pictures of 96x64: they must have at most 6143 pixels"):
        read_clip(path, frames=3, stride=1, limits=Limits(pixels=64 * 96 - 1))
    assert len(read_clip(path, frames=3, stride=1, limits=Limits(pixels=64 * 96))) == 3
