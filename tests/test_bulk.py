"""`vivit bulk` on a real local Ray with two workers: sources, results, damaged videos, kills, a probe."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import checkpoints
import numpy as np
import pytest
from videos import Coding, encode, scene

import vivit
from vivit.cli.main import main
from vivit.video.archive import list_archive, open_member
from vivit.video.inputs import seekable
from vivit.video.preprocessing import Preprocessing

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
ray = pytest.importorskip("ray")

import vivit.bulk  # noqa: E402
from vivit.bulk import cluster, runs  # noqa: E402
from vivit.bulk.attempts import attempted, forget_attempts  # noqa: E402
from vivit.bulk.sources import read_source  # noqa: E402

CONFIG = replace(vivit.named("vivit-tiny/8x2"), classes=(3,))
COUNT, DAMAGED = 7, 3  # videos, and the number of the one that is none
OPTIONS = {"workers": 2, "shard_size": 2, "batch": 2}


@pytest.fixture(scope="module")
def model():
    return checkpoints.model(CONFIG, preprocessing=Preprocessing(resize=32, crop=None, stride=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Videos of two clips each, one of which is a text, and others beside them that are no videos."""
    path = tmp_path_factory.mktemp("videos")
    for number in range(COUNT):
        if number == DAMAGED:
            (path / f"{number}.mkv").write_text("no video")
        else:
            encode(path / f"{number}.mkv", scene(16, 32, 32, number), Coding("ffv1", "bgr0"))
    (path / "notes.md").write_text("no video either")
    return path


@pytest.fixture(scope="module")
def local_ray():
    """A Ray of this process, which every run uses."""
    with cluster.connected(None, 2, 0), cluster.quiet():
        yield ray.get_runtime_context().gcs_address


@pytest.fixture(scope="module")
def run(local_ray, folder, model, tmp_path_factory):
    """The folder of a run over all videos."""
    output = tmp_path_factory.mktemp("run") / "out"
    assert vivit.bulk.write(folder, model, output, **OPTIONS)[:3] == (COUNT, 4, 1)
    return output


def names(folder):
    return [str(folder / f"{number}.mkv") for number in range(COUNT)]


def rows(output):
    return pa.concat_tables([pq.read_table(path) for path in sorted(output.glob("*.parquet"))]).to_pylist()


def files(output):
    return {path.name: path.read_bytes() for path in output.iterdir()}


def archive(path, folder):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in [*names(folder), str(folder / "notes.md")]:
            tar.add(name, Path(name).name)
    return path


@pytest.mark.fast
def test_the_four_kinds_of_source_name_the_same_videos_in_their_order(folder, tmp_path):
    (tmp_path / "list.txt").write_text("\n".join([*names(folder), "", os.path.relpath(folder / "8.mkv", tmp_path)]))
    pq.write_table(pa.table({"path": names(folder)[::-1]}), tmp_path / "table.parquet")
    assert read_source(folder).to_pylist() == names(folder)
    assert read_source(tmp_path / "list.txt").to_pylist() == [*names(folder), str(folder / "8.mkv")]
    assert read_source(tmp_path / "table.parquet", column="path").to_pylist() == names(folder)[::-1]
    tar = archive(tmp_path / "a.tar", folder)
    inside = [f"tar://{Path(name).name}::{tar}" for name in names(folder)]
    assert read_source(tar).to_pylist() == inside
    assert read_source(tmp_path).to_pylist() == inside
    with seekable(inside[0]) as path:
        assert Path(path).read_bytes() == (folder / "0.mkv").read_bytes()


@pytest.mark.fast
@pytest.mark.parametrize("damage", ["cut", "header", "missing", "compressed"])
def test_a_damaged_tar_file_names_the_videos_before_the_damage_and_itself(damage, folder, tmp_path):
    tar = archive(tmp_path / "a.tar", folder)
    place = list_archive(tar).members["2.mkv"].offset
    data = tar.read_bytes()
    if damage == "cut":
        tar.write_bytes(data[: place + 100])
    elif damage == "header":
        tar.write_bytes(data[: place - 500] + b"?" * 100 + data[place - 400 :])
    elif damage == "missing":
        tar.unlink()
    else:
        tar.write_bytes(b"\x1f\x8b" + data[2:])
    (tmp_path / "list.txt").write_text("a.tar")
    found = read_source(tmp_path / "list.txt").to_pylist()
    before = {"cut": 3, "header": 2}.get(damage, 0)
    assert found == [*(f"tar://{number}.mkv::{tar}" for number in range(before)), f"tar://::{tar}"]
    with pytest.raises(ValueError, match=r"a\.tar "), open_member(found[-1]):
        pass
    if damage == "cut":
        with pytest.raises(ValueError, match=r"2\.mkv::.* cannot be read: unexpected end of data"), seekable(found[2]):
            pass


@pytest.mark.fast
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere is no source of videos: it must be a folder, a list of paths (.txt)"),
        (["twice.txt"], "a.mkv' twice: every video must be named once"),
        (["empty.txt"], "empty.txt has no videos: it must have at least one"),
        (["table.parquet"], "column is 'video': it must be one of path, number"),
        (["table.parquet", "--column", "number"], "column number has values of type int64"),
        (["twice.txt", "--shard-size", "0"], "shard_size is 0: it must be at least 1"),
        (["twice.txt", "--stages", "prelogit"], "stage is 'prelogit': did you mean 'prelogits'?"),
        (["twice.txt", "--address", "head"], "address is 'head': it must be HOST:PORT of a Ray cluster"),
        (["twice.txt", "--address", "localhost:9"], "no Ray cluster can be reached at localhost:9: "),
        (["twice.txt", "-o", "used"], "used exists already: name a new folder or an empty one"),
    ],
)
def test_what_cannot_be_run_is_one_line_before_ray_is_started(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twice.txt").write_text("a.mkv\nb.mkv\na.mkv\n" if "used" not in words else "a.mkv")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    pq.write_table(pa.table({"path": ["a.mkv"], "number": [1]}), tmp_path / "table.parquet")
    output = [] if "-o" in words else ["-o", "out"]
    assert main(["bulk", "features", *words, *output]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.fast
def test_without_the_extra_one_line_names_it(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["bulk", "classify", str(folder), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == ('vivit bulk: ray is not installed: install it with: pip install "vivit[bulk]"\n')


def test_the_rows_are_the_features_of_the_plain_loop_and_a_damaged_video_is_a_row(run, folder, model):
    found = rows(run)
    assert len(found) == 2 * (COUNT - 1) + 1
    for name in names(folder):
        own = [row for row in found if row["video"] == name]
        assert {(row["version"], len(row["model"])) for row in own} == {(vivit.__version__, 64)}
        if name == str(folder / f"{DAMAGED}.mkv"):
            (row,) = own
            assert row["error"].startswith(f"{name} cannot be read as a video")
            assert row["prelogits"] is row["frames"] is row["start"] is None
            continue
        plain = model.features(name, batch=2)
        assert [row["error"] for row in own] == [None, None]
        assert [(row["start"], row["end"]) for row in own] == [(s.min(), s.max()) for s in plain["seconds"]]
        for stage in ("prelogits", "frames"):
            np.testing.assert_array_equal(np.array([row[stage] for row in own], np.float32), plain[stage])


def test_the_shards_are_the_same_bytes_with_any_number_of_workers(run, folder, model, tmp_path):
    vivit.bulk.write(folder, model, tmp_path / "one", **{**OPTIONS, "workers": 1})
    assert files(tmp_path / "one") == files(run)


def test_a_finished_run_computes_nothing_and_another_is_refused(run, folder, model, monkeypatch):
    monkeypatch.setattr(runs, "connected", None)
    assert vivit.bulk.write(folder, model, run, **OPTIONS)[:3] == (COUNT, 4, 1)
    with pytest.raises(ValueError, match=r"bulk\.json is of a run with other batch, model, stride: name"):
        vivit.bulk.write(folder, replace(model), run, **{**OPTIONS, "batch": 3}, stride=2)


def test_the_classes_of_videos_in_a_tar_file_are_those_of_the_plain_loop(
    local_ray, folder, model, tmp_path, monkeypatch, capsys
):
    tar = archive(tmp_path / "a.tar", folder)
    model.save(tmp_path / "model")
    command = ["bulk", "classify", str(tar), "-o", str(tmp_path / "out"), "--checkpoint", str(tmp_path / "model")]
    assert main([*command, "--views", "2x1", "--top", "2", "--workers", "2", "--shard-size", "8", "--batch", "2"]) == 2
    shown = capsys.readouterr()
    assert shown.out == f"wrote {tmp_path}/out: classify of {COUNT - 1} of {COUNT} videos in 1 shard\n"
    assert shown.err.startswith(
        f"vivit bulk: 1 of {COUNT} videos have a row with an error, such as: tar://{DAMAGED}.mkv"
    )
    for name, row in zip(names(folder), rows(tmp_path / "out"), strict=True):
        assert row["video"] == f"tar://{Path(name).name}::{tar}"
        if row["error"] is None:
            plain = model.classify(name, views=(2, 1), top=2, batch=2)
            assert row["heads"] == [[score._asdict() for score in head] for head in plain]


def test_a_dataset_of_paths_gives_a_dataset_of_results(local_ray, folder, model):
    paths = ray.data.from_items([{"path": name} for name in names(folder)[:2]], override_num_blocks=2)
    found = vivit.bulk.features(paths, model, column="path", workers=2, stages=["prelogits"], batch=2).take_all()
    assert sorted(row["video"] for row in found) == sorted(2 * names(folder)[:2])
    plain = model.features(names(folder)[0], stages=["prelogits"], batch=2)["prelogits"]
    own = [row["prelogits"] for row in found if row["video"] == names(folder)[0]]
    np.testing.assert_array_equal(np.array(own, np.float32), plain)


@pytest.mark.thorough
def test_a_run_that_is_killed_at_random_moments_goes_on_to_the_same_bytes(local_ray, run, folder, model, tmp_path):
    """The process of the run is killed, and Ray ends its workers."""
    model.save(tmp_path / "model")
    output, generator = tmp_path / "out", random.Random(6)
    code = "import sys; from vivit.cli.main import main; sys.exit(main(sys.argv[1:]))"
    options = ["--workers", "2", "--shard-size", "2", "--batch", "2", "--address", local_ray]
    words = ["bulk", "features", str(folder), "-o", str(output), "--checkpoint", str(tmp_path / "model"), *options]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(6):
        before = len([*output.glob("*.parquet")])
        with subprocess.Popen([sys.executable, "-c", code, *words], **pipes) as process:
            while len([*output.glob("*.parquet")]) == before and process.poll() is None:
                time.sleep(0.02)
            time.sleep(generator.uniform(0, 0.2))
            process.kill()
    done = subprocess.run([sys.executable, "-c", code, *words], **pipes, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"vivit bulk: 1 of {COUNT} videos have a row with an error")
    assert done.stderr.count("\n") == 1
    assert files(output) == files(run)


@pytest.mark.fast
def test_a_video_that_ends_its_process_again_and_again_becomes_an_error_and_the_others_do_not(tmp_path):
    class EndedError(Exception):
        """In place of the end of the process."""

    def compute(names):
        for name in names:
            if name == "b":
                raise EndedError
            yield name

    shard, found = tmp_path / "shard.parquet", []
    for _ in range(3):
        with pytest.raises(EndedError):
            list(attempted(shard, "abc", compute, lambda name, error: error))
    found = list(attempted(shard, "abc", compute, lambda name, error: error))
    assert (found[0], str(found[1]), found[2]) == ("a", "b ended the process that computed it, 2 times", "c")
    assert not [*tmp_path.iterdir()]
    with pytest.raises(EndedError):
        list(attempted(shard, "abc", compute, lambda name, error: error))
    forget_attempts(tmp_path)
    assert list(attempted(shard, "ac", compute, lambda name, error: error)) == ["a", "c"]


def descendants(parent):
    """The names and ids of the processes below one."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = path.read_text().partition(" (")
            name, _, fields = rest.rpartition(") ")
        except OSError:
            continue
        parents[int(number)] = (name, int(fields.split()[1]))
    below = {parent}
    while more := {one for one, (_, above) in parents.items() if above in below} - below:
        below |= more
    return {one: parents[one][0] for one in below if one in parents}


def test_a_worker_that_is_killed_is_replaced_and_no_video_is_lost_or_twice(local_ray, run, folder, model, tmp_path):
    generator, killed = random.Random(1), []

    def progress(done, total):
        workers = [one for one, name in descendants(os.getpid()).items() if name.startswith("ray::MapW")]
        if workers and len(killed) < 2:
            killed.append(generator.choice(sorted(workers)))
            os.kill(killed[-1], signal.SIGKILL)

    vivit.bulk.write(folder, model, tmp_path / "out", **OPTIONS, progress=progress)
    assert len(killed) == 2
    assert files(tmp_path / "out") == files(run)


@pytest.fixture(scope="module")
def labelled(folder, tmp_path_factory):
    """A table of the videos in two splits and two classes."""
    path = tmp_path_factory.mktemp("labelled") / "table.csv"
    rows = (
        f"{name},{'odd' if number % 2 else 'even'},{'train' if number < 5 else 'validation'}"
        for number, name in enumerate(names(folder))
    )
    path.write_text("\n".join(["path,label,split", *rows]))
    return path


def test_a_probe_from_a_run_is_the_probe_of_the_same_clips(run, labelled, model, tmp_path, capsys):
    """Two views in time, of videos of two clips, are the clips that slide over them."""
    pytest.importorskip("sklearn")
    model.save(tmp_path / "model")
    words = ["probe", "--data", str(labelled), "--checkpoint", str(tmp_path / "model"), "-o", str(tmp_path / "probed")]
    assert main([*words, "--features", str(run)]) == 2
    assert f"{DAMAGED}.mkv cannot be read as a video" in capsys.readouterr().err
    assert main([*words, "--features", str(run), "--broken", "skip", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["examples"] == {"train": 4, "validation": 2}
    assert [Path(path).name for path in printed["broken"]] == [f"{DAMAGED}.mkv"]
    expected = model.probe(labelled, views=(2, 1), broken="skip")
    found = vivit.load(tmp_path / "probed")
    kernel = np.asarray(expected.model.params.head.kernel)
    np.testing.assert_allclose(found.params.head.kernel, kernel, atol=1e-3 * np.abs(kernel).max())
    assert printed["heads"]["label"]["strength"] == expected.strengths["label"]


def test_features_that_do_not_fit_a_probe_are_refused_in_one_line(run, labelled, folder, model, tmp_path, capsys):
    pytest.importorskip("sklearn")
    model.save(tmp_path / "model")
    checkpoints.model(CONFIG, 1, preprocessing=model.preprocessing).save(tmp_path / "other")
    part = shutil.copytree(run, tmp_path / "part")
    (part / "shard-00002-of-00004.parquet").unlink()
    wrong = shutil.copytree(run, tmp_path / "wrong")
    record = json.loads((wrong / "bulk.json").read_text())
    (wrong / "bulk.json").write_text(json.dumps(record | {"stages": ["frames"]}))
    encode(tmp_path / "new.mkv", scene(16, 32, 32), Coding("ffv1", "bgr0"))
    header, *rows = labelled.read_text().splitlines()
    (tmp_path / "more.csv").write_text("\n".join([header, *rows, f"{tmp_path}/new.mkv,odd,train"]))
    lines = [f"{row},0,0.5" for row in rows]
    (tmp_path / "segments.csv").write_text("\n".join([f"{header},start,end", *lines]))
    for data, checkpoint, features, more, message in [
        (labelled, "other", run, [], f"{run} is of the model "),
        (labelled, "model", run, ["--stride", "2"], f"{run} is of the model "),
        (labelled, "model", run, ["--views", "4x3"], "--views is given with --features"),
        (labelled, "model", part, [], "is not finished, shard-00002-of-00004.parquet is missing"),
        (labelled, "model", wrong, [], "has no prelogits: it must be a run of vivit bulk features with this stage"),
        (labelled, "model", folder, [], "has no bulk.json: it must be the folder of a run"),
        (tmp_path / "more.csv", "model", run, ["--broken", "skip"], "new.mkv has no features"),
        (tmp_path / "segments.csv", "model", run, [], "has a segment in the data"),
    ]:
        words = ["probe", "--data", str(data), "--checkpoint", str(tmp_path / checkpoint), "-o", str(tmp_path / "out")]
        assert main([*words, "--features", str(features), *more]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()
