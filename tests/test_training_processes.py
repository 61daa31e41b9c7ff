"""Two processes of four devices each take the steps that one process takes; whole runs of two processes are killed and
go on; what does not fit together is named.
"""

import json
import time

import numpy as np
import pytest
from jax.sharding import Mesh
from processes import free_address, outputs, started
from safetensors.numpy import load_file
from strategies import small
from test_training_mesh import SIZES
from test_training_run import events, videos  # noqa: F401  # a fixture
from training import examples, small_recipe, taken

from vivit.training.distributed import start

PROGRAM = """
import json, sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
from vivit.training.distributed import start
address, process = sys.argv[1], int(sys.argv[2])
start(address, 2, process)

from test_training_processes import steps_on
from vivit.training.sharding import make_mesh, local_rows

mesh = make_mesh(4, 1, 2)
assert local_rows(8, mesh) == slice(4 * process, 4 * process + 4)
metrics = steps_on(mesh)
print(json.dumps({name: float(value) for name, value in metrics.items()}))
"""


def steps_on(mesh: Mesh | None) -> dict:
    """Three steps; each process reads its rows of the batches."""
    config, recipe = small("factorised_encoder", **SIZES), small_recipe(stochastic_depth=0.4, dropout=0.2)
    return taken(config, recipe, *(examples(config, seed) for seed in (0, 1, 2)), mesh=mesh)[1]


def test_two_processes_take_the_steps_of_one():
    address = free_address()
    outs = outputs([started(PROGRAM, address, process) for process in (0, 1)])
    expected = {name: float(value) for name, value in steps_on(None).items()}
    for out, _ in outs:
        assert json.loads(out.splitlines()[-1]) == pytest.approx(expected, rel=1e-5)


RUN = """
import sys
from dataclasses import replace
from pathlib import Path
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 1)
from vivit.training.distributed import start
start(sys.argv[1], 2, int(sys.argv[2]))

from test_training_run import HEADS, NAMES, SHORT, run
from vivit.data.tables import read_table

dataset = read_table({"train": Path(sys.argv[3]) / "train.csv"}, heads=HEADS, names=NAMES)["train"]
for folder in sys.argv[4:]:
    run(Path(folder), dataset, replace(SHORT, accumulation=1), save_every=2, mesh=(2, 1, 1))
print("done")
"""


@pytest.mark.thorough
def test_a_whole_run_of_two_processes_that_were_killed_goes_on_bit_for_bit(videos, tmp_path):  # noqa: F811
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    address = free_address()
    both = [started(RUN, address, process, videos, killed) for process in (0, 1)]
    try:
        while not (killed / "metrics.jsonl").exists() or len(events(killed)) < 5:
            assert [process.poll() for process in both] == [None, None], both[0].stderr.read() + both[1].stderr.read()
            time.sleep(0.05)
    finally:
        for process in both:
            process.kill()
            process.communicate()
    assert 5 <= len(events(killed)) < 12
    assert [folder for folder in (killed / "checkpoints").iterdir() if folder.name.isdecimal()]  # to go on from
    address = free_address()
    outs = outputs([started(RUN, address, process, videos, killed, whole) for process in (0, 1)])
    assert [out.splitlines()[-1] for out, _ in outs] == ["done", "done"]
    assert events(killed) == events(whole)
    assert [step for step, *_ in events(whole)] == list(range(1, 13))
    resumed, never_killed = (load_file(weights) for weights in sorted(tmp_path.glob("*/model/*.safetensors")))
    assert resumed.keys() == never_killed.keys()
    for name, values in resumed.items():
        np.testing.assert_array_equal(values, never_killed[name], err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:1", 2, None), "process None: all of them must be given, or none"),
        (("localhost:1", 0, 0), "processes is 0: it must be a positive integer"),
        (("localhost:1", 2, 2), "process is 2: it must be an integer from 0 to 1"),
        (("localhost", 2, 1), "address is 'localhost': it must be host:port, of process 0"),
    ],
)
def test_what_does_not_fit_together_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        start(*arguments)


def test_one_process_has_nothing_to_join():
    start("localhost:1", 1, 0)
