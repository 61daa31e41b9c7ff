"""Reading real video files, and one-line errors for files that are not videos."""

from itertools import islice

import av
import numpy as np
import pytest
from videos import write_audio, write_video

from vivit.video.clip import read_clip

pytestmark = pytest.mark.fast


@pytest.fixture
def clip_path(tmp_path):
    path = tmp_path / "clip.mkv"
    write_video(path, 20)
    return path


def test_frames_are_taken_at_the_stride_from_the_start(clip_path):
    clip = read_clip(clip_path, frames=4, height=48, width=64, stride=3, start=5)
    assert clip.shape == (4, 48, 64, 3)
    assert clip.dtype == np.uint8
    assert clip[:, 0, 0, 0].tolist() == [40, 64, 88, 112]  # frames 5, 8, 11, 14 times 8
    assert clip[:, 0, -1, 2].tolist() == [215, 191, 167, 143]


def test_the_last_frame_that_fits_is_read_and_one_more_is_refused(clip_path):
    assert read_clip(clip_path, frames=7, height=48, width=64, stride=3, start=1)[-1, 0, 0, 0] == 19 * 8
    with pytest.raises(ValueError, match="has 20 frames: 7 frames at stride 3 from frame 2 on need 21"):
        read_clip(clip_path, frames=7, height=48, width=64, stride=3, start=2)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (96, 20), (50, 160), (7, 13)])
def test_the_frame_covers_any_size_and_its_centre_is_kept(clip_path, height, width):
    clip = read_clip(clip_path, frames=1, height=height, width=width)
    assert clip.shape == (1, height, width, 3)
    assert clip[0, height // 2, 0, 0] == 0
    assert clip[0, height // 2, -1, 0] == 255
    left = clip[0, :, : max(1, width // 2 - 4), 0]
    assert (left <= 2).all()  # no black bars, the edge stays in the middle


def test_the_demo_clip_equals_exact_sequential_decoding(demo_path):
    clip = read_clip(demo_path, frames=5, height=360, width=640, stride=4, start=3)
    with av.open(str(demo_path)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), 20)]
    for taken, index in zip(clip, range(3, 20, 4), strict=True):
        assert np.array_equal(taken, decoded[index])
    assert clip.std() > 20  # it is a picture


def test_the_demo_clip_has_132_frames(demo_path):
    read_clip(demo_path, frames=132, height=16, width=16, stride=1)
    with pytest.raises(ValueError, match="has 132 frames: 133 frames at stride 1 from frame 0 on need 133"):
        read_clip(demo_path, frames=133, height=16, width=16, stride=1)


def test_files_that_are_no_videos_are_refused_in_one_line(tmp_path):
    text, empty, audio = tmp_path / "notes.mp4", tmp_path / "empty.mp4", tmp_path / "sound.wav"
    text.write_text("this is no video\n" * 100)
    empty.write_bytes(b"")
    write_audio(audio)
    for path, reason in (
        (text, "cannot be read as a video: "),
        (empty, "cannot be read as a video: "),
        (audio, "has no video stream: it must be a video"),
        (tmp_path, "is not a file: it must be a video"),
        (tmp_path / "missing.mp4", "is not a file: it must be a video"),
    ):
        with pytest.raises(ValueError, match=reason) as error:
            read_clip(path, frames=1)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused_if_what_is_needed_is_cut_off(clip_path, demo_path, tmp_path):
    whole = clip_path.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    assert len(read_clip(cut, frames=5, height=48, width=64, stride=1)) == 5  # those are still there
    with pytest.raises(ValueError, match=r"cut\.mkv (has \d+ frames: .* need 20|cannot be read as a video after)"):
        read_clip(cut, frames=20, height=48, width=64, stride=1)
    head = tmp_path / "head.mp4"
    head.write_bytes(demo_path.read_bytes()[:50_000])
    with pytest.raises(ValueError, match=r"head\.mp4 (has \d+ frames|cannot be read as a video)"):
        read_clip(head, frames=132, height=16, width=16, stride=1)


@pytest.mark.parametrize("argument", [{"frames": 0}, {"height": 0}, {"width": -1}, {"stride": 0}, {"start": -1}])
def test_invalid_sizes_are_rejected(clip_path, argument):
    (name, value), = argument.items()  # fmt: skip
    with pytest.raises(ValueError, match=f"{name} is {value}: it must be at least"):
        read_clip(clip_path, **argument)
