"""`vivit train` and `vivit data` as a user runs them: a folder of videos in, a model and its pictures out."""

import csv
import json
import os
import re
import stat
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from videos import Coding, encode, scene

import vivit
from vivit.cli.main import main
from vivit.training.carousel import RECIPE
from vivit.training.logs import read_metrics
from vivit.training.recipe import RECIPES, recipe, recipe_fields

SMALL = dict(
    model="factorised_dot_product", frames=8, height=24, width=24, tubelet=[2, 8, 8], channels=16, heads=2, hidden=16,
    layers=1, pooling="mean", classes=[4, 10],
)  # fmt: skip
CHOICES = dict(
    heads=["verb", "noun"], steps=6, batch_size=8, learning_rate=0.01, optimiser="adamw", dtype="float32", stride=1,
    resize=24, crop=24, scale_jitter=[1, 1], random_crop=False, flip=0, save_every=3, validate_every=3, mesh=[1, 1, 1],
)  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "carousel"
    counts = ["--train", "64", "--validation", "8", "--test", "8", "--frames", "8"]
    assert main(["data", "carousel", str(folder), *counts]) == 0
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory, videos):
    """A CONFIG file, and a file of the model's fields that it names."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "model.json").write_text(json.dumps(SMALL))
    choices = CHOICES | dict(data=str(videos), model=str(folder / "model.json"))
    (folder / "run.json").write_text(json.dumps(choices))
    return folder / "run.json"


@pytest.mark.fast
def test_training_writes_a_model_its_figures_and_curves_and_evaluation_takes_it(config, videos, tmp_path, capsys):
    run, report = tmp_path / "run", tmp_path / "report.json"
    assert main(["train", str(config), "--folder", str(run)]) == 0
    said = capsys.readouterr().err
    for line in (
        "classes: 4 of verb, ",
        "clips: 64 in train, 8 in validation, 8 in test",
        "steps: 6 of 8 clips, 0.75 epochs, no warm-up",
        "MiB per device, as the compiler reports",
        "training: step 6 of 6, loss ",
    ):
        assert line in said
    model = vivit.load(run / "model")
    assert model.heads == ("verb", "noun")
    assert model.labels is not None
    assert model.labels[0] == ("clockwise-1", "clockwise-3", "clockwise-5", "clockwise-7")
    metrics = read_metrics(run / "metrics.jsonl")
    assert [line["step"] for line in metrics if line["kind"] == "validation"] == [3, 6]
    assert (run / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert list((run / "tensorboard").iterdir())
    capsys.readouterr()
    video = str(next((videos / "test").iterdir()))
    assert main(["classify", video, "--checkpoint", str(run), "--views", "1x1"]) == 0  # the run's folder is enough
    shown = capsys.readouterr().out
    assert (
        shown.index("\n  verb\n") < shown.index("%  clockwise-") < shown.index("\n  noun\n") < shown.index("%  digit-")
    )
    evaluation = ["evaluate", str(videos), "--checkpoint", str(run / "model"), "--heads", "noun", "verb"]
    table = tmp_path / "predictions.csv"
    written = ["-o", str(report), "--predictions", str(table)]
    assert main([*evaluation, "--stride", "1", "--views", "1x1", "--split", "validation", *written]) == 0
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 8
    hits = [np.mean([row[head] == row[f"{head} 1"] for row in rows]) for head in ("verb", "noun")]
    final = metrics[-1]  # evaluated alone it is what it was at its last validation: the same pictures
    shown = json.loads(report.read_text())
    assert [shown["heads"][head]["top_1"] for head in ("verb", "noun")] == [final["verb/top_1"], final["noun/top_1"]]
    assert hits == [final["verb/top_1"], final["noun/top_1"]]
    assert main(["train", str(config), "--folder", str(run)]) == 0  # done already: nothing is done again
    assert read_metrics(run / "metrics.jsonl") == metrics
    tuned = ["train", str(config), "--folder", str(tmp_path / "tuned"), "--start", str(run / "model"), "--steps", "1"]
    assert main([*tuned, "--freeze", "encoder/*"]) == 0
    frozen = vivit.load(tmp_path / "tuned" / "model").params.encoder
    assert (frozen.norm.scale == model.params.encoder.norm.scale).all()


def test_a_run_inside_its_data_goes_on_and_its_files_have_the_mode_of_the_umask(tmp_path, capsys):
    for number in range(8):
        path = tmp_path / f"videos/{'ab'[number % 2]}/{number}.mkv"
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(path, scene(8, 24, 24, number), Coding("ffv1", "bgr0"))
    (tmp_path / "videos/a/Thumbs.db").touch()
    (tmp_path / "model.json").write_text(json.dumps(SMALL | dict(classes=[2])))
    choices = {name: value for name, value in CHOICES.items() if name != "heads"} | dict(steps=2, batch_size=2)
    choices |= dict(data=str(tmp_path / "videos"), model=str(tmp_path / "model.json"), cache=str(tmp_path / "cache"))
    (tmp_path / "run.json").write_text(json.dumps(choices))
    run = tmp_path / "videos/run"
    before = os.umask(0o027)
    try:
        for _ in range(2):  # the second time its files are there
            assert main(["train", str(tmp_path / "run.json"), "--folder", str(run)]) == 0
    finally:
        os.umask(before)
    assert vivit.load(run / "model").labels == (("a", "b"),)
    written = [*run.rglob("*"), *(tmp_path / "cache").iterdir()]
    assert {"metrics.jsonl", "curves.png", "model.safetensors"} <= {path.name for path in written}
    assert any(path.suffix == ".frames" for path in written)
    wrong = [path for path in written if stat.S_IMODE(path.stat().st_mode) != (0o750 if path.is_dir() else 0o640)]
    assert not wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folder", "x"], "--data is missing: it must be a folder"),
        (["--data", "x"], "--folder is missing: it must be the folder of the run"),
        (["--data", "", "--folder", "y", "--recipe", "k400-b"], "data is '': it must be a text that is not empty"),
        (["--data", "x", "--folder", "y"], "--learning-rate is missing"),
        (["--recipe", "k400-b", "--image", "inflation"], "--start is missing: it must be a checkpoint to start from"),
        (["--recipe", "carousel", "--epochs", "9"], "omit --epochs"),
        (["--recipe", "carousel", "--data", "x"], "omit --data"),
        (["--data", "x", "--folder", "y", "--recipe", "k700"], "no recipe is named 'k700': it must be one of k400-b"),
        (
            ["--data", "x", "--folder", "y", "--recipe", "k400-b", "--momentum", "2"],
            "momentum is 2: it must be a number",
        ),
        (["--data", "nothing", "--folder", "y", "--recipe", "k400-b"], "nothing does not exist: it must be a folder"),
        (["nothing.json"], "nothing.json"),
    ],
)
def test_bad_choices_are_one_line_and_write_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.fast
def test_all_that_is_missing_is_named_at_once(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["train", "--processes", "2"]) == 2
    error = capsys.readouterr().err
    names = ["data", "folder", "model", "learning-rate", "epochs"]
    assert re.findall(r"--([a-z-]+) is missing: it must be", error) == names
    assert "--processes is given without --address, --process: they must be given together; Matplotlib is not " in error
    assert error.count("\n") == 1


@pytest.mark.fast
def test_all_choices_of_a_run_are_printed_as_a_config_that_says_the_same(config, tmp_path, capsys):
    assert main(["train", str(config), "--folder", "x", "--learning-rate", "0.5", "--print"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["learning_rate"], printed["folder"], printed["steps"]) == (0.5, "x", 6)
    assert (printed["keep"], printed["broken"], printed["clip_norm"]) == (3, "fail", 1.0)  # nobody said these
    (tmp_path / "again.json").write_text(json.dumps(printed))
    assert main(["train", str(tmp_path / "again.json"), "--print"]) == 0
    assert json.loads(capsys.readouterr().out) == printed


@pytest.mark.fast
@pytest.mark.parametrize("name", [*RECIPES, "carousel"])
def test_what_a_recipe_chooses_is_printed_and_never_trained(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = [] if name == "carousel" else ["--clip-norm", "None"]
    assert main(["train", "--recipe", name, "--print", *said]) == 0
    printed = json.loads(capsys.readouterr().out)
    wanted = RECIPE if name == "carousel" else replace(recipe(name).recipe, clip_norm=None)
    assert {field: printed[field] for field in asdict(wanted)} == json.loads(json.dumps(asdict(wanted)))
    (tmp_path / "again.json").write_text(json.dumps(printed))
    assert main(["train", str(tmp_path / "again.json"), "--print"]) == 0
    assert json.loads(capsys.readouterr().out) == printed
    assert [path.name for path in tmp_path.iterdir()] == ["again.json"]


@pytest.mark.fast
def test_help_describes_every_field_of_a_recipe_with_its_default(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = capsys.readouterr().out.split("fields of the recipe")[1]
    for name, field in recipe_fields().items():
        default = ",".join(map(str, field.default)) or "none" if isinstance(field.default, tuple) else field.default
        text = f"{field.text} ({'required' if field.default == 'required' else f'default: {default}'})"
        assert re.search(rf"--{name.replace('_', '-')} \S+\s+{re.escape(text)}\n", told), name


def test_patience_needs_a_validation(config, videos, tmp_path, capsys):
    (tmp_path / "table.csv").write_text("path,verb,noun,split\na.mp4,go,one,train\n")
    arguments = ["train", str(config), "--folder", str(tmp_path / "run"), "--patience", "2"]
    assert main([*arguments, "--data", str(tmp_path / "table.csv")]) == 2
    assert f"--patience is 2: {tmp_path / 'table.csv'} has no validation" in capsys.readouterr().err


def test_a_config_with_an_unknown_name_says_so(tmp_path, capsys):
    (tmp_path / "run.json").write_text('{"learning_rat": 1}')
    assert main(["train", str(tmp_path / "run.json")]) == 2
    assert "run.json has learning_rat: it must have names such as data" in capsys.readouterr().err
