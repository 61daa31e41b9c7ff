"""Whole runs on real video files: killed, told to stop, with broken checkpoints, full disks, bad videos, bad losses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from unittest import mock

import jax
import numpy as np
import pytest
from checkpoints import same
from safetensors import SafetensorError
from strategies import mostly_thorough

import vivit
from vivit.conformance.quickly import QUICKLY
from vivit.data.carousel import write_carousel
from vivit.data.loading import Share, training_batches
from vivit.data.tables import read_table
from vivit.training.carousel import CONFIG, HEADS, NAMES, RECIPE
from vivit.training.from_checkpoint import initial_model
from vivit.training.logs import Logs
from vivit.training.loop import DivergedError, InterruptedRunError, Run, StoppedRunError, train
from vivit.training.saving import ChangedRunError
from vivit.training.step import make_step
from vivit.training.transforms import train_transform, training_spec
from vivit.training.validation import evaluate_recipe, figures

MODEL = replace(CONFIG, model="factorised_dot_product", pooling="mean", channels=16, heads=2, hidden=16, layers=1)
SHORT = replace(
    RECIPE, epochs=None, warmup_epochs=None, steps=12, warmup_steps=3, batch_size=8, accumulation=2, mixup=0.2,
    label_smoothing=0.1, ema_decay=0.9, dropout=0.1, stochastic_depth=0.1, random_crop=True, scale_jitter=(0.9, 1.2),
)  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos") / "carousel"
    write_carousel(folder, train=40, validation=8, test=8, frames=8)
    return folder


@pytest.fixture(scope="module")
def dataset(videos):
    return read_table({"train": videos / "train.csv"}, heads=HEADS, names=NAMES)["train"]


@cache
def quick_step(*choices, **options):
    step = make_step(*choices, **options)
    return jax.jit(step.__wrapped__, donate_argnums=0, compiler_options=QUICKLY)


def run(folder, dataset, recipe=SHORT, *, told=None, **fields):
    """told: what train takes beside: validate, show, plan."""
    model = initial_model(dataset, MODEL, None)
    fields = dict(save_every=3, log_every=1, mesh=(1, 1, 1)) | fields
    with mock.patch("vivit.training.loop.make_step", quick_step):
        return train(model, dataset, recipe, Run(folder=folder, **fields), **(told or {}))


def events(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["gradient_norm"]) for line in lines if line["kind"] == "train"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, dataset):
    """A run that nothing interrupted: its folder and its model."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, run(folder, dataset)


PROGRAM = """
import sys
from pathlib import Path
from test_training_run import HEADS, NAMES, SHORT, run
from vivit.data.tables import read_table
dataset = read_table({"train": Path(sys.argv[1]) / "train.csv"}, heads=HEADS, names=NAMES)["train"]
print("ready", flush=True)
run(Path(sys.argv[2]), dataset)
"""


def started(videos, folder, before=""):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    environment["XLA_FLAGS"] = ""
    return subprocess.Popen(
        [sys.executable, "-c", f"import conftest, resource\n{before}\n{PROGRAM}", str(videos), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def wait_for_step(folder, step, process):
    for _ in range(2400):
        if process.poll() is not None:
            raise AssertionError(process.stderr.read())
        path = folder / "metrics.jsonl"
        if path.exists() and path.read_text().count("\n") >= step:
            return
        time.sleep(0.05)
    raise AssertionError("the run does not come forward")


@pytest.mark.parametrize(
    ("signum", "step"), mostly_thorough([(signal.SIGKILL, 5), (signal.SIGTERM, 2)], (signal.SIGKILL, 5))
)
def test_a_run_that_was_killed_goes_on_bit_for_bit(signum, step, videos, dataset, whole, tmp_path):
    folder = tmp_path / "run"
    process = started(videos, folder)
    wait_for_step(folder, step, process)
    process.send_signal(signum)
    error = process.communicate()[1]
    if signum != signal.SIGKILL:
        assert re.search(rf"InterruptedRunError: stopped by {signum.name}; saved at step \d+ of 12: the ", error)
        assert len(events(folder)) == kept(folder)[-1]
    assert len(events(folder)) < 12
    model = run(folder, dataset)
    assert events(folder) == events(whole[0])
    assert same(model.params, whole[1].params)


def test_a_run_over_eight_devices_learns_what_one_does_and_goes_on(dataset, whole, tmp_path):
    recipe = replace(SHORT, accumulation=1)
    folder = tmp_path / "run"
    run(folder, dataset, recipe, mesh=(8, 1, 1))
    losses, alone = ([loss for _, loss, _ in events(place)] for place in (folder, whole[0]))
    np.testing.assert_allclose(losses[:4], alone[:4], rtol=1e-4)  # later AdamW has made much of little
    shutil.rmtree(folder / "checkpoints" / "12")
    before = events(folder)
    run(folder, dataset, recipe, mesh=(8, 1, 1))
    assert events(folder) == before


def copied(whole, tmp_path):
    """A copy of the uninterrupted run."""
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    return folder


@pytest.mark.parametrize("damage", mostly_thorough(["cut", "flipped", "gone"], "flipped"))
def test_a_broken_newest_checkpoint_falls_back_to_the_one_before(damage, dataset, whole, tmp_path, caplog):
    folder = copied(whole, tmp_path)
    newest = folder / "checkpoints" / "12" / "state"
    files = [path for path in newest.rglob("*") if path.is_file() and path.stat().st_size > 500]
    assert files
    for path in files:
        data = bytearray(path.read_bytes())
        if damage == "cut":
            path.write_bytes(data[: len(data) // 2])
        elif damage == "gone":
            path.unlink()
        else:
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(data)
    model = run(folder, dataset)
    assert "the checkpoint of step 12 is broken, and renamed to broken-12" in caplog.text
    assert events(folder) == events(whole[0])
    assert same(model.params, whole[1].params)


def test_a_changed_run_is_refused_and_nothing_is_touched(dataset, whole, tmp_path):
    folder = copied(whole, tmp_path)
    before = sorted(path for path in folder.rglob("*"))
    with pytest.raises(ChangedRunError, match=r"recipe.learning_rate was 0.001 and is 0.1; name another folder"):
        run(folder, dataset, replace(SHORT, learning_rate=0.1))
    assert sorted(path for path in folder.rglob("*")) == before


DIVERGING = replace(SHORT, learning_rate=1e30, clip_norm=None, optimiser="sgd", warmup_steps=None, accumulation=1)


def kept(folder):
    """The steps of the checkpoints."""
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())


def test_a_loss_that_is_not_finite_names_its_step_and_examples(dataset, tmp_path):
    with pytest.raises(
        DivergedError,
        match=r"gradient_norm nan at step \d+: they must be finite; its examples are .*mkv.*; no checkpoint was",
    ):
        run(tmp_path / "run", dataset, DIVERGING, save_every=12)
    assert kept(tmp_path / "run") == []


def test_a_loss_that_is_not_finite_names_the_checkpoint_that_is_whole_if_there_is_one(dataset, tmp_path):
    with pytest.raises(DivergedError, match=r"at step \d+: .*; the checkpoint of step \d+ is whole") as error:
        run(tmp_path / "run", dataset, DIVERGING, save_every=1)
    step, whole = (int(number) for number in re.findall(r"step (\d+)", str(error.value)))
    assert whole == step - 1 == kept(tmp_path / "run")[-1]


def test_weights_that_are_not_finite_are_not_saved(dataset, tmp_path):
    with pytest.raises(DivergedError, match=r"weights are not finite after step 1: they must be; no checkpoint"):
        run(tmp_path / "run", dataset, replace(DIVERGING, weight_decay=1e30), save_every=1)
    assert kept(tmp_path / "run") == []


def test_a_full_disk_is_one_clear_error_and_older_checkpoints_are_whole(videos, dataset, tmp_path, whole):
    folder = copied(whole, tmp_path)
    for step in ("12", "9"):
        shutil.rmtree(folder / "checkpoints" / step)
    assert os.listdir(folder / "checkpoints") == ["6"]
    process = started(videos, folder, before="resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, -1))")
    error = process.communicate()[1]  # writes beyond 30 kB failed, as on a full disk
    assert process.returncode == 1
    assert "StoppedRunError: a checkpoint in" in error
    assert "could not be written: File too large; the checkpoint of step 6 is whole: the same command resumes" in error
    model = run(folder, dataset)
    assert events(folder) == events(whole[0])
    assert same(model.params, whole[1].params)


def test_a_video_that_cannot_be_used_is_fatal_or_left_out_by_choice(videos, tmp_path, caplog):
    folder = tmp_path / "videos"
    shutil.copytree(videos, folder)
    dataset = read_table({"train": folder / "train.csv"}, heads=HEADS, names=NAMES)["train"]
    for example in dataset.examples[:3]:
        with open(example.path, "wb") as file:
            file.write(b"no video")
    with pytest.raises(StoppedRunError, match=r"cannot be read as a video.*; --broken skip leaves such videos out"):
        run(tmp_path / "fatal", dataset)
    run(tmp_path / "skip", dataset, broken="skip")
    assert "left out, 3 so far" in caplog.text


def at(step, work):
    """What does something after an update, once."""
    return dict(show=lambda progress: work() if progress.step == step else None)


@pytest.fixture
def copied_videos(videos, tmp_path):
    folder = tmp_path / "videos"
    shutil.copytree(videos, folder)
    return read_table({"train": folder / "train.csv"}, heads=HEADS, names=NAMES)["train"]


def test_a_video_that_becomes_unreadable_ends_the_run_where_it_goes_on_bit_for_bit(copied_videos, tmp_path):
    folder, dataset = tmp_path / "run", copied_videos
    whole = run(tmp_path / "whole", dataset)
    path = dataset.examples[7].path
    os.rename(path, f"{path}.away")
    with pytest.raises(
        StoppedRunError, match=r"; --broken skip leaves such videos out; (saved at step|no checkpoint)"
    ) as error:
        run(folder, dataset, save_every=100)
    assert path in str(error.value)
    assert "\n" not in str(error.value)
    assert len(events(folder)) == (kept(folder) or [0])[-1]
    os.rename(f"{path}.away", path)
    model = run(folder, dataset)
    assert events(folder) == events(tmp_path / "whole")
    assert same(model.params, whole.params)


@pytest.mark.parametrize("gone", mostly_thorough(["checkpoints", "metrics.jsonl", "."], "."))
def test_a_folder_removed_under_a_run_ends_it_and_what_it_had_is_saved_anew(gone, dataset, tmp_path, whole):
    folder = tmp_path / "run"

    def remove():
        while not (folder / "checkpoints" / "3").exists():  # it is written in the background
            time.sleep(0.01)
        path = folder / gone
        path.unlink() if path.is_file() else shutil.rmtree(path)

    with pytest.raises(StoppedRunError, match=r"was removed while the run needed it; saved at step 6 of 12: the same"):
        run(folder, dataset, told=at(4, remove))
    assert kept(folder)[-1] == 6
    model = run(folder, dataset)
    assert same(model.params, whole[1].params)


def test_a_disk_that_fills_up_ends_the_run_with_one_line_and_what_it_can_save_saved(
    dataset, tmp_path, whole, monkeypatch
):
    folder, write = tmp_path / "run", Logs.write

    def full(self, step, *arguments, **options):
        if step == 5:
            raise OSError(f"{folder / 'metrics.jsonl'} could not be written: No space left on device")
        write(self, step, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Logs, "write", full)
        with pytest.raises(StoppedRunError, match=r"metrics.jsonl could not be written: No .*; saved at step 5 of"):
            run(folder, dataset)
    assert same(run(folder, dataset).params, whole[1].params)
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.numpy.serialize_file", mock.Mock(side_effect=SafetensorError("(os error 28)")))
        with pytest.raises(StoppedRunError, match=r"model/model.next.safetensors could not be .*; saved at step 12"):
            run(folder, dataset)


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "model", "best", "metrics.jsonl"])
def test_a_folder_that_is_something_else_is_refused_at_once(name, dataset, tmp_path):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / name
    path.mkdir() if name == "metrics.jsonl" else path.write_text("mine")
    with pytest.raises(ValueError, match=rf"run/{name} is a (file|folder): it must be a (file|folder) of a run"):
        run(tmp_path / "run", dataset)
    assert list((tmp_path / "run").iterdir()) == [path]


SCORES = [0.1, 0.5, 0.4, 0.5, 0.3, 0.6]


def scored(models):
    """A validation with scores made up, which keeps what it was given."""

    def validate(model, step):
        models.append((step, model))
        return {"verb/top_1": 1.0, "action/top_1": SCORES[step // 2 - 1]}

    return dict(validate=validate)


@pytest.mark.parametrize("patience", mostly_thorough([None, 3, 2], 2))
def test_the_best_model_is_kept_and_patience_ends_a_run(patience, dataset, tmp_path):
    folder, models = tmp_path / "run", []
    last = run(folder, dataset, validate_every=2, patience=patience, told=scored(models))
    steps = [step for step, _ in models]
    assert steps == {None: [2, 4, 6, 8, 10, 12], 3: [2, 4, 6, 8, 10], 2: [2, 4, 6, 8]}[patience]
    best = dict(models)[12 if patience is None else 4]
    assert same(vivit.load(folder / "best").params, best.params)
    assert same(vivit.load(folder).params, best.params)
    assert "best/ of the training in" in str(vivit.load(folder).report)
    assert same(vivit.load(folder / "model").params, last.params)
    run(folder, dataset, validate_every=2, patience=patience, told=scored(models))  # it has ended, and stays so
    assert len(models) == len(steps)
    if patience == 2:  # with more of it, it goes on where it had ended
        run(folder, dataset, validate_every=2, patience=3, told=scored(models))
        assert [step for step, _ in models] == [2, 4, 6, 8, 10]


@pytest.fixture
def signals(monkeypatch):
    """They do what they do in a program that was started in a terminal, whoever started pytest."""
    monkeypatch.setattr("vivit.training.stopping._discard_terminal_output", lambda: None)
    before = [(number, signal.signal(number, default)) for number, default in DEFAULTS.items()]
    yield
    for number, handler in before:
        signal.signal(number, handler)


DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}


@pytest.mark.parametrize("number", mostly_thorough(DEFAULTS, signal.SIGTERM))
def test_a_signal_ends_a_run_that_then_goes_on_bit_for_bit(number, signals, dataset, whole, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(InterruptedRunError, match=rf"stopped by {number.name}; saved at step 4 of 12: the") as error:
        run(folder, dataset, told=at(4, lambda: os.kill(os.getpid(), number)))
    assert error.value.number == number
    assert {number: signal.getsignal(number) for number in DEFAULTS} == DEFAULTS
    assert (len(events(folder)), kept(folder)[-1]) == (4, 4)
    model = run(folder, dataset)
    assert events(folder) == events(whole[0])
    assert same(model.params, whole[1].params)


def test_a_second_ctrl_c_ends_a_run_at_once(signals, dataset, tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", dataset, told=at(4, twice))


def test_a_signal_while_validating_is_heard_at_once_and_the_validation_is_done_when_the_run_goes_on(
    signals, dataset, tmp_path
):
    folder, models = tmp_path / "run", []

    def validate(model, step):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    with pytest.raises(InterruptedRunError, match=r"stopped by SIGINT; saved at step 2 of 12") as error:
        run(folder, dataset, validate_every=2, told=dict(validate=validate))
    assert error.value.number == signal.SIGINT
    run(folder, dataset, validate_every=2, told=scored(models))
    assert [step for step, _ in models] == [2, 4, 6, 8, 10, 12]


def test_signals_that_were_to_be_ignored_stay_ignored(signals, dataset, tmp_path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    run(tmp_path / "run", dataset, told=at(2, lambda: os.kill(os.getpid(), signal.SIGHUP)))


def test_the_plan_is_told_once_before_the_first_update(dataset, tmp_path):
    plans = []
    run(tmp_path / "run", dataset, told=dict(plan=plans.append))
    (plan,) = plans
    assert (plan.steps, plan.begin, plan.compiled) == ((12, 3), 0, True)
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(initial_model(dataset, MODEL, None).params))
    assert plan.bytes > 5 * parameters  # with their gradients, two moments and a running average


def test_what_does_not_fit_is_named_before_anything_is_written(dataset, tmp_path):
    model = initial_model(dataset, MODEL, None)
    wrong = replace(dataset, heads=("verb",), names=dataset.names[:1])
    with pytest.raises(ValueError, match=r"classes is \(4, 10\): the data have \(4,\)"):
        train(model, wrong, SHORT, Run(folder=tmp_path / "run"))
    with pytest.raises(ValueError, match="crop is 20: the config has pictures of 24x24"):
        train(model, dataset, replace(SHORT, crop=20), Run(folder=tmp_path / "run", mesh=(1, 1, 1)))
    with pytest.raises(ValueError, match="save_every is 0: it must be a positive integer"):
        Run(folder=tmp_path, save_every=0)


def test_flips_of_directions_are_warned_of(dataset, tmp_path, caplog):
    run(tmp_path / "run", dataset, replace(SHORT, flip=0.5, steps=1, warmup_steps=None))
    assert "clockwise" in caplog.text


def test_fine_tuning_starts_from_a_checkpoint_with_a_head_for_the_data(dataset, whole, tmp_path):
    vivit.save(whole[1], tmp_path / "start")
    again = initial_model(dataset, None, tmp_path / "start")
    assert same(again.params, whole[1].params)
    fewer = replace(dataset, heads=("noun",), names=dataset.names[1:])
    tuned = initial_model(fewer, None, tmp_path / "start")
    assert tuned.config.classes == (10,)
    assert not np.asarray(tuned.params.head.kernel).any()
    assert same(tuned.params.encoder, whole[1].params.encoder)
    longer = initial_model(fewer, replace(MODEL, frames=16), tmp_path / "start")
    assert longer.config.frames == 16
    with pytest.raises(ValueError, match="the model to train is"):
        initial_model(fewer, replace(MODEL, layers=2), tmp_path / "start")


def test_the_control_sees_frames_in_random_order_in_training_and_evaluation(videos, dataset):
    recipe = replace(SHORT, shuffle_frames=True, random_crop=False, scale_jitter=(1.0, 1.0))
    one, other = (
        next(
            training_batches(
                dataset, training_spec(each, MODEL), Share(batch=8), transform=train_transform(each, MODEL), seed=1
            )
        )
        for each in (recipe, replace(recipe, shuffle_frames=False))
    )
    assert not np.array_equal(one.video, other.video)
    assert np.array_equal(np.sort(one.video, axis=1), np.sort(other.video, axis=1))
    model = initial_model(dataset, MODEL, None)
    head = model.params.head._replace(kernel=np.random.default_rng(0).normal(size=(16, 14)).astype(np.float32))
    model = replace(model, params=model.params._replace(head=head))
    test = read_table({"test": videos / "test.csv"}, heads=HEADS, names=NAMES)["test"]
    assert not np.array_equal(evaluate_recipe(model, test, recipe).logits, evaluate_recipe(model, test, SHORT).logits)
    assert {"verb/top_1", "noun/top_1", "action/top_1"} <= figures(evaluate_recipe(model, test, SHORT)).keys()
