"""Where the arrays of training live on a mesh of devices: of parameters, optimiser, running average and batch.

The mesh has three axes. Examples are split over "data"; long clips over "sequence"; heads and the MLP's hidden width
over "model". Parameters and all that has their shape are split over all three (FSDP): every device keeps its part, and
a layer's weights are put together only while it runs. What each operation does with its part is tensor_parallel.py's.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vivit.reference.config import Config
from vivit.reference.params import Leaf, Params, convert, shapes

AXES = ("data", "sequence", "model")
STORED = ("data", "sequence")  # over which parts of the MLP's weights are kept; over "model" they are used, too

# by the names of a leaf's axes, without the layers': what each is split over; what is not here is on every device.
# An attention's heads are never split where it is kept: thirds of 3c, or model 4's halves, are no multiple of a part.
_SPLIT = {
    ("c", "3c"): (AXES, ()),
    ("c", "c"): ((), AXES),
    ("c", "f"): (STORED, ("model",)),
    ("f",): (("model",),),
    ("f", "c"): (("model",), STORED),
    ("time", "height", "width", "colors", "c"): ((), (), (), (), AXES),
    ("n", "c"): ((), AXES),
    ("c", "v"): (AXES, ()),
    ("c", "r"): (AXES, ()),
    ("r", "v"): (AXES, ()),
}


def make_mesh(data: int = 1, sequence: int = 1, model: int = 1, *, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of data x sequence x model devices. devices: None: all that JAX has, of all processes.

    Devices that are next to each other share "model", whose traffic is the most. Raises ValueError for another count.
    """
    devices = jax.devices() if devices is None else devices
    sizes = (data, sequence, model)
    if any(type(size) is not int or size < 1 for size in sizes) or data * sequence * model != len(devices):
        raise ValueError(f"the mesh is {data}x{sequence}x{model}: it must take all of the {len(devices)} devices")
    return Mesh(np.array(devices).reshape(sizes), AXES)


def specs(config: Config, mesh: Mesh) -> Params:
    """The PartitionSpec of every leaf of a config's parameters, from the names of its axes.

    An axis that does not divide by all the devices of its mesh axes is split over fewer, the first axes left out first.
    """
    return convert(shapes(config), lambda leaf: leaf_spec(leaf, mesh))


def leaf_spec(leaf: Leaf, mesh: Mesh) -> PartitionSpec:
    """The PartitionSpec of one leaf."""
    layers = leaf.axes[:1] == ("l",)
    wanted = _SPLIT.get(leaf.axes[1:] if layers else leaf.axes)
    if wanted is None:
        return PartitionSpec()
    sizes = leaf.shape[1:] if layers else leaf.shape
    found = [_fitting(size, names, mesh) for size, names in zip(sizes, wanted, strict=True)]
    return PartitionSpec(*([None] if layers else []), *found)


def state_shardings(state: Any, config: Config, mesh: Mesh) -> Any:
    """The NamedSharding of every array of a TrainState, in its own tree. state: arrays or their shapes."""
    by_leaf = specs(config, mesh)

    def of(node: Any) -> Any:
        if not isinstance(node, Params):
            return NamedSharding(mesh, PartitionSpec())
        return jax.tree.map(
            lambda leaf, spec: leaf if isinstance(leaf, optax.MaskedNode) else NamedSharding(mesh, spec),
            node,
            by_leaf,
            is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode),
        )

    return jax.tree.map(of, state, is_leaf=lambda node: isinstance(node, Params))


def place_state(state: Any, config: Config, mesh: Mesh) -> Any:
    """A TrainState on the mesh. state: the same in every process."""
    return jax.device_put(state, state_shardings(state, config, mesh))


def place_examples(examples: Any, mesh: Mesh) -> Any:
    """A batch on the mesh. examples: this process's rows of it, see `rows`."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), examples)


def rows(batch_size: int, mesh: Mesh) -> slice:
    """Which examples of every batch this process reads. Raises ValueError if they do not divide."""
    if batch_size % mesh.shape["data"]:
        raise ValueError(f"batch_size is {batch_size}: it must be a multiple of the data axis, {mesh.shape['data']}")
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    parts = [index[0].indices(batch_size) for index in indices if index is not None]
    return slice(min(start for start, _, _ in parts), max(stop for _, stop, _ in parts))


def check_mesh(config: Config, mesh: Mesh, examples: int | None = None) -> None:
    """Raises ValueError, naming the size, unless the model's work divides by the mesh.

    examples: how many are taken at once, of a batch that accumulates its parts.
    """
    if tuple(mesh.axis_names) != AXES:
        raise ValueError(f"the mesh has axes {tuple(mesh.axis_names)}: they must be {AXES}")
    data, sequence, model = (mesh.shape[axis] for axis in AXES)
    if examples is not None and examples % data:
        raise ValueError(f"{examples} examples are taken at once: they must be a multiple of the data axis, {data}")
    halves = 2 if config.model == "factorised_dot_product" else 1
    encoders = [("", config)]
    if config.model == "factorised_encoder" and config.temporal_layers:
        encoders.append(("temporal_", config.temporal))
    for prefix, one in encoders:
        if one.heads % (halves * model):
            what = f"{prefix}heads is {one.heads}: it must be a multiple of {halves * model}"
            raise ValueError(f"{what}, for a model axis of {model}")
        if one.hidden % model:
            raise ValueError(f"{prefix}hidden is {one.hidden}: it must be a multiple of the model axis, {model}")
    time, height, width = config.grid
    if config.model == "spatio_temporal":
        if config.heads % (model * sequence):
            together = f"the model and sequence axes together, {model * sequence}"
            raise ValueError(f"heads is {config.heads}: it must be a multiple of {together}")
        return
    if time % sequence:
        raise ValueError(f"the clip has {time} time indices: they must be a multiple of the sequence axis, {sequence}")
    if config.model != "factorised_encoder" and height * width % sequence:
        tokens = f"a time index has {height * width} tokens"
        raise ValueError(f"{tokens}: they must be a multiple of the sequence axis, {sequence}")


def _fitting(size: int, names: tuple[str, ...], mesh: Mesh) -> Any:
    while names and size % int(np.prod([mesh.shape[name] for name in names])):
        names = names[1:]
    return names or None
