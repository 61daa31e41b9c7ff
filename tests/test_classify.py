"""From a video to labels: the views of files, arrays and standard input; and `vivit classify`."""

import io
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import count

import checkpoints
import numpy as np
import pytest
from accuracy import assert_same
from hypothesis import given
from hypothesis import strategies as st
from videos import Coding, encode, scene, write_audio

import vivit
from vivit import jitted
from vivit.cli.main import main
from vivit.data.camera import MOVES
from vivit.inference.batches import map_batched
from vivit.inference.classification import classify_videos
from vivit.model_data import clip_spec
from vivit.video.inputs import videos
from vivit.video.prefetch import map_in_threads, prefetch
from vivit.video.preprocessing import Preprocessing
from vivit.video.views import VIEWS, load_views

CONFIG = replace(vivit.named("vivit-tiny/8x2"), classes=(2, 3))  # 8 frames of 32x32
LABELS = (("run", "sit"), ("cat", "dog", "owl"))
LOSSLESS = Coding("ffv1", "bgr0")
WIDE = Preprocessing(resize=32, crop=None)  # 32x48 pictures stay as they are


@pytest.fixture(scope="module")
def model():
    return checkpoints.model(CONFIG, labels=LABELS, preprocessing=WIDE)


def written(path, frames, seed=0):
    """A lossless file of 32x48 pictures, and the pictures."""
    pictures = scene(frames, 32, 48, seed)
    encode(path, pictures, LOSSLESS)
    return pictures


def loaded(model, video, views=VIEWS, **options):
    return load_views(clip_spec(model, video, **options), video, views)


def mean_logits(model, clips):
    """What the paper's protocol gives: every clip by itself, the mean of their logits."""
    return np.mean([np.asarray(vivit.forward(model.params, clip[None], CONFIG)[0], np.float64) for clip in clips], 0)


def test_logits_are_averaged_over_clips_spread_in_time_and_three_crops_from_end_to_end(model, tmp_path):
    pictures = written(tmp_path / "clip.mkv", 36)
    (found,) = classify_videos(model, [tmp_path / "clip.mkv"], views=(4, 3))
    starts = (0, 7, 14, 21)  # 15 frames at stride 2, evenly from 0 to 36 - 15
    clips = [pictures[start : start + 15 : 2, :, left : left + 32] for start in starts for left in (0, 8, 16)]
    assert_same(found.logits.mean(0), mean_logits(model, clips), 1e-5)
    assert [view.crop for view in found.views] == [0, 1, 2] * 4
    assert_same([view.stamps[0] for view in found.views], np.repeat(starts, 3) / 25, 1e-9)
    odds = np.exp(found.logits.mean(0)[:2])
    assert_same([score.probability for score in found.heads[0]], sorted(odds / odds.sum(), reverse=True), 1e-12)


@pytest.mark.parametrize("views", [(1, 1), (2, 1), (3, 2)])
def test_an_array_of_the_frames_of_a_file_gives_the_same_as_the_file(views, model, tmp_path):
    pictures = written(tmp_path / "clip.mkv", 31)
    one, other = classify_videos(model, [tmp_path / "clip.mkv", pictures], views=views, stride=2)
    assert np.array_equal(one.logits, other.logits)


def test_a_larger_picture_is_resized_alike_from_a_file_and_from_memory(model, tmp_path):
    pictures = scene(16, 60, 84)
    encode(tmp_path / "clip.mkv", pictures, LOSSLESS)
    from_file = loaded(model, tmp_path / "clip.mkv", views=(2, 3), stride=1).pixels
    from_memory = loaded(model, pictures, views=(2, 3)).pixels
    assert from_file.shape == from_memory.shape == (6, 8, 32, 32, 3)
    assert np.abs(from_file.astype(int) - from_memory).max() <= 1  # bgr0 and rgb24 are rounded apart


def test_a_clip_of_the_models_size_is_used_unchanged_and_once(model):
    clip = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    (found,) = classify_videos(model, [clip])
    assert len(found.views) == 1
    assert np.array_equal(loaded(model, clip).pixels[0], clip)


def test_floats_are_not_preprocessed_again(model):
    clip = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    from_bytes, from_floats = classify_videos(model, [clip, model.preprocessing.normalise(clip)])
    assert_same(from_floats.logits, from_bytes.logits, 1e-5)


def test_a_video_shorter_than_a_clip_starts_again(model, tmp_path):
    pictures = written(tmp_path / "short.mkv", 5)
    found = loaded(model, tmp_path / "short.mkv", views=(4, 1))
    assert len(found.views) == 1
    assert np.array_equal(found.pixels[0], pictures[[0, 2, 4, 1, 3, 0, 2, 4], :, 8:40])


@given(batch=st.integers(1, 7), count=st.integers(1, 4))
def test_batches_change_nothing_but_rounding(batch, count):
    model = checkpoints.model(CONFIG, labels=LABELS, preprocessing=WIDE)
    arrays = [scene(9 + 8 * number, 32, 48, number) for number in range(count)]
    found = list(classify_videos(model, arrays, views=(2, 2), batch=batch, threads=2))
    alone = [next(iter(classify_videos(model, [array], views=(2, 2), batch=1))) for array in arrays]
    for one, other in zip(found, alone, strict=True):
        assert_same(one.logits, other.logits, 1e-5)


def test_an_unreadable_video_gives_an_error_in_its_position_and_the_others_continue(model, tmp_path):
    written(tmp_path / "one.mkv", 20)
    (tmp_path / "text.mp4").write_text("no video")
    write_audio(tmp_path / "sound.wav")
    names = [tmp_path / name for name in ("text.mp4", "one.mkv", "sound.wav", "nothing.mkv", "one.mkv")]
    found = list(classify_videos(model, names, views=(1, 2)))
    assert [isinstance(one, ValueError) for one in found] == [True, False, True, True, False]
    assert np.array_equal(found[1].logits, found[4].logits)
    for name, one in zip(names, found, strict=True):
        assert not isinstance(one, ValueError) or (str(name) in str(one) and "\n" not in str(one))


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (np.zeros((8, 32, 32), np.uint8), r"shape \[8, 32, 32\]: it must be \[frames height width 3\]"),
        (np.zeros((1, 8, 32, 32, 3), np.uint8), "of one video"),
        (np.zeros((0, 32, 32, 3), np.uint8), r"shape \[0, 32, 32, 3\]"),
        (np.zeros((8, 32, 32, 3)), "dtype float64: it must be uint8"),
        (np.zeros((8, 30, 32, 3), np.float32), r"pictures of \(30, 32\): floats are not resized"),
    ],
)
def test_an_array_that_is_no_video_is_refused_in_one_line(video, message, model):
    with pytest.raises(ValueError, match=message):
        model.classify(video)


def test_a_model_is_compiled_once_for_all_videos_of_a_call(model, tmp_path):
    arrays = [scene(9 + number, 32, 48, number) for number in range(6)]
    list(classify_videos(model, arrays[:3], views=(2, 1), batch=3))
    before = jitted.logits._cache_size()  # pyright: ignore[reportFunctionMemberAccess]
    list(classify_videos(model, arrays[3:], views=(2, 1), batch=3))
    assert jitted.logits._cache_size() == before  # pyright: ignore[reportFunctionMemberAccess]


def test_folders_are_searched_for_videos_in_order_and_hidden_files_are_left_out(tmp_path):
    for name in ("b/2.MKV", "a.mp4", "b/10.webm", "notes.txt", ".hidden.mp4", "b/.old/c.avi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    inside = [str(tmp_path / name) for name in ("a.mp4", "b/10.webm", "b/2.MKV")]
    assert videos(["x", tmp_path, "-"]) == ["x", *inside, "-"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty is a folder without videos"):
        videos([tmp_path / "empty"])
    with pytest.raises(ValueError, match="- is named twice"):
        videos(["-", "a", "-"])


def test_work_in_threads_keeps_its_order_and_raises_its_errors():
    def slow(number):
        if number == 4:
            raise ValueError("the fifth")
        return number

    seen = []
    with pytest.raises(ValueError, match="the fifth"):
        seen.extend(map_in_threads(slow, range(9), threads=3))
    with pytest.raises(ValueError, match="the fifth"):
        seen.extend(prefetch(map(slow, range(9)), count=2))
    assert seen == [0, 1, 2, 3] * 2


def test_work_in_threads_may_be_dropped_in_one_of_them():
    """As the garbage collector does where nobody has closed the generator."""
    dropped, ready = threading.Event(), threading.Event()

    def work(number):
        if number == 1:
            ready.wait(60)
            results.close()
            dropped.set()
        return number

    results = map_in_threads(work, count(), threads=1, ahead=2)
    assert next(results) == 0
    ready.set()
    assert dropped.wait(60)


def test_prefetching_is_limited_and_ends_with_its_reader():
    made, before = [], threading.active_count()
    reader = prefetch((made.append(number) or number for number in range(100)), count=3)
    assert [next(reader), next(reader)] == [0, 1]
    reader.close()
    assert len(made) <= 2 + 3 + 1
    assert threading.active_count() == before


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (3, [3]), (4, [3, 3]), (6, [3, 3])])
def test_the_last_batch_is_padded_unless_it_is_the_only_one(count, sizes):
    seen = []
    clips = ((number, (np.full((2, 2), number),)) for number in range(count))
    rows = map_batched(lambda pixels: seen.append(pixels[:, 0, 0].tolist()) or pixels, clips, 3)
    assert [row[0, 0] for _, row in rows] == list(range(count))
    assert list(map(len, seen)) == sizes
    assert seen[-1][-1] == count - 1  # with its last clip


def test_a_key_without_a_clip_keeps_its_position():
    clips = [("a", np.ones((1, 2))), ("b", None), ("c", 2 * np.ones((1, 2))), ("d", None), ("e", 3 * np.ones((1, 2)))]
    stream = ((key, clip if clip is None else (clip,)) for key, clip in clips)
    rows = map_batched(lambda pixels: {"sum": pixels.sum((1, 2))}, stream, 2)
    assert [(key, row and float(row["sum"])) for key, row in rows] == [
        ("a", 2.0),
        ("b", None),
        ("c", 4.0),
        ("d", None),
        ("e", 6.0),
    ]


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    vivit.save(model, path)
    return str(path)


@pytest.mark.fast
def test_the_command_prints_every_head_of_every_video(model, checkpoint, tmp_path, capsys):
    for number in range(3):
        written(tmp_path / f"{number}.mkv", 20 + number, number)
    assert main(["classify", str(tmp_path), "--checkpoint", checkpoint, "--top", "2", "--views", "2x1"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    blocks = shown.out.split(str(tmp_path))[1:]
    assert len(blocks) == 3
    expected = model.classify(tmp_path / "1.mkv", top=2, views=(2, 1))
    for head in expected:
        for score in head:
            assert f"{100 * score.probability:6.2f} %  {score.label}" in blocks[1]


@pytest.mark.fast
def test_json_holds_every_video_every_view_and_every_failure(model, checkpoint, tmp_path, capsys):
    written(tmp_path / "one.mkv", 36)
    (tmp_path / "bad.mp4").write_text("no video")
    names = [str(tmp_path / "bad.mp4"), str(tmp_path / "one.mkv")]
    assert main(["classify", *names, "--checkpoint", checkpoint, "--json", "--views", "2x3"]) == 2
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (found["checkpoint"], found["views"], found["stride"]) == (checkpoint, [2, 3], 2)
    assert [one["video"] for one in found["videos"]] == names
    assert "cannot be read as a video" in found["videos"][0]["error"]
    assert shown.err.count("\n") == 1
    one = found["videos"][1]
    assert [view["crop"] for view in one["views"]] == [0, 1, 2, 0, 1, 2]
    assert [view["start"] for view in one["views"]] == [0.0] * 3 + [0.84] * 3
    expected = model.classify(tmp_path / "one.mkv", views=(2, 3))
    for head, scores in zip(one["heads"], expected, strict=True):  # the batch of one video has another size
        assert [score["label"] for score in head] == [score.label for score in scores]
        assert [score["probability"] for score in head] == pytest.approx([score.probability for score in scores])


@pytest.mark.fast
def test_a_stream_is_classified_from_standard_input_and_from_a_named_pipe(checkpoint, tmp_path):
    written(tmp_path / "one.mkv", 36)
    os.mkfifo(tmp_path / "pipe")
    code = "import sys; from vivit.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "classify", "--checkpoint", checkpoint, "--json", "--views", "1x1"]
    said = {}
    for name in ("-", str(tmp_path / "one.mkv")):
        done = subprocess.run(
            [*command, name], input=(tmp_path / "one.mkv").read_bytes(), capture_output=True, check=True
        )
        said[name] = json.loads(done.stdout)["videos"][0]["heads"]
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / "one.mkv").read_bytes()))
    writer.start()
    (found,) = classify_videos(vivit.load(checkpoint), [tmp_path / "pipe"], views=(1, 1))
    writer.join()
    assert said["-"] == said[str(tmp_path / "one.mkv")]
    assert_same([score.probability for score in found.heads[1]], [one["probability"] for one in said["-"][1]], 1e-6)


def test_without_a_checkpoint_the_demo_model_is_used_with_a_warning(tmp_path, capsys):
    encode(tmp_path / "clip.mkv", scene(16, 24, 24), LOSSLESS)
    assert main(["classify", str(tmp_path / "clip.mkv")]) == 0
    shown = capsys.readouterr()
    assert "the demo model that ships with the package" in shown.err
    assert sum(move in shown.out for move in MOVES) == 5


def test_classes_without_names_are_numbered_and_it_says_how_to_name_them(model, tmp_path, capsys):
    vivit.save(replace(model, labels=None), tmp_path / "model")
    written(tmp_path / "one.mkv", 20)
    assert main(["classify", str(tmp_path / "one.mkv"), "--checkpoint", str(tmp_path / "model"), "--top", "3"]) == 0
    shown = capsys.readouterr()
    numbers = [line.split("%  ")[1] for line in shown.out.splitlines() if "%" in line]
    assert sorted(numbers[:2]) == ["class 0", "class 1"]
    assert sorted(numbers[2:]) == ["class 0", "class 1", "class 2"]
    assert shown.err.count("\n") == 1
    assert "model has no class names: pass --labels kinetics400" in shown.err


def test_control_characters_in_names_are_replaced(model, tmp_path, capsys):
    vivit.save(replace(model, labels=(("[red]run", "sit\x1b[2J"), LABELS[1])), tmp_path / "model")
    path = tmp_path / os.fsdecode(b"odd \xff [bold].mkv")
    written(path, 20)
    assert main(["classify", str(path), "--checkpoint", str(tmp_path / "model"), "--views", "1x1"]) == 0
    shown = capsys.readouterr().out
    assert "[red]run" in shown
    assert "[bold].mkv" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top", "0"], "top is 0: it must be at least 1"),
        (["--batch", "0"], "batch is 0"),
        (["--threads", "0"], "threads is 0"),
        (["--stride", "0"], "stride is 0: it must be a positive integer"),
        (["--views", "3"], "'3' must be clips x crops, such as 4x3"),
        (["--max-pixels", "0"], "--max-pixels is 0: it must be at least 1"),
        (["--max-pixels", "1000"], "has pictures of 48x32: they must have at most 1000 pixels"),
        (["--max-packets", "10"], "has more than 10 packets"),
        (["--checkpoint", "nothing"], "nothing does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments, message, checkpoint, tmp_path, capsys):
    written(tmp_path / "one.mkv", 20)
    arguments = [*([] if "--checkpoint" in arguments else ["--checkpoint", checkpoint]), *arguments]
    try:
        code = main(["classify", str(tmp_path / "one.mkv"), *arguments])
    except SystemExit as end:
        code = end.code
    assert code == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_standard_input_that_is_no_video_is_one_line(checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello")))
    assert main(["classify", "-", "--checkpoint", checkpoint]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "standard input cannot be read as a video" in error
