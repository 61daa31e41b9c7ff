"""How another format writes our tree: for every leaf the names, shapes and order of axes that it has in a file.

A format is one tree of Spellings (flax_names.py, torch_names.py); reading, writing and checking follow from it here.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vivit.checkpoints.renaming import Renamed
from vivit.checkpoints.report import Origin
from vivit.reference.config import Config
from vivit.reference.params import Leaf, Params, leaves, shapes

PRODUCT = " × "  # between the names of arrays that were multiplied


@dataclass(frozen=True)
class Spelling:
    """One leaf of ours in a file: for each layer (or once) the arrays that make it, side by side on the last axis."""

    names: tuple[tuple[str, ...], ...]  # [layers or 1][parts]: query, key and value are three parts of one leaf
    shape: tuple[int, ...]  # of one part, in the file
    axes: tuple[int, ...]  # the file's axes in our order, before their sizes are merged into ours
    absent: bool = False  # the format has no such array; it reads as zeros


def spell(
    leaf: Leaf, *names: str, shape: tuple[int, ...] | None = None, axes: tuple[int, ...] | None = None
) -> Spelling:
    """The Spelling of one leaf; "{}" in a name stands for the layer, if the leaf has layers."""
    part = part_shape(leaf, len(names))
    shape = part if shape is None else shape
    layers = leaf.shape[0] if leaf.axes[0] == "l" else None
    rows = tuple(tuple(name.format(index) for name in names) for index in range(layers or 1))
    return Spelling(rows, shape, tuple(range(len(shape))) if axes is None else axes)


def part_shape(leaf: Leaf, parts: int) -> tuple[int, ...]:
    """The shape of our part of one layer."""
    shape = leaf.shape[1:] if leaf.axes[0] == "l" else leaf.shape
    return (*shape[:-1], shape[-1] // parts)


def read(
    given: Renamed, spellings: Params, config: Config, source: str, finish: Callable[[np.ndarray], Any]
) -> tuple[Params, tuple[Origin, ...]]:
    """The tree of a config out of a file's arrays, each leaf float32 and passed through `finish`; and its report.

    Raises one ValueError that lists every array that is missing, superfluous, wrongly shaped, of no float type, or
    holds NaN or infinity; `source` is its first word.
    """
    arrays, called = given
    spelled = dict(leaves(spellings))
    wanted = {name for each in spelled.values() if not each.absent for row in each.names for name in row}
    faults = [f"{name} is missing" for name in sorted(wanted - arrays.keys())]
    faults += [f"{called[name]} is superfluous" for name in sorted(arrays.keys() - wanted)]
    for each in spelled.values():
        for name in (name for row in each.names for name in row if name in arrays and not each.absent):
            faults += _faults(called[name], arrays[name], each.shape)
    if faults:
        raise ValueError(f"{source} does not fit the config: " + "; ".join(faults))
    made, report = {}, []
    for path, leaf in leaves(shapes(config)):
        each = spelled[path]
        made[path] = finish(_assemble(arrays, each, leaf))
        report.append(Origin(path, leaf.shape, _listed(each, called), _change(arrays, each, leaf)))
    return rebuilt(shapes(config), made), tuple(report)


def write(params: Params, spellings: Params, config: Config) -> dict[str, np.ndarray]:
    """The arrays of a file, float32, from a tree of the config; the inverse of `read`."""
    spelled = dict(leaves(spellings))
    wanted = dict(leaves(shapes(config)))
    arrays = {}
    for path, values in leaves(params):
        each, leaf = spelled[path], wanted[path]
        values = np.asarray(values, np.float32)
        layers = values if leaf.axes[0] == "l" else values[np.newaxis]
        turned = tuple(each.shape[axis] for axis in each.axes)
        for row, layer in zip(each.names, layers, strict=True):
            for name, part in zip(row, np.split(layer, len(row), axis=-1), strict=True):
                arrays[name] = np.ascontiguousarray(part.reshape(turned).transpose(np.argsort(each.axes)))
    return arrays


def rebuilt(tree: Any, made: Mapping[str, Any], path: str = "") -> Any:
    """A tree of the same form with made[path] in place of every leaf."""
    if tree is None:
        return None
    if not hasattr(tree, "_fields"):
        return made[path]
    parts = ((f"{path}/{field}" if path else field, getattr(tree, field)) for field in tree._fields)
    return type(tree)(*(rebuilt(part, made, name) for name, part in parts))


def _faults(name: str, array: np.ndarray, shape: tuple[int, ...]) -> list[str]:
    if array.shape != shape:
        return [f"{name} has shape {array.shape}, it must be {shape}"]
    if array.dtype.name not in ("float64", "float32", "float16", "bfloat16"):
        return [f"{name} has dtype {array.dtype.name}, it must be a float type"]
    if not finite(array):
        return [f"{name} has NaN or infinity"]
    return []


def finite(array: np.ndarray) -> bool:
    """Whether every number is finite in float32, without another array of the same size."""
    if not array.size:
        return True
    ends = np.array([array.min(), array.max()], np.float64)  # NaN spreads to both
    return bool(np.all(np.abs(ends) <= np.finfo(np.float32).max))


def _assemble(arrays: Mapping[str, np.ndarray], each: Spelling, leaf: Leaf) -> np.ndarray:
    """float32: parts side by side, layers stacked; the file's own array where nothing has to change."""
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


def _one_array(each: Spelling) -> bool:
    return len(each.names) == len(each.names[0]) == 1


def _listed(each: Spelling, called: Mapping[str, str]) -> str:
    """All names in one: "Transformer/encoderblock_0…11/MultiHeadDotProductAttention_0/{query,key,value}/kernel"."""
    if each.absent:
        return ""
    parts, others = ([*dict.fromkeys(called[name] for name in row)] for row in (each.names[0], each.names[-1]))
    pieces = [re.split(r"(?<=[./])|(?=[./])", part) for part in parts]
    each_place = [list(dict.fromkeys(words)) for words in zip(*pieces, strict=True)]
    shown = "".join(words[0] if len(words) == 1 else f"{{{','.join(words)}}}" for words in each_place)
    if parts == others:
        return shown
    layers = f"0…{len(each.names) - 1}"
    return PRODUCT.join(re.sub(r"(?<=[._])0(?=[./])", layers, name, count=1) for name in shown.split(PRODUCT))


def _change(arrays: Mapping[str, np.ndarray], each: Spelling, leaf: Leaf) -> str:
    if each.absent:
        return "zeros: the source has none"
    changes = []
    if each.axes != tuple(sorted(each.axes)):
        changes.append("transposed")
    elif each.shape not in (leaf.shape, part_shape(leaf, len(each.names[0]))):
        changes.append("reshaped")
    if len(each.names[0]) > 1:
        changes.append("side by side")
    if leaf.axes[0] == "l" and each.shape != leaf.shape:
        changes.append(f"{len(each.names)} layers stacked")
    dtypes = {arrays[name].dtype.name for row in each.names for name in row} - {"float32"}
    changes += [f"from {dtype}" for dtype in sorted(dtypes)]
    return ", ".join(changes) or "as it is"
