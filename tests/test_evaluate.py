"""Evaluation against plain loops over views: it resumes after a kill with the same bits, and reports omissions."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace

import checkpoints
import numpy as np
import pytest
from videos import write_video

import vivit
from vivit import jitted
from vivit.cli.main import main
from vivit.data.clips import BrokenVideoError
from vivit.data.reading import read_data, select_split
from vivit.data.sources import Dataset, Example
from vivit.inference.classification import classify_videos
from vivit.inference.evaluation import evaluate, write_predictions
from vivit.inference.match_labels import match_labels
from vivit.video.preprocessing import HUGGING_FACE, Preprocessing

LENGTHS = (20, 31, 9, 16, 26)  # frames of the videos
CONFIG = replace(vivit.named("vivit-tiny/8x2"), classes=(2, 3))
LABELS = (("run", "sit"), ("cat", "dog", "owl"))
PLAIN = Preprocessing(resize=32, crop=None)  # videos as high as the model wants
SETTINGS = dict(stride=2, views=(2, 3), batch=4)


@pytest.fixture(scope="module")
def model():
    return checkpoints.model(CONFIG, labels=LABELS, preprocessing=PLAIN)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    examples = []
    for number, frames in enumerate(LENGTHS):
        write_video(folder / f"{number}.mkv", frames, height=32, width=48)
        examples.append(Example(str(folder / f"{number}.mkv"), ((number % 2,), (number % 3,))))
    return Dataset(tuple(examples), ("verb", "noun"), LABELS)


@pytest.fixture(scope="module")
def damaged(dataset, tmp_path_factory):
    """The dataset with a text file in the third place."""
    text = tmp_path_factory.mktemp("broken") / "text.mp4"
    text.write_text("no video")
    examples = list(dataset.examples)
    examples[2] = replace(examples[2], path=str(text))
    return replace(dataset, examples=tuple(examples))


def clips_of(frames, *, short="loop"):
    """The six views of a video made by write_video, uint8[6 8 32 32 3], from what it holds, and their valid frames."""
    video = np.empty((frames, 32, 48), np.uint8)
    video[:, :, :24] = 8 * np.arange(frames)[:, None, None]
    video[:, :, 24:] = 255 - video[:, :, :1]
    clips, valid = [], []
    for start in (0, max(0, frames - 15)):
        places = start + 2 * np.arange(8)
        kept = np.minimum(places, frames - 1) if short == "pad" else places % frames
        clips += [video[kept][:, :, left : left + 32] for left in (0, 8, 16)]
        valid += [int((places < frames).sum())] * 3
    return np.repeat(np.stack(clips)[..., np.newaxis], 3, axis=-1), np.array(valid, np.int32)


@pytest.mark.parametrize("preprocessing", [PLAIN, replace(HUGGING_FACE, resize=32, crop=(32, 32))])
def test_logits_are_those_of_the_views_averaged(model, dataset, preprocessing):
    model = replace(model, preprocessing=preprocessing)
    result = evaluate(model, dataset, **SETTINGS)
    expected = [np.asarray(model.logits(clips_of(frames)[0])).mean(0) for frames in LENGTHS]
    np.testing.assert_allclose(result.logits, expected, atol=1e-5)
    assert result.index.tolist() == list(range(5))
    numbers = [label for part in np.split(result.labels, [2], axis=1) for label in part.argmax(1).tolist()]
    assert numbers == [0, 1, 0, 1, 0, 0, 1, 2, 0, 1]
    assert result.report["views"] == [2, 3]
    hits = np.array([[row[:2].argmax(), row[2:].argmax()] for row in expected]) == np.array(numbers).reshape(2, 5).T
    assert result.report["heads"]["verb"]["top_1"] == pytest.approx(hits[:, 0].mean())
    assert result.report["action"]["top_1"] == pytest.approx(hits.all(1).mean())


def test_predictions_are_a_row_a_video_with_its_labels_and_the_best_classes(model, damaged, tmp_path):
    result = evaluate(replace(model, heads=("doing", "who")), damaged, **SETTINGS, broken="skip")
    write_predictions(tmp_path / "predictions.csv", result)
    rows = list(csv.reader((tmp_path / "predictions.csv").read_text().splitlines()))
    assert rows[0] == [
        *("path", "start", "end"),
        *("doing", "doing 1", "doing probability 1", "doing 2", "doing probability 2"),
        *("who", "who 1", "who probability 1", "who 2", "who probability 2", "who 3", "who probability 3"),
    ]
    assert [row[0] for row in rows[1:]] == [damaged.examples[number].path for number in (0, 1, 3, 4)]
    assert [(row[3], row[8]) for row in rows[1:]] == [("run", "cat"), ("sit", "dog"), ("sit", "cat"), ("run", "dog")]
    for row, logits in zip(rows[1:], result.logits, strict=True):
        for names, part, cells in zip(LABELS, np.split(logits, [2]), (row[4:8], row[9:]), strict=True):
            likely = np.exp(part) / np.exp(part).sum()
            told = dict(zip(cells[::2], map(float, cells[1::2]), strict=True))
            assert told == pytest.approx(dict(zip(names, likely, strict=True)), abs=1e-6)
            assert list(told.values()) == sorted(told.values(), reverse=True)


def test_multi_label_predictions_have_independent_probabilities(model, dataset, tmp_path):
    several = replace(dataset, multi_label=True, examples=(replace(dataset.examples[0], labels=((0, 1), ())),))
    result = evaluate(model, several, **SETTINGS)
    write_predictions(tmp_path / "predictions.csv", result)
    (row,) = csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines())
    assert (row["verb"], row["noun"]) == ("run|sit", "")
    best = result.logits[0, :2].max()
    assert float(row["verb probability 1"]) == pytest.approx(1 / (1 + np.exp(-best)), abs=1e-6)


def test_heads_are_matched_by_name_and_have_the_models_names(model, dataset):
    named = replace(model, heads=("verb", "noun"))
    turned = replace(
        dataset,
        heads=("noun", "verb"),
        names=LABELS[::-1],
        examples=tuple(replace(example, labels=example.labels[::-1]) for example in dataset.examples),
    )
    assert match_labels(turned, LABELS, named.heads) == dataset
    assert list(evaluate(replace(model, heads=("doing", "who")), dataset, **SETTINGS).report["heads"]) == [
        "doing",
        "who",
    ]
    with pytest.raises(ValueError, match=r"heads is \('verb',\): it must be 2 different names, one per head"):
        replace(model, heads=("verb",))


@pytest.mark.parametrize("resize", [None, 41, (40, 56)])
def test_a_video_has_the_logits_that_classifying_it_gives_whatever_the_preprocessing(model, dataset, resize):
    changed = replace(model, preprocessing=replace(PLAIN, resize=resize))
    result = evaluate(changed, dataset, views=(4, 3), batch=5)
    found = classify_videos(changed, [example.path for example in dataset.examples], views=(4, 3))
    np.testing.assert_allclose(result.logits, [one.logits.mean(0) for one in found], atol=1e-5)


def test_equal_views_are_computed_once(model, dataset):
    clips = []

    def forward(video, frames_valid):
        clips.append(len(video))
        return jitted.logits(model.params, video, config=CONFIG)

    short = replace(dataset, examples=dataset.examples[2:3])  # 9 frames: there is one clip in time
    result = evaluate(model, short, views=(4, 3), batch=2, forward=forward)
    assert clips == [2, 2]  # three crops, and one to fill up
    (alone,) = classify_videos(model, [short.examples[0].path], views=(1, 3))
    np.testing.assert_allclose(result.logits, [alone.logits.mean(0)], atol=1e-5)


def test_padding_of_short_videos_does_not_affect_logits(model, dataset):
    result = evaluate(model, dataset, **SETTINGS, short="pad")
    clips, valid = clips_of(9, short="pad")
    assert valid.tolist() == [5] * 6
    np.testing.assert_allclose(result.logits[2], np.asarray(model.logits(clips, frames_valid=valid)).mean(0), atol=1e-5)


def test_a_killed_evaluation_goes_on_and_has_the_same_bits(model, damaged, tmp_path):
    vivit.save(model, tmp_path / "model")
    code = f"""
import os, signal, sys
import vivit
from vivit.data.sources import Dataset, Example
from vivit.inference.evaluation import evaluate
kill = lambda done, total: done >= 24 and os.kill(os.getpid(), signal.SIGKILL)
again = dict(broken="skip", folder=sys.argv[2], every=2)
evaluate(vivit.load(sys.argv[1]), {damaged!r}, **{SETTINGS!r}, **again, progress=kill)
"""
    arguments = [sys.executable, "-c", code, tmp_path / "model", tmp_path / "progress"]
    assert subprocess.run(arguments, check=False, capture_output=True).returncode == -9
    torn = tmp_path / "progress/.vivit-torn.partial"
    torn.mkdir()
    (torn / "evaluation.npz").write_bytes(b"as if killed while writing")
    seen = []
    again = dict(broken="skip", folder=tmp_path / "progress", every=2)
    resumed = evaluate(model, damaged, **SETTINGS, **again, progress=lambda *counts: seen.append(counts))
    assert seen == [(22, 30), (26, 30), (30, 30)]  # written after 16 clips and the six of the video left out
    whole = evaluate(model, damaged, **SETTINGS, broken="skip")
    assert resumed.logits.tobytes() == whole.logits.tobytes()
    assert resumed.report == whole.report
    assert list(resumed.broken) == [damaged.examples[2].path]
    # and finished, it is found again
    seen.clear()
    once_more = evaluate(model, damaged, **SETTINGS, **again, progress=lambda *counts: seen.append(counts))
    assert seen == [(30, 30)]
    assert once_more.report == whole.report
    assert [path.name for path in (tmp_path / "progress").iterdir()] == ["evaluation.npz"]


def test_saved_progress_of_another_evaluation_is_rejected_with_the_difference(model, dataset, tmp_path):
    settings = dict(views=(1, 1), batch=5, folder=tmp_path)
    evaluate(model, dataset, **settings)
    others = checkpoints.model(CONFIG, seed=1, labels=LABELS, preprocessing=PLAIN)
    fewer = replace(dataset, examples=dataset.examples[:4])
    for name, arguments, changed in [
        ("stride", (model, dataset), dict(stride=1)),
        ("batch, views", (model, dataset), dict(views=(2, 1), batch=2)),
        ("weights", (others, dataset), {}),
        ("data", (model, fewer), {}),
    ]:
        with pytest.raises(
            ValueError, match=f"evaluation.npz is of an evaluation with other {name}: name another folder"
        ):
            evaluate(*arguments, **(settings | changed))
    (tmp_path / "evaluation.npz").write_bytes(b"PK nonsense")
    with pytest.raises(ValueError, match=r"evaluation.npz cannot be read: remove it to start anew"):
        evaluate(model, dataset, **settings)


def test_a_broken_video_is_left_out_and_reported_or_stops_it(model, dataset, damaged):
    path = damaged.examples[2].path
    result = evaluate(model, damaged, **SETTINGS, broken="skip")
    assert result.index.tolist() == [0, 1, 3, 4]
    assert result.report["examples"] == 4
    assert result.report["left_out"] == 1
    assert "cannot be read as a video" in result.report["broken"][path]
    np.testing.assert_allclose(result.logits, evaluate(model, dataset, **SETTINGS).logits[[0, 1, 3, 4]], atol=1e-5)
    with pytest.raises(BrokenVideoError, match=r"text\.mp4 cannot be read"):
        evaluate(model, damaged, **SETTINGS)
    alone = replace(damaged, examples=damaged.examples[2:3])
    with pytest.raises(ValueError, match=r"none of the 1 examples can be used, the first because .*text\.mp4"):
        evaluate(model, alone, **SETTINGS, broken="skip")


def test_a_pipe_among_the_videos_is_an_error_and_is_not_opened(model, dataset, tmp_path):
    os.mkfifo(tmp_path / "pipe.mkv")
    piped = replace(dataset.examples[0], path=str(tmp_path / "pipe.mkv"))
    result = evaluate(model, replace(dataset, examples=(piped, dataset.examples[1])), **SETTINGS, broken="skip")
    assert result.broken == {piped.path: f"{piped.path} is not a file: it must be a video"}


def test_labels_are_matched_by_name_whatever_their_order(model, dataset):
    turned = Dataset(
        tuple(replace(one, labels=((1 - one.labels[0][0],), (2 - one.labels[1][0],))) for one in dataset.examples),
        dataset.heads,
        (("sit", "run"), ("owl", "dog", "cat")),
    )
    assert match_labels(turned, LABELS) == dataset
    fewer = replace(dataset, examples=dataset.examples[:2], names=(LABELS[0], LABELS[1][:2]))
    assert match_labels(fewer, LABELS).classes == (2, 3)
    for names, message in [
        ((LABELS[0], ("cat", "eel", "dog")), "noun: the data has 'eel', which the model does not: .* lacks 'owl'"),
        ((("run", "sit"),), "the data has the heads verb, noun: they must be 2"),
    ]:
        heads = dataset.heads
        with pytest.raises(ValueError, match=message):
            match_labels(replace(dataset, names=names, heads=heads), LABELS)
    with pytest.raises(ValueError, match="verb: the model has two classes 'run'"):
        match_labels(replace(dataset, names=(("run",), LABELS[1])), (("run", "run"), LABELS[1]))


def test_invalid_arguments_are_rejected(model, dataset):
    unnamed = replace(model, labels=None)
    for changed, data, arguments, message in [
        (
            unnamed,
            replace(dataset, names=(("a",), LABELS[1])),
            {},
            r"the data has \(1, 3\) classes: it must have \(2, 3\)",
        ),
        (model, dataset, dict(every=0), "every is 0: it must be at least 1"),
        (replace(model, preprocessing=replace(PLAIN, crop=(16, 16))), dataset, {}, r"preprocessing crops \(16, 16\)"),
        (model, dataset, dict(shorter_side=8), "shorter_side is 8: it must be at least 32"),
    ]:
        with pytest.raises(ValueError, match=message):
            evaluate(changed, data, **(SETTINGS | arguments))


@pytest.fixture(scope="module")
def tables(dataset, tmp_path_factory):
    """A folder with test.csv of two heads and a model's checkpoint."""
    folder = tmp_path_factory.mktemp("tables")
    rows = [f"{one.path},{LABELS[0][one.labels[0][0]]},{LABELS[1][one.labels[1][0]]}" for one in dataset.examples]
    (folder / "test.csv").write_text("path,verb,noun\n" + "\n".join(rows) + "\n")
    vivit.save(checkpoints.model(CONFIG, labels=LABELS, preprocessing=PLAIN), folder / "model")
    return folder


@pytest.mark.fast
def test_the_command_prints_and_writes_what_evaluate_finds(model, dataset, tables, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    arguments = ["evaluate", str(tables), "--checkpoint", str(tables / "model"), "--views", "2x3", "--per-class"]
    files = ["-o", str(tmp_path / "found.json"), "--confusion", str(tmp_path / "confused.png")]
    assert main([*arguments, *files, "--progress", str(tmp_path / "progress")]) == 0
    shown = capsys.readouterr()
    report = evaluate(model, dataset, views=(2, 3)).report
    written = json.loads((tmp_path / "found.json").read_text())
    assert {name: written[name] for name in report} == report
    for value in (report["heads"]["noun"]["top_1"], report["action"]["top_1"], report["action"]["top_5"]):
        assert f"{100 * value:.2f}" in shown.out
    assert "5 examples of test, 2x3 views at stride 2" in shown.out
    assert "owl" in shown.out
    assert "clips/s" in shown.err
    assert {path.name for path in tmp_path.iterdir()} == {
        *("found.json", "confused-verb.png", "confused-noun.png", "progress")
    }


def test_the_command_lists_what_it_left_out(tables, damaged, capsys, tmp_path):
    table = tmp_path / "some.jsonl"
    rows = [{"path": one.path, "verb": "run", "noun": "owl"} for one in damaged.examples[1:4]]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["evaluate", str(table), "--checkpoint", str(tables / "model"), "--views", "1x1", "--split", "all"]
    assert main([*arguments, "--broken", "skip"]) == 0
    out = capsys.readouterr().out
    assert "left out 1 of 3 examples" in out
    assert f"  {damaged.examples[2].path} cannot be read as a video" in out
    assert "noun: 2 classes have no example and are excluded from means" in out
    assert main(arguments) == 2
    assert "text.mp4 cannot be read as a video" in capsys.readouterr().err.splitlines()[-1]


def test_the_command_gives_the_map_of_several_labels_an_example(dataset, capsys, tmp_path):
    config = replace(CONFIG, classes=(3,))
    named = checkpoints.model(config, labels=(("[a]", "b", "c"),), preprocessing=PLAIN)
    vivit.save(named, tmp_path / "model")
    cells = ("[a]|b", "", "[a]", "b", "[a]|b")
    rows = [f"{one.path},{cell}" for one, cell in zip(dataset.examples, cells, strict=True)]
    (tmp_path / "test.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    arguments = ["evaluate", str(tmp_path), "--checkpoint", str(tmp_path / "model"), "--views", "1x1", "--multi-label"]
    assert main([*arguments, "-o", str(tmp_path / "found.json"), "--dtype", "bfloat16", "--per-class"]) == 0
    out = capsys.readouterr().out
    written = json.loads((tmp_path / "found.json").read_text())
    assert [one["positives"] for one in written["heads"]["label"]["per_class"]] == [3, 3, 0]
    assert f"{100 * written['map']:.2f}" in out
    assert "mAP" in out
    assert "[a]" in out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--split", "train"], "split is 'train': it must be one of the data's splits, test (5), or all"),
        (["--views", "0x3"], "argument --views: '0x3' must be clips x crops, such as 4x3"),
        (["--confusion", "x.png", "--multi-label"], "--confusion needs one label per example"),
        (["-o", "no/x.json"], "no/x.json: the folder"),
        (["--heads", "noun"], "the data has the heads noun: they must be 2, as the model has"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(tables, changed, message, capsys):
    try:
        code = main(["evaluate", str(tables), "--checkpoint", str(tables / "model"), *changed])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_data_is_a_folder_of_classes_a_table_or_a_folder_of_tables(dataset, tables, tmp_path):
    for name in LABELS[1]:
        (tmp_path / "classes" / name).mkdir(parents=True)
        (tmp_path / "classes" / name / "1.mkv").write_bytes(b"")
    folder = read_data(tmp_path / "classes")
    assert select_split(folder, "all").names == (LABELS[1],)
    assert len(select_split(folder, "all").examples) == 3
    assert read_data(tables)["test"] == dataset
    assert select_split(read_data(tables / "test.csv"), "all").names == LABELS
    with pytest.raises(ValueError, match="heads and multi_label are for tables"):
        read_data(tmp_path / "classes", multi_label=True)
    with pytest.raises(ValueError, match="does not exist: it must be a folder with one folder per class, or a table"):
        read_data(tmp_path / "none")
    (tables / "test.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"has test.csv and test.jsonl: it must have one table per split"):
        read_data(tables)
    (tables / "test.jsonl").unlink()
