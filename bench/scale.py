"""`python -m bench scale`: compiles a training step for slices of TPUs without the devices: memory and traffic.

It compiles the whole step of a recipe (forward, backward, optimiser) for every device of a slice with the TPU compiler,
and prints the memory of a device and the data it exchanges with the others per step. Nothing is run or timed.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import vivit
from bench.collectives import KINDS, collectives
from bench.harness import parser, report
from vivit.cli.table import Table
from vivit.reference.config import Config, named
from vivit.reference.params import parameters
from vivit.training.recipe import Recipe, Steps
from vivit.training.sharding import make_mesh, state_shardings
from vivit.training.step import Examples, init_state, make_step

SLICES = {"v3": "v3:4x4", "v5e": "v5e:4x4"}  # 32 cores, 16 chips
GIBIBYTES = {"v3": 16, "v5e": 16}  # of HBM, a device
MODEL_AXIS = {"b": 1, "l": 2, "h": 2}
STEPS = Steps(1000, 100)


def main(arguments: Sequence[str]) -> int:
    asked = parser("scale", __doc__, "--chips v5e --sizes b")
    asked.add_argument("--chips", nargs="*", choices=tuple(SLICES), default=list(SLICES))
    asked.add_argument("--sizes", nargs="*", choices=tuple(MODEL_AXIS), default=list(MODEL_AXIS))
    asked.add_argument("--model", default="-fe", help="suffix of the model: --model=-fsa, --model= for model 1")
    asked.add_argument("--batch", type=int, default=64, help="clips in one update (default 64)")
    asked.add_argument("--accumulation", type=int, default=1)
    asked.add_argument("--optimiser", choices=("sgd", "adamw"), default="sgd")
    asked.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    asked.add_argument("--sequence", type=int, default=1, help="devices that a clip is split over (default 1)")
    asked.add_argument("--model-axis", type=int, help="devices that heads are split over (default by size)")
    asked.add_argument("--frames", type=int, default=32, help="frames of a clip (default 32)")
    options = asked.parse_args(arguments)
    jax.config.update("jax_platforms", "cpu")
    os.environ.update(TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
    names = ("device", "mesh", "variant", "M params", "state", "temporary", "all, GiB", "of", *KINDS, "compile, s")
    rows = [_row(chip, size, options) for chip in options.chips for size in options.sizes]
    title = f"One training step of {options.batch} clips, {options.optimiser}, {options.dtype}, remat lean"
    report([Table(names, rows, texts=3, title=title)], [MEANING], options)
    return 0


MEANING = (
    "state, temporary, all: GiB on one device. Collectives: how often a device takes part in one in one step, and "
    "the MB of the whole arrays that are put together or cut. Compiled, not run."
)


def _row(chip: str, size: str, options: Any) -> list[str]:
    name = f"vivit-{size}/16x2{options.model}"
    devices = topologies.get_topology_desc(platform="tpu", topology_name=SLICES[chip]).devices
    model = options.model_axis or MODEL_AXIS[size]
    mesh = make_mesh(len(devices) // model // options.sequence, options.sequence, model, devices=devices)
    shape = "x".join(str(count) for count in mesh.shape.values())
    config = replace(named(name), frames=options.frames)
    recipe = Recipe(
        learning_rate=0.1,
        steps=STEPS.total,
        batch_size=options.batch,
        accumulation=options.accumulation,
        optimiser=options.optimiser,
        dtype=options.dtype,
        remat="lean",
    )
    start = time.perf_counter()
    try:
        program = compiled(config, recipe, mesh)
    except jax.errors.JaxRuntimeError as error:
        fault = next(line for line in str(error).splitlines() if line.strip())
        return [SLICES[chip], shape, name, f"does not compile: {fault[:200]}"]
    seconds = time.perf_counter() - start
    memory, traffic = program.memory_analysis(), collectives(program.as_text())
    held = memory.argument_size_in_bytes
    everything = held + memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return [
        SLICES[chip],
        shape,
        name,
        f"{parameters(config) / 1e6:.1f}",
        f"{held / 2**30:.2f}",
        f"{memory.temp_size_in_bytes / 2**30:.2f}",
        f"{everything / 2**30:.2f}",
        str(GIBIBYTES[chip]),
        *(f"{traffic.times[kind]} x, {traffic.bytes[kind] / 1e6:,.1f}" for kind in KINDS),
        f"{seconds:.0f}",
    ]


def compiled(config: Config, recipe: Recipe, mesh: Mesh) -> Any:
    """The training step of a model on a mesh of a slice's devices, compiled ahead of time."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    with jax.set_mesh(mesh):
        state = jax.eval_shape(lambda key: init_state(vivit.init(key, config), config, recipe, STEPS), key)
        state = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            state,
            state_shardings(state, config, mesh),
        )
        by_example = NamedSharding(mesh, PartitionSpec("data"))
        video = (recipe.batch_size, config.frames, config.height, config.width, 3)
        examples = Examples(
            jax.ShapeDtypeStruct(video, np.uint8, sharding=by_example),
            jax.ShapeDtypeStruct((recipe.batch_size, sum(config.classes)), np.float32, sharding=by_example),
        )
        step: Any = make_step(config, recipe, STEPS, mesh=mesh)
        return step.lower(state, examples).compile()
