"""Maps our parameter tree to another format: names, shapes and axis order of every leaf in a file.

A format is one tree of FileLeaf (flax_names.py, torch_names.py); this module reads, writes and checks files by it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vivit.checkpoints.files import Arrays
from vivit.model_data import Origin
from vivit.reference.config import Config
from vivit.reference.params import Leaf, Params, convert, leaves, shapes

PRODUCT = " × "  # joins the names of arrays that were multiplied
Rules = tuple[tuple[str, str], ...]  # (pattern, replacement), applied in order


@dataclass(frozen=True)
class FileLeaf:
    """One of our leaves in a file: for each layer, the arrays that are concatenated along the last axis."""

    names: tuple[tuple[str, ...], ...]  # [layers or 1][parts]: query, key and value are three parts of one leaf
    shape: tuple[int, ...]  # of one part, in the file
    axes: tuple[int, ...]  # the file's axes in our order, before their sizes are merged into ours
    absent: bool = False  # the format has no such array: read as zeros


def file_leaf(
    leaf: Leaf, *names: str, shape: tuple[int, ...] | None = None, axes: tuple[int, ...] | None = None
) -> FileLeaf:
    """Returns the FileLeaf of one leaf; "{}" in a name stands for the layer index, if the leaf has layers."""
    part = part_shape(leaf, len(names))
    shape = part if shape is None else shape
    layers = leaf.shape[0] if leaf.axes[0] == "l" else None
    rows = tuple(tuple(name.format(index) for name in names) for index in range(layers or 1))
    return FileLeaf(rows, shape, tuple(range(len(shape))) if axes is None else axes)


def part_shape(leaf: Leaf, parts: int) -> tuple[int, ...]:
    """Returns the shape of one of `parts` equal parts of one layer, in our layout."""
    shape = leaf.shape[1:] if leaf.axes[0] == "l" else leaf.shape
    return (*shape[:-1], shape[-1] // parts)


class NamedArrays(NamedTuple):
    """Arrays by the names of the map, and for each of these names the original name in the file."""

    arrays: Arrays
    original_names: dict[str, str]


def renamed(given: Arrays | NamedArrays, rules: Rules = ()) -> NamedArrays:
    """Returns the arrays with all rules applied to their names. Raises ValueError if two names become equal."""
    source = given if isinstance(given, NamedArrays) else NamedArrays(given, {name: name for name in given})
    result = NamedArrays({}, {})
    for name, array in source.arrays.items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in result.arrays:
            raise ValueError(
                f"{source.original_names[name]} and {result.original_names[new]} name one array: only one may exist"
            )
        result.arrays[new], result.original_names[new] = array, source.original_names[name]
    return result


def subtree(arrays: Arrays, root: str) -> NamedArrays:
    """Returns the arrays whose names begin with `root`, without that prefix."""
    chosen = {name: array for name, array in arrays.items() if name.startswith(root)}
    return renamed(chosen, ((f"^{re.escape(root)}", ""),))


def read_params(
    given: NamedArrays, name_map: Params, config: Config, source: str, finish: Callable[[np.ndarray], Any]
) -> tuple[Params, tuple[Origin, ...]]:
    """Returns the parameter tree of a config from a file's arrays, float32 and passed through `finish`, and its report.

    Raises one ValueError, prefixed by `source`, that lists every array that is missing, superfluous, wrongly shaped,
    not of a float type, or not finite.
    """
    arrays, original_names = given
    file_leaves = dict(leaves(name_map))
    wanted = {name for each in file_leaves.values() if not each.absent for row in each.names for name in row}
    faults = [f"{name} is missing" for name in sorted(wanted - arrays.keys())]
    faults += [f"{original_names[name]} is superfluous" for name in sorted(arrays.keys() - wanted)]
    for each in file_leaves.values():
        for name in (name for row in each.names for name in row if name in arrays and not each.absent):
            faults += _faults(original_names[name], arrays[name], each.shape)
    if faults:
        raise ValueError(f"{source} does not fit the config: " + "; ".join(faults))
    report = []

    def read_leaf(path: str, leaf: Leaf) -> Any:
        each = file_leaves[path]
        report.append(Origin(path, leaf.shape, _listed(each, original_names), _change(arrays, each, leaf)))
        return finish(_assemble(arrays, each, leaf))

    return convert(shapes(config), read_leaf), tuple(report)


def write_params(params: Params, name_map: Params, config: Config) -> dict[str, np.ndarray]:
    """Returns the arrays of a file, float32, from the parameter tree of a config: the inverse of `read_params`."""
    file_leaves = dict(leaves(name_map))
    wanted = dict(leaves(shapes(config)))
    arrays = {}
    for path, values in leaves(params):
        each, leaf = file_leaves[path], wanted[path]
        values = np.asarray(values, np.float32)
        layers = values if leaf.axes[0] == "l" else values[np.newaxis]
        axes_shape = tuple(each.shape[axis] for axis in each.axes)
        for row, layer in zip(each.names, layers, strict=True):
            for name, part in zip(row, np.split(layer, len(row), axis=-1), strict=True):
                arrays[name] = np.ascontiguousarray(part.reshape(axes_shape).transpose(np.argsort(each.axes)))
    return arrays


def _faults(name: str, array: np.ndarray, shape: tuple[int, ...]) -> list[str]:
    if array.shape != shape:
        return [f"{name} has shape {array.shape}, it must be {shape}"]
    if array.dtype.name not in ("float64", "float32", "float16", "bfloat16"):
        return [f"{name} has dtype {array.dtype.name}, it must be a float type"]
    if not finite(array):
        return [f"{name} has NaN or infinity"]
    return []


def finite(array: np.ndarray) -> bool:
    """Returns whether every number is finite in float32, without allocating an array of the same size."""
    if not array.size:
        return True
    ends = np.array([array.min(), array.max()], np.float64)  # NaN propagates to both
    return bool(np.all(np.abs(ends) <= np.finfo(np.float32).max))


def _assemble(arrays: Mapping[str, np.ndarray], each: FileLeaf, leaf: Leaf) -> np.ndarray:
    """Returns a leaf as float32: parts concatenated, layers stacked; the file's own array if nothing has to change."""
    if each.absent:
        return np.zeros(leaf.shape, np.float32)
    if _one_array(each):
        return arrays[each.names[0][0]].transpose(each.axes).reshape(leaf.shape).astype(np.float32, copy=False)
    shape = part_shape(leaf, len(each.names[0]))
    stacked = np.empty((len(each.names), *leaf.shape[-len(shape) :]), np.float32)
    width = shape[-1]
    for layer, row in zip(stacked, each.names, strict=True):
        for index, name in enumerate(row):
            layer[..., index * width : (index + 1) * width] = arrays[name].transpose(each.axes).reshape(shape)
    return stacked.reshape(leaf.shape)


def _one_array(each: FileLeaf) -> bool:
    return len(each.names) == len(each.names[0]) == 1


def _listed(each: FileLeaf, original_names: Mapping[str, str]) -> str:
    """Returns all names as one:
    "Transformer/encoderblock_0…11/MultiHeadDotProductAttention_0/{query,key,value}/kernel".
    """
    if each.absent:
        return ""
    parts, others = ([*dict.fromkeys(original_names[name] for name in row)] for row in (each.names[0], each.names[-1]))
    pieces = [re.split(r"(?<=[./])|(?=[./])", part) for part in parts]
    alternatives = [list(dict.fromkeys(words)) for words in zip(*pieces, strict=True)]
    shown = "".join(words[0] if len(words) == 1 else f"{{{','.join(words)}}}" for words in alternatives)
    if parts == others:
        return shown
    layers = f"0…{len(each.names) - 1}"
    return PRODUCT.join(re.sub(r"(?<=[._])0(?=[./])", layers, name, count=1) for name in shown.split(PRODUCT))


def _change(arrays: Mapping[str, np.ndarray], each: FileLeaf, leaf: Leaf) -> str:
    if each.absent:
        return "zeros: the source has none"
    changes = []
    if each.axes != tuple(sorted(each.axes)):
        changes.append("transposed")
    elif each.shape not in (leaf.shape, part_shape(leaf, len(each.names[0]))):
        changes.append("reshaped")
    if len(each.names[0]) > 1:
        changes.append("concatenated")
    if leaf.axes[0] == "l" and each.shape != leaf.shape:
        changes.append(f"{len(each.names)} layers stacked")
    dtypes = {arrays[name].dtype.name for row in each.names for name in row} - {"float32"}
    changes += [f"from {dtype}" for dtype in sorted(dtypes)]
    return ", ".join(changes) or "unchanged"
