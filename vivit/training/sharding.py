"""Defines how the arrays of training are sharded over a mesh: parameters, optimiser state, running average and batch.

The mesh has three axes. Examples are split over "data", long clips over "sequence", heads and the MLP's hidden width
over "model". Parameters, and all arrays of their shapes, are sharded over all three (FSDP): each device stores a shard,
and the weights of a layer are gathered only while it runs. tensor_parallel.py defines what each operation does with its
shards.
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
STORED = ("data", "sequence")  # axes that the MLP's weights are only stored over; "model" also splits their use

# Mesh axes for each axis of a leaf, by the names of the leaf's axes without "l"; leaves not listed are replicated.
# Storage never splits the axis of heads: a slice of 3c would not hold whole thirds, or halves in model 4.
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
    """Returns a mesh of data x sequence x model devices. devices: None: all of JAX's, in all processes.

    Neighbouring devices share the "model" axis, which has the most traffic. Raises ValueError if the product is not the
    number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = (data, sequence, model)
    if any(type(size) is not int or size < 1 for size in sizes) or data * sequence * model != len(devices):
        raise ValueError(f"the mesh is {data}x{sequence}x{model}: it must take all of the {len(devices)} devices")
    return Mesh(np.array(devices).reshape(sizes), AXES)


def specs(config: Config, mesh: Mesh) -> Params:
    """Returns the PartitionSpec of every leaf of a config's parameters, chosen by the names of its axes.

    An axis whose size is not divisible by the devices of its mesh axes is split over fewer: leading mesh axes are
    dropped first.
    """
    return convert(shapes(config), lambda _, leaf: leaf_spec(leaf, mesh))


def leaf_spec(leaf: Leaf, mesh: Mesh) -> PartitionSpec:
    """Returns the PartitionSpec of one leaf."""
    layers = leaf.axes[:1] == ("l",)
    splits = _SPLIT.get(leaf.axes[1:] if layers else leaf.axes)
    if splits is None:
        return PartitionSpec()
    sizes = leaf.shape[1:] if layers else leaf.shape
    entries = [_divisible(size, names, mesh) for size, names in zip(sizes, splits, strict=True)]
    return PartitionSpec(*([None] if layers else []), *entries)


def state_shardings(state: Any, config: Config, mesh: Mesh) -> Any:
    """Returns the NamedSharding of every array of a TrainState, as the same tree. state: arrays or their shapes."""
    by_leaf = specs(config, mesh)

    def shardings(node: Any) -> Any:
        if not isinstance(node, Params):
            return NamedSharding(mesh, PartitionSpec())
        return jax.tree.map(
            lambda leaf, spec: leaf if isinstance(leaf, optax.MaskedNode) else NamedSharding(mesh, spec),
            node,
            by_leaf,
            is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode),
        )

    return jax.tree.map(shardings, state, is_leaf=lambda node: isinstance(node, Params))


def shard_state(state: Any, config: Config, mesh: Mesh) -> Any:
    """Returns a TrainState on the mesh. state: equal in every process."""
    return jax.device_put(state, state_shardings(state, config, mesh))


def shard_examples(examples: Any, mesh: Mesh) -> Any:
    """Returns a batch on the mesh. examples: this process's rows of it, see `local_rows`."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), examples)


def local_rows(batch_size: int, mesh: Mesh) -> slice:
    """Returns the rows of every batch that this process reads.

    Raises ValueError if batch_size is not a multiple of the data axis.
    """
    if batch_size % mesh.shape["data"]:
        raise ValueError(f"batch_size is {batch_size}: it must be a multiple of the data axis, {mesh.shape['data']}")
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    ranges = [index[0].indices(batch_size) for index in indices if index is not None]
    return slice(min(start for start, _, _ in ranges), max(stop for _, stop, _ in ranges))


def check_mesh(config: Config, mesh: Mesh, examples: int | None = None) -> None:
    """Raises ValueError, naming the size, unless the model's work is divisible by the mesh.

    examples: number of clips computed at once: a microbatch.
    """
    if tuple(mesh.axis_names) != AXES:
        raise ValueError(f"the mesh has axes {tuple(mesh.axis_names)}: they must be {AXES}")
    data, sequence, model = (mesh.shape[axis] for axis in AXES)
    if examples is not None and examples % data:
        raise ValueError(f"{examples} examples are computed at once: they must be a multiple of the data axis, {data}")
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


def _divisible(size: int, names: tuple[str, ...], mesh: Mesh) -> Any:
    """Drops leading mesh axes until their devices divide `size`. Returns None if no axis is left."""
    while names and size % int(np.prod([mesh.shape[name] for name in names])):
        names = names[1:]
    return names or None
