"""A run's folder has one process, or one cluster, at a time; the kernel lets it go when that dies."""

import json
import os
import signal

import pytest
from processes import free_address, outputs, started
from test_training_run import videos  # noqa: F401  # a fixture

from vivit.training.lock import locked

HOLDER = """
import sys, time
from pathlib import Path
from vivit.training.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""

CLUSTER = """
import json, os, signal, sys
from dataclasses import replace
from pathlib import Path
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 1)
from vivit.training.distributed import start
address, process, folder, taken, videos = sys.argv[1], int(sys.argv[2]), *map(Path, sys.argv[3:])
start(address, 2, process)

from test_training_run import HEADS, MODEL, NAMES, SHORT, quick_step
from vivit.data.tables import read_table
from vivit.training import loop
from vivit.training.from_checkpoint import initial_model

loop.make_step = quick_step
dataset = read_table({"train": videos / "train.csv"}, heads=HEADS, names=NAMES)["train"]
recipe = replace(SHORT, accumulation=1, steps=3, warmup_steps=1)

def run(folder, show=lambda progress: None):
    chosen = loop.Run(folder=folder, save_every=1, log_every=1, mesh=(2, 1, 1), validate_every=2, patience=5)
    model = initial_model(dataset, MODEL, None)
    try:
        loop.train(model, dataset, recipe, chosen, validate=lambda model, step: {"top_1": 0.1 * step}, show=show)
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "done"

def tell_one(progress):
    if process == 1 and progress.step == 2:
        os.kill(os.getpid(), signal.SIGTERM)

print(json.dumps([run(taken), run(folder, tell_one), run(folder)]))
"""


def test_the_second_process_in_a_folder_is_refused_until_the_first_is_dead(tmp_path):
    folder = tmp_path / "run"
    first = started(HOLDER, folder)
    try:
        assert first.stdout.readline() == "held\n", first.stderr.read()
        for _ in range(2):
            with (
                pytest.raises(ValueError, match=rf"run is in use by process {first.pid}: wait until it ends, or name"),
                locked(folder),
            ):
                pass
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with locked(folder):
            pass
        with locked(folder):  # and it is let go at the end
            pass
    finally:
        first.kill()
        first.communicate()


def test_a_cluster_holds_a_folder_together_and_all_its_processes_end_together(videos, tmp_path):  # noqa: F811
    address = free_address()
    folder, taken = tmp_path / "run", tmp_path / "taken"
    with locked(taken):
        outs = outputs([started(CLUSTER, address, process, folder, taken, videos) for process in (0, 1)])
    (refused, stopped, done), (refused_too, *rest) = (json.loads(out.splitlines()[-1]) for out, _ in outs)
    assert f"taken is in use by process {os.getpid()}: wait" in refused
    assert "taken could not be locked by process 0 of this cluster" in refused_too
    assert "InterruptedRunError: stopped by SIGTERM; saved at step 2 of 3" in stopped
    assert (done, rest) == ("done", [stopped, "done"])  # the signal came to the second alone
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["kind"][0]) for line in lines] == [(1, "t"), (2, "t"), (2, "v"), (3, "t"), (3, "v")]
