"""Folders and tables of labelled videos; errors name the line."""

import json
import os
from collections import Counter
from dataclasses import replace

import checkpoints
import pytest

import vivit
from vivit.data.reading import read_data
from vivit.data.sources import Dataset, Example, label_vector, read_folder
from vivit.data.tables import read_table
from vivit.inference.resume import hash_of_dataset
from vivit.video.index import probe
from vivit.video.inputs import seekable, videos

pytestmark = pytest.mark.fast

SMALL_HEAD = replace(vivit.named("vivit-tiny/8x2"), classes=(2,))


@pytest.fixture
def write(tmp_path):
    def write(name, text=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_folders_of_splits_and_classes_are_read(write, tmp_path):
    for name in ("train/run/b.mp4", "train/run/a.mp4", "train/jump/c.avi", "val/run/d.mp4", "test/jump/e/f.mp4"):
        write(name)
    write("train/run/.hidden")
    datasets = read_folder(tmp_path)
    assert list(datasets) == ["train", "validation", "test"]
    assert datasets["train"].names == datasets["test"].names == (("jump", "run"),)
    assert datasets["train"].classes == (2,)
    found = [(example.path.removeprefix(f"{tmp_path}/"), example.labels) for example in datasets["train"].examples]
    assert found == [("train/jump/c.avi", ((0,),)), ("train/run/a.mp4", ((1,),)), ("train/run/b.mp4", ((1,),))]
    assert [example.labels for example in datasets["validation"].examples] == [((1,),)]


def test_without_folders_of_splits_files_fall_into_them_whatever_else_is_there(write, tmp_path):
    for index in range(200):
        write(f"videos/{'ab'[index % 2]}/{index}.mp4")
    before = read_folder(tmp_path / "videos", fractions=(0.7, 0.2, 0.1))
    sizes = {split: len(dataset.examples) for split, dataset in before.items()}
    assert sum(sizes.values()) == 200
    assert 120 <= sizes["train"] <= 160
    assert 25 <= sizes["validation"] <= 55
    write("videos/c/new.mp4")
    after = read_folder(tmp_path / "videos", fractions=(0.7, 0.2, 0.1))
    for split in before:
        assert {one.path for one in before[split].examples} <= {one.path for one in after[split].examples}
    write("videos/a/another.mp4")  # of its own class it moves few
    third = read_folder(tmp_path / "videos", fractions=(0.7, 0.2, 0.1))
    stayed = [set(before[split].examples) & set(third[split].examples) for split in before]
    assert sum(map(len, stayed)) >= 198


def test_files_that_are_no_videos_are_left_out_and_counted(write, tmp_path, caplog):
    for name in ("run/a.mp4", "run/Thumbs.db", "run/a.jpg", "jump/deep/b.MKV", "jump/deep/notes.txt", "jump/.c.mp4"):
        write(f"videos/{name}")
    datasets = read_folder(tmp_path / "videos", fractions=(1, 0, 0))
    found = [example.path.removeprefix(f"{tmp_path}/videos/") for example in datasets["train"].examples]
    assert found == ["jump/deep/b.MKV", "run/a.mp4"]
    (record,) = caplog.records
    assert "videos: 3 files are left out, such as jump/deep/notes.txt: no video by its name" in record.getMessage()
    caplog.clear()
    write("films/train/run/a.mp4")
    write("films/train/stray.mp4")
    assert len(read_folder(tmp_path / "films")["train"].examples) == 1
    assert "films: a file is left out, such as train/stray.mp4" in caplog.text
    caplog.clear()
    (tmp_path / "films/train/stray.mp4").unlink()
    read_folder(tmp_path / "films")
    assert not caplog.records


@pytest.mark.parametrize("splits", [False, True])
def test_a_folder_that_a_run_lives_in_is_neither_a_class_nor_a_split(splits, write, tmp_path, caplog):
    for name in ("train/run/a.mp4", "test/jump/b.mp4") if splits else ("run/a.mp4", "jump/b.mp4"):
        write(f"videos/{name}")
    before = read_folder(tmp_path / "videos")
    for name in ("metrics.jsonl", "curves.png", "checkpoints/8/state/d/0", "model/model.safetensors"):
        write(f"videos/first/{name}")
    write("videos/metrics.jsonl")
    assert read_folder(tmp_path / "videos") == before
    assert not caplog.records


@pytest.mark.parametrize("locked", ["videos", "videos/run", "videos/run/deep"])
def test_an_unreadable_folder_is_reported_as_unreadable(locked, write, tmp_path, monkeypatch):
    write("videos/run/a.mp4")
    write("videos/run/deep/b.mp4")
    listed = os.listdir

    def refused(path):
        if str(path) == str(tmp_path / locked):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "listdir", refused)
    for read in (read_data, lambda path: videos([path])):
        with pytest.raises(ValueError, match=f"{tmp_path / locked} cannot be read: Permission denied"):
            read(tmp_path / "videos")


def test_an_inaccessible_file_is_reported_as_unreadable(write, tmp_path, monkeypatch):
    table = write("a.csv", "path,label\na.mp4,x\n")

    def refused(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", refused)
        for read in (read_data, read_table, lambda path: next(iter(seekable(str(path)).gen)), probe, vivit.load):
            with pytest.raises(ValueError, match=r"a.csv cannot be read: Permission denied"):
                read(table)
        assert videos([table]) == [str(table)]  # it costs that video alone
    monkeypatch.setattr("pathlib.Path.open", refused)
    with pytest.raises(ValueError, match=r"a.csv cannot be read: Permission denied"):
        read_table(table)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_reported_as_unreadable(write, tmp_path):
    write("videos/run/a.mp4")
    (tmp_path / "videos/run").chmod(0)
    try:
        with pytest.raises(ValueError, match=r"run cannot be read: Permission denied"):
            read_folder(tmp_path / "videos")
    finally:
        (tmp_path / "videos/run").chmod(0o755)


def test_names_that_are_not_utf_8_are_classes_and_videos_like_others(write, tmp_path):
    name = os.fsdecode(b"caf\xe9/\xff.mp4")
    write(f"videos/{name}")
    write("videos/run/a.mp4")
    datasets = read_folder(tmp_path / "videos", fractions=(1, 0, 0))
    assert datasets["train"].names == (("caf\udce9", "run"),)
    assert datasets["train"].examples[0].path == str(tmp_path / "videos" / name)
    hash_of_dataset(datasets["train"])
    labelled = checkpoints.model(SMALL_HEAD, labels=datasets["train"].names)
    for form in ("vivit", "huggingface"):
        vivit.save(labelled, tmp_path / form, to=form)
        assert vivit.load(tmp_path / form).labels == labelled.labels


def test_a_csv_holds_names_that_are_not_utf_8(tmp_path):
    table = tmp_path / "a.csv"
    table.write_bytes(b"path,label\n\xff.mp4,caf\xe9\n")
    (dataset,) = read_table(table, fractions=(1, 0, 0)).values()
    assert os.fsencode(dataset.examples[0].path) == os.fsencode(tmp_path) + b"/\xff.mp4"
    assert dataset.names == (("caf\udce9",),)
    table.write_bytes("path,label\na.mp4,x\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"a.csv cannot be read as a table: its header is not UTF-8"):
        read_table(table)


def test_names_may_be_given_in_their_order_or_in_a_file(write, tmp_path):
    write("videos/run/a.mp4")
    order = write("names.txt", "swim\nrun\n\n")
    for names in (["swim", "run"], order):
        (dataset,) = read_folder(tmp_path / "videos", names=names).values()
        assert dataset.names == (("swim", "run"),)
        assert dataset.examples[0].labels == ((1,),)
    with pytest.raises(ValueError, match="has the folders run: they must be among the 1 names"):
        read_folder(tmp_path / "videos", names=["swim"])
    with pytest.raises(ValueError, match="names has 'run' twice: it must name every label once"):
        read_folder(tmp_path / "videos", names=["run", "run"])


def test_folders_without_videos_and_odd_fractions_are_refused(write, tmp_path):
    with pytest.raises(ValueError, match="has no videos in folders"):
        read_folder(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        read_folder(tmp_path / "none")
    write("videos/run/a.mp4")
    with pytest.raises(ValueError, match=r"fractions is \(0.5, 0.1, 0.1\): it must be three"):
        read_folder(tmp_path / "videos", fractions=(0.5, 0.1, 0.1))


def test_a_table_with_two_heads_seconds_and_splits_is_read(write, tmp_path):
    table = write(
        "epic.csv",
        "path,verb,noun,start,end,split\na.mp4,cut,onion,1.5,3,train\na.mp4,wash,pan,3,,train\nb/c.mp4,cut,pan,,,val\n",
    )
    datasets = read_table(table)
    assert datasets["train"].heads == ("verb", "noun")
    assert datasets["train"].names == (("cut", "wash"), ("onion", "pan"))
    assert datasets["train"].classes == (2, 2)
    assert datasets["train"].examples == (
        Example(str(tmp_path / "a.mp4"), ((0,), (0,)), 1.5, 3.0),
        Example(str(tmp_path / "a.mp4"), ((1,), (1,)), 3.0, None),
    )
    assert datasets["validation"].examples == (Example(str(tmp_path / "b/c.mp4"), ((0,), (1,))),)
    assert label_vector(datasets["train"], datasets["train"].examples[1]).tolist() == [0, 1, 0, 1]


def test_jsonl_says_the_same_as_csv(write):
    lines = [{"path": "a.mp4", "verb": ["cut", "wash"], "start": 1}, {"path": "b.mp4", "verb": [], "end": 2.5}]
    jsonl = write("table.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n")
    table = write("table.csv", "path,verb,start,end\na.mp4,cut|wash,1,\nb.mp4,,,2.5\n")
    datasets = read_table(jsonl, multi_label=True, fractions=(1, 0, 0))
    assert datasets == read_table(table, multi_label=True, fractions=(1, 0, 0))
    (dataset,) = datasets.values()
    assert [label_vector(dataset, each).tolist() for each in dataset.examples] == [[1, 1], [0, 0]]


def test_a_table_for_every_split_shares_the_labels(write):
    train, test = write("train.csv", "path,label\na.mp4,x\n"), write("test.csv", "path,label\nb.mp4,y\n")
    datasets = read_table({"train": train, "test": test}, root="/videos")
    assert {split: dataset.names for split, dataset in datasets.items()} == {
        "train": (("x", "y"),),
        "test": (("x", "y"),),
    }
    assert datasets["test"].examples[0].path == "/videos/b.mp4"
    with pytest.raises(ValueError, match="a table's split is 'dev': it must be one of train, validation, test"):
        read_table({"dev": test})


def test_stretches_of_one_video_fall_into_one_split(write):
    lines = [f"{index % 20}.mp4,x,{index},{index + 1}" for index in range(200)]
    datasets = read_table(write("table.csv", "path,label,start,end\n" + "\n".join(lines)), fractions=(0.5, 0.25, 0.25))
    paths = [{example.path for example in dataset.examples} for dataset in datasets.values()]
    assert sum(map(len, paths)) == 20


def test_every_class_is_in_every_split_that_its_videos_allow(write, tmp_path):
    counts = {"many": 50, "five": 5, "three": 3, "two": 2, "one": 1}
    for kind, count in counts.items():
        for index in range(count):
            write(f"videos/{kind}/{index}.mp4")
    datasets = read_folder(tmp_path / "videos")
    found = {
        split: Counter(dataset.names[0][example.labels[0][0]] for example in dataset.examples)
        for split, dataset in datasets.items()
    }
    assert found["train"] == {"many": 40, "five": 3, "three": 1, "two": 1, "one": 1}
    assert found["validation"] == {"many": 5, "five": 1, "three": 1, "two": 1}
    assert found["test"] == {"many": 5, "five": 1, "three": 1}
    only = read_folder(tmp_path / "videos", fractions=(0, 0, 1))
    assert {split: len(dataset.examples) for split, dataset in only.items()} == {"test": 61}


def test_a_table_is_divided_by_the_rarest_of_a_video_s_labels(write):
    """Verbs are common, nouns rare: each noun is in every split, although no pair of both has enough videos."""
    lines = [f"{index}.mp4,verb {index % 5},noun {index % 16}" for index in range(80)]
    datasets = read_table(write("table.csv", "path,verb,noun\n" + "\n".join(lines)))
    for dataset in datasets.values():
        assert {example.labels[1] for example in dataset.examples} == {(number,) for number in range(16)}
    assert len(datasets["train"].examples) == 48


def test_faults_of_a_table_are_reported_with_their_line(write):
    table = write(
        "bad.csv",
        "path,label,start,end\n,x,,\na.mp4,,,\nb.mp4,x,-1,\nc.mp4,x,5,4\nd.mp4,x\ne.mp4,x,one,\nf.mp4,x,,\n",
    )
    with pytest.raises(ValueError, match="and 1 more") as error:
        read_table(table)
    said = str(error.value)
    assert "\n" not in said
    assert "bad.csv line 6: it must have 4 columns like the header" in said
    assert "bad.csv line 2: path is '': it must name a video" in said
    assert "bad.csv line 3: label is '': it must be exactly one label" in said
    assert "bad.csv line 4: start is '-1': it must be a number of seconds, 0 or more" in said
    assert "bad.csv line 5: end is 4.0: it must be after start, 5.0" in said


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        (
            "a.jsonl",
            '{"path": "a.mp4", "label": "x"}\n[1]\nno\n',
            r"a.jsonl line 2: it is \[1\]: it must be a JSON object; .*line 3: it must be a JSON object",
        ),
        ("a.jsonl", '{"path": "a.mp4", "label": 1.5}\n', r"line 1: label is 1.5: it must be a label"),
        ("a.csv", "path\na.mp4\n", r"a.csv has no label column: it needs one besides path, start, end, split"),
        ("a.csv", "path,label\n", r"a.csv has no line: it must have one for every example"),
        ("a.csv", "path,label,split\na.mp4,x,dev\n", r"line 2: split is 'dev': it must be one of train"),
        ("a.csv", 'path,label\na.mp4,"x\n', r"a.csv cannot be read as a table: unexpected end of data"),
    ],
)
def test_a_file_that_is_no_table_is_rejected(write, name, text, reason):
    with pytest.raises(ValueError, match=reason):
        read_table(write(name, text))


def test_labels_that_are_not_among_the_given_ones_are_refused(write):
    table = write("a.csv", "path,verb\na.mp4,cut\nb.mp4,cutt\n")
    with pytest.raises(ValueError, match=r"line 3: verb is 'cutt': did you mean 'cut'\? it must be one of the 2"):
        read_table(table, names={"verb": ["wash", "cut"]})
    with pytest.raises(ValueError, match=r"names has 'noun': it must be one of the heads verb"):
        read_table(table, names={"noun": ["pan"]})


def test_a_dataset_knows_its_classes():
    assert Dataset((), ("verb", "noun"), (("a",), ("b", "c"))).classes == (1, 2)
