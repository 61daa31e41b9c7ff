"""Two processes of four devices each take the steps that one process takes; what does not fit together is named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from jax.sharding import Mesh
from processes import free_address, outputs
from strategies import small
from test_training_mesh import SIZES
from training import examples, small_recipe, taken

from vivit.training.start import start

PROGRAM = """
import json, sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
from vivit.training.start import start
address, process = sys.argv[1], int(sys.argv[2])
start(address, 2, process)

from test_training_processes import steps_on
from vivit.training.sharding import make_mesh, rows

mesh = make_mesh(4, 1, 2)
assert rows(8, mesh) == slice(4 * process, 4 * process + 4)
metrics = steps_on(mesh)
print(json.dumps({name: float(value) for name, value in metrics.items()}))
"""


def steps_on(mesh: Mesh | None) -> dict:
    """Three steps; each process reads its rows of the batches."""
    config, recipe = small("factorised_encoder", **SIZES), small_recipe(stochastic_depth=0.4, dropout=0.2)
    return taken(config, recipe, *(examples(config, seed) for seed in (0, 1, 2)), mesh=mesh)[1]


def test_two_processes_take_the_steps_of_one():
    address = free_address()
    folder = Path(__file__).parent
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(folder)!r}, {str(folder.parent)!r}]\n{PROGRAM}"]
    both = [
        subprocess.Popen([*command, address, str(i)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for i in (0, 1)
    ]
    outs = outputs(both)
    expected = {name: float(value) for name, value in steps_on(None).items()}
    for out, _ in outs:
        assert json.loads(out.splitlines()[-1]) == pytest.approx(expected, rel=1e-5)


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
