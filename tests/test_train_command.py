"""`vivit train` and `vivit data` as a user runs them: a folder of videos in, a model and its pictures out."""

import json

import pytest

import vivit
from vivit import cli
from vivit.training.logs import read_metrics

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
    assert cli.main(["data", "carousel", str(folder), *counts]) == 0
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
    assert cli.main(["train", str(config), "--folder", str(run)]) == 0
    model = vivit.load(run / "model")
    assert model.labels is not None
    assert model.labels[0] == ("clockwise-1", "clockwise-3", "clockwise-5", "clockwise-7")
    metrics = read_metrics(run / "metrics.jsonl")
    assert [line["step"] for line in metrics if line["kind"] == "validation"] == [3, 6]
    assert (run / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert list((run / "tensorboard").iterdir())
    capsys.readouterr()
    evaluation = ["evaluate", str(videos), "--checkpoint", str(run / "model"), "--heads", "verb", "noun"]
    assert cli.main([*evaluation, "--stride", "1", "--views", "1x1", "--split", "validation", "-o", str(report)]) == 0
    final = metrics[-1]  # evaluated alone it is what it was at its last validation: the same pictures
    shown = json.loads(report.read_text())
    assert [shown["heads"][head]["top_1"] for head in ("verb", "noun")] == [final["verb/top_1"], final["noun/top_1"]]
    assert cli.main(["train", str(config), "--folder", str(run)]) == 0  # done already: nothing is done again
    assert read_metrics(run / "metrics.jsonl") == metrics
    tuned = ["train", str(config), "--folder", str(tmp_path / "tuned"), "--start", str(run / "model"), "--steps", "1"]
    assert cli.main([*tuned, "--freeze", "encoder/*"]) == 0
    frozen = vivit.load(tmp_path / "tuned" / "model").params.encoder
    assert (frozen.norm.scale == model.params.encoder.norm.scale).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folder", "x"], "--data is missing: it must be a folder"),
        (["--data", "x"], "--folder is missing: it must be where the run lives"),
        (["--data", "x", "--folder", "y"], "--learning-rate is missing"),
        (["--data", "x", "--folder", "y", "--recipe", "k700"], "no recipe is named 'k700': it must be one of k400-b"),
        (
            ["--data", "x", "--folder", "y", "--recipe", "k400-b", "--momentum", "2"],
            "momentum is 2: it must be a number",
        ),
        (["--data", "nothing", "--folder", "y", "--recipe", "k400-b"], "nothing is not there: it must be a folder"),
        (["nothing.json"], "nothing.json"),
    ],
)
def test_bad_choices_are_one_line_and_write_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_choices_of_a_run_are_printed_as_a_config(config, capsys):
    assert cli.main(["train", str(config), "--folder", "x", "--learning-rate", "0.5", "--print"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["learning_rate"], printed["folder"], printed["steps"]) == (0.5, "x", 6)


def test_a_config_with_an_unknown_name_says_so(tmp_path, capsys):
    (tmp_path / "run.json").write_text('{"learning_rat": 1}')
    assert cli.main(["train", str(tmp_path / "run.json")]) == 2
    assert "run.json has learning_rat: it must have names such as data" in capsys.readouterr().err
