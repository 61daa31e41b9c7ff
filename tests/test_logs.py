"""Logs keep every event of a run, whatever kills it, and none of a stretch that is run again."""

import json
import math
import struct
import subprocess
import sys
import time

import pytest

from vivit.training.logs import Logs, read_metrics

pytestmark = pytest.mark.fast

pytest.importorskip("tensorboardX")


def written(folder):
    return [(event["step"], event["kind"]) for event in read_metrics(folder / "metrics.jsonl")]


def tensorboard_events(folder):
    """Every event in TensorBoard's files, in the order in which it reads them."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def test_events_are_lines_of_json_and_scalars_of_tensorboard(tmp_path):
    before = time.time()
    with Logs(tmp_path / "run") as logs:
        logs.write(1, {"loss": 2.5, "learning_rate": 1e-3})
        logs.write(1, {"verb/top_1": 0.25, "loss": math.nan}, kind="validation")
    first, second = (json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    assert before - 1 < first.pop("time") < time.time() + 1
    assert first == {"step": 1, "kind": "train", "loss": 2.5, "learning_rate": 1e-3}
    assert second["verb/top_1"] == 0.25
    assert second["loss"] is None  # JSON has no NaN
    scalars = [
        (value.tag, event.step) for event in tensorboard_events(tmp_path / "run") for value in event.summary.value
    ]
    tags = ["train/loss", "train/learning_rate", "validation/verb/top_1", "validation/loss"]
    assert scalars == [(tag, 1) for tag in tags]


def test_a_run_that_goes_on_drops_what_happens_again_and_a_torn_line(tmp_path):
    with Logs(tmp_path) as logs:
        for step in range(1, 8):
            logs.write(step, {"loss": 1.0})
        logs.write(4, {"top_1": 0.5}, kind="validation")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "kind": "tr')
    with Logs(tmp_path, resume_step=4) as logs:
        logs.write(5, {"loss": 0.5})
    expected = [(1, "train"), (2, "train"), (3, "train"), (4, "train"), (4, "validation"), (5, "train")]
    assert written(tmp_path) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]
    starts = [event.step for event in tensorboard_events(tmp_path) if event.HasField("session_log")]
    assert starts == [5]  # TensorBoard drops what it read before of steps from here on
    steps = [event.step for event in tensorboard_events(tmp_path) if event.summary.value]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 4, 5]  # a second file, although in the same second


def test_a_line_torn_at_any_byte_is_cut_off(tmp_path):
    with Logs(tmp_path / "whole") as logs:
        for step in (1, 2):
            logs.write(step, {"loss": 1.0})
    data = (tmp_path / "whole/metrics.jsonl").read_bytes()
    path = tmp_path / "metrics.jsonl"
    first = data.index(b"\n") + 1
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        steps = [event["step"] for event in read_metrics(path)]
        assert steps == [1, 2][: (length >= first) + (length == len(data))]


def test_events_outlive_a_killed_process(tmp_path):
    code = """
import os, signal, sys
from vivit.training.logs import Logs
logs = Logs(sys.argv[1])
for step in range(100):
    logs.write(step, {"loss": 1.0})
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert [step for step, _ in written(tmp_path)] == list(range(100))


def test_a_new_run_never_overwrites_another(tmp_path):
    Logs(tmp_path).close()
    with Logs(tmp_path) as logs:  # one that had no event yet
        logs.write(1, {"loss": 1.0})
    with pytest.raises(ValueError, match=r"metrics.jsonl has the events of another run: resume that"):
        Logs(tmp_path)
    assert written(tmp_path) == [(1, "train")]


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    with Logs(tmp_path) as logs:
        with pytest.raises(ValueError, match="kind is 'test': it must be one of train, validation"):
            logs.write(1, {}, kind="test")
        with pytest.raises(ValueError, match="values has 'step': this name is reserved"):
            logs.write(1, {"step": 2.0})
        logs.close()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "kind": "train"}\nnonsense\n{"step": 2, "kind": "train"}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl line 2 is damaged"):
        Logs(tmp_path, resume_step=1)
    with pytest.raises(ValueError, match=r"none.jsonl is not a file"):
        read_metrics(tmp_path / "none.jsonl")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match="tensorboardX is not installed: install it with: pip install"):
        Logs(tmp_path / "other")
