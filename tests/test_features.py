"""Features of clips that slide over a video: frames, stages, and files of any length."""

import os
from dataclasses import replace
from itertools import pairwise

import checkpoints
import numpy as np
import pytest
from accuracy import assert_same
from hypothesis import given
from hypothesis import strategies as st
from videos import Coding, encode, scene

import vivit
from vivit.cli.main import main
from vivit.files.npz_writer import open_npz
from vivit.inference.features import features_of_videos, stream_features
from vivit.model_data import clip_spec
from vivit.reference import models as reference
from vivit.video import sliding
from vivit.video.crops import as_stored
from vivit.video.index import probe
from vivit.video.preprocessing import Preprocessing
from vivit.video.sliding import sliding_clips, stream_frames

TINY = replace(vivit.named("vivit-tiny/8x2"), classes=(2, 3))  # 8 frames of 32x32
LOSSLESS = Coding("ffv1", "bgr0")
MODELS = ("spatio_temporal", "factorised_encoder", "factorised_self_attention", "factorised_dot_product")


def model_of(name="spatio_temporal", **fields):
    pooling = "mean" if name in MODELS[2:] else "token"
    config = replace(TINY, model=name, **{"pooling": pooling, **fields})
    return checkpoints.model(config, preprocessing=Preprocessing(resize=32, crop=None))


@given(length=st.integers(1, 60), stride=st.integers(1, 3), clip_stride=st.one_of(st.none(), st.integers(1, 20)))
def test_clips_begin_every_clip_stride_and_end_with_the_last_frame(length, stride, clip_stride):
    video = np.zeros((length, 32, 32, 3), np.uint8)
    video[:] = np.arange(length)[:, None, None, None]
    found = sliding_clips(clip_spec(model_of(), video, stride=stride), video, clip_stride=clip_stride)
    clips = list(found.clips)
    assert len(clips) == found.total
    span = 7 * stride + 1
    starts = [where.indices[0] for where, _ in clips]
    assert starts[0] == 0
    if length >= span:
        assert max(where.indices.max() for where, _ in clips) == length - 1
        assert all(late - early == (clip_stride or 8 * stride) for early, late in pairwise(starts[:-1]))
        assert len(starts) < 2 or starts[-1] - starts[-2] <= (clip_stride or 8 * stride)
    for where, pixels in clips:
        assert np.array_equal(where.indices, (where.indices[0] + stride * np.arange(8)) % length)
        assert np.array_equal(pixels[:, 0, 0, 0], where.indices)
        assert np.array_equal(where.stamps, where.indices)


@pytest.mark.fast
def test_a_video_that_is_shorter_than_a_clip_is_warned_of(caplog):
    for length, messages in ((7, ["an array has 7 frames: a clip of 8 at stride 1 needs 8, it starts again"]), (8, [])):
        caplog.clear()
        video = np.zeros((length, 32, 32, 3), np.uint8)
        sliding_clips(clip_spec(model_of(), video, stride=1), video)
        assert caplog.messages == messages


@pytest.mark.parametrize("name", MODELS)
def test_features_are_the_stages_of_the_reference(name, tmp_path):
    model = model_of(name)
    pictures = scene(27, 32, 32)
    encode(tmp_path / "clip.mkv", pictures, LOSSLESS)
    stages = ("prelogits", "frames", "last_tokens", "encoder/1/out", "logits")
    found = model.features(tmp_path / "clip.mkv", stages=stages, stride=1, clip_stride=5, batch=3)
    assert found["index"].tolist() == [list(range(start, start + 8)) for start in (0, 5, 10, 15, 19)]
    assert_same(found["seconds"], found["index"] / 25, 1e-9)
    for row, indices in enumerate(found["index"]):
        expected: dict[str, np.ndarray] = {}
        reference.forward(model.params, pictures[indices][None], model.config, capture=expected)
        tokens = expected["encoder/norm"][0]
        if name == "spatio_temporal":
            tokens = tokens[1:]
        elif name == "factorised_encoder":
            tokens = tokens[:, 1:]
        tokens = tokens.reshape(4, 16, -1)
        assert_same(found["last_tokens"][row], tokens, 1e-5)
        frames = expected["frames"][0] if name == "factorised_encoder" else tokens.mean(1)
        assert_same(found["frames"][row], frames, 1e-5)
        for stage in ("prelogits", "encoder/1/out", "logits"):
            assert_same(found[stage][row], expected[stage][0], 1e-5)


def test_a_video_is_streamed_with_the_pixels_that_reading_gives(tmp_path):
    pictures = scene(40, 48, 64)
    encode(tmp_path / "clip.mp4", pictures, Coding(options={"g": "8", "bf": "3"}))
    indices = np.array([0, 3, 4, 17, 39])
    whole = vivit.read_clip(tmp_path / "clip.mp4", frames=40, height=48, width=64, stride=1)
    streamed = list(stream_frames(probe(tmp_path / "clip.mp4"), indices, fit=as_stored))
    assert [index for index, _ in streamed] == indices.tolist()
    assert np.array_equal([picture for _, picture in streamed], whole[indices])


def test_a_long_video_is_never_decoded_far_ahead_of_what_is_computed(tmp_path, monkeypatch):
    pictures = scene(400, 32, 32)
    encode(tmp_path / "long.mkv", pictures, LOSSLESS)
    streamed = sliding.stream_frames
    decoded = []

    def counted(*args, **options):
        for index, picture in streamed(*args, **options):
            decoded.append(index)
            yield index, picture

    monkeypatch.setattr(sliding, "stream_frames", counted)
    found = stream_features(model_of(), tmp_path / "long.mkv", stages=("prelogits",), stride=1, batch=2)
    assert found.total == 50
    ahead = []
    for number, _ in enumerate(found.clips):
        ahead.append(len(decoded) // 8 - number)
    assert len(decoded) == 400
    assert max(ahead) <= 12


def test_an_npz_grows_by_rows_and_forgets_those_of_a_broken_video(tmp_path):
    rows = [{"a/b": np.full((2, 3), number, np.float32), "n": np.array(number)} for number in range(5)]
    with open_npz(tmp_path / "out.npz") as archive:
        for row in rows:
            archive.append(row)
        archive.shorten(3)
        archive.append(rows[4])
        with pytest.raises(ValueError, match="a row has"):
            archive.append({"a/b": np.zeros((2, 2), np.float32), "n": np.array(0)})
        archive.pack(tmp_path / "out.npz", {"names": np.array(["x"])})
    with np.load(tmp_path / "out.npz") as found:
        assert found["n"].tolist() == [0, 1, 2, 4]
        assert found["a/b"][:, 1, 2].tolist() == [0, 1, 2, 4]
        assert found["names"].tolist() == ["x"]
    assert os.listdir(tmp_path) == ["out.npz"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, two videos, and a text."""
    path = tmp_path_factory.mktemp("features")
    vivit.save(model_of(), path / "model")
    for number in range(2):
        encode(path / f"{number}.mkv", scene(20 + 4 * number, 32, 32, number), LOSSLESS)
    (path / "text.mkv").write_text("no video")
    return path


@pytest.mark.fast
def test_the_command_writes_all_videos_into_one_file_with_names_and_seconds(folder, tmp_path, capsys):
    out = tmp_path / "out.npz"
    names = [str(folder / name) for name in ("1.mkv", "text.mkv", "0.mkv")]
    arguments = ["features", *names, "-o", str(out), "--checkpoint", str(folder / "model"), "--stride", "1"]
    assert main([*arguments, "--stages", "prelogits", "encoder/0/out"]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "text.mkv cannot be read as a video" in shown.err
    model = vivit.load(folder / "model")
    with np.load(out) as found:
        assert found["videos"].tolist() == [names[0], names[2]]
        assert found["video"].tolist() == [0, 0, 0, 1, 1, 1]
        assert found["index"][:, 0].tolist() == [0, 8, 16, 0, 8, 12]
        expected = model.features(names[2], stages=["prelogits"], stride=1)["prelogits"]
        assert_same(found["prelogits"][3:], expected, 1e-5)
        assert found["encoder/0/out"].shape == (6, 65, model.config.channels)
    assert os.listdir(tmp_path) == ["out.npz"]


def test_nothing_is_written_if_no_video_can_be_used(folder, tmp_path, capsys):
    out = tmp_path / "out.npz"
    arguments = ["features", str(folder / "text.mkv"), "-o", str(out), "--checkpoint", str(folder / "model")]
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages", "prelogits", "encoder/9/out"], "stage is 'encoder/9/out': did you mean 'encoder/2/out'? it must"),
        (["--clip-stride", "0"], "clip_stride is 0: it must be at least 1"),
        (["--stride", "-1"], "stride is -1: it must be a positive integer"),
        (["--batch", "0"], "batch is 0: it must be at least 1"),
        (["-o", "nowhere/out.npz"], "nowhere does not exist"),
    ],
)
def test_bad_input_is_one_line_before_any_work(arguments, message, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["features", str(folder / "0.mkv"), "-o", "out.npz", "--checkpoint", str(folder / "model"), *arguments]
    assert main(command) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.fast
def test_the_numbers_of_all_frames_of_all_clips_must_fit_in_memory_twice():
    length, stride = 1000, 2
    spec = clip_spec(model_of(), np.zeros((length, 4, 4, 3), np.uint8), stride=stride)
    frames = spec.sampling.frames
    clips = length - spec.sampling.span + 1
    enough = 2 * (clips + 1) * frames * np.dtype(np.int64).itemsize
    for memory, fits in ((enough, True), (enough - 1, False)):
        limited = replace(spec, limits=replace(spec.limits, memory=memory))
        if fits:
            assert sliding._frame_numbers(limited, length, 1).shape == (clips, frames)
        else:
            with pytest.raises(ValueError, match=f"the numbers of the frames of {clips + 1} clips"):
                sliding._frame_numbers(limited, length, 1)


def test_a_video_whose_features_need_too_much_memory_is_an_error_and_the_next_is_not(tmp_path):
    for name, frames in (("long.mkv", 130), ("short.mkv", 8)):
        encode(tmp_path / name, scene(frames, 32, 32), LOSSLESS)
    names = [str(tmp_path / name) for name in ("long.mkv", "missing.mkv", "short.mkv")]
    options = dict(stages=["tokens"], stride=1, clip_stride=1, batch=1, limits=vivit.Limits(memory=1_200_000))
    long, missing, short = features_of_videos(model_of(), names, **options)
    assert str(long).startswith(f"the features of 123 clips of {names[0]} would take")
    assert str(missing) == f"{names[1]} is not a file: it must be a video"
    assert np.array_equal(short["tokens"], model_of().features(names[2], stages=["tokens"], stride=1)["tokens"])
