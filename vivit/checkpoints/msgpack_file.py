"""Reads Flax's msgpack files, which are untrusted: arrays as extension types, large ones in chunks."""

import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import msgpack
import numpy as np

from vivit.checkpoints.files import Arrays
from vivit.reference.values import quoted, shortened

ARRAY, COMPLEX, SCALAR = 1, 2, 3  # Flax's extension types
CHUNKED = "__msgpack_chunked_array__"
MAX_DEPTH, MAX_LEAVES = 64, 2**20
DTYPES = {
    name: np.dtype(name) for name in ("float64", "float32", "float16", "int64", "int32", "uint32", "uint8", "bool")
}
DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)


def read_msgpack(path: Path) -> Arrays:
    """Returns the arrays of a Flax msgpack file by their joined names.

    Chunks are joined; numbers and strings are skipped.

    Raises ValueError, naming the file, if it is truncated, declares wrong sizes, or is not a tree of arrays. Memory is
    limited to about twice the file: no declared length beyond the file's size is allocated.
    """
    size = path.stat().st_size
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            tree = msgpack.unpackb(
                memoryview(mapped),
                ext_hook=_extension,
                raw=False,
                strict_map_key=True,
                max_ext_len=size,
                max_bin_len=size,
                max_str_len=min(size, 2**20),
                max_map_len=min(size, MAX_LEAVES),
                max_array_len=min(size, MAX_LEAVES),
            )
        return dict(_flattened(tree, "", MAX_DEPTH))
    except (ValueError, TypeError, OverflowError, RecursionError, BufferError, msgpack.UnpackException) as error:
        raise ValueError(f"{path} cannot be read as a Flax checkpoint: {error or type(error).__name__}") from None


def _extension(code: int, data: bytes) -> Any:
    """Decodes an array or a scalar as Flax packs them: (shape, name of the dtype, bytes)."""
    if code == COMPLEX:
        return None
    if code not in (ARRAY, SCALAR):
        raise ValueError(f"extension type {code}: it must be {ARRAY}, {COMPLEX} or {SCALAR}")
    fields = msgpack.unpackb(data, raw=False, max_bin_len=len(data), max_array_len=64)
    if not isinstance(fields, list) or len(fields) != 3:
        raise ValueError("an array must be (shape, dtype, bytes)")
    shape, dtype, values = fields
    if isinstance(dtype, bytes):
        dtype = dtype.decode("ascii", "replace")
    if dtype not in DTYPES or not isinstance(values, bytes) or not _is_shape(shape):
        array = f"an array of dtype {quoted(dtype)} and shape {quoted(shape)}"
        raise ValueError(f"{array}: dtype must be one of {', '.join(DTYPES)}")
    if math.prod(shape) * DTYPES[dtype].itemsize != len(values):
        raise ValueError(f"an array declares shape {quoted(tuple(shape))} of {dtype} and holds {len(values):,} bytes")
    return np.frombuffer(values, DTYPES[dtype]).reshape(shape)


def _flattened(tree: Any, name: str, depth: int) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(tree, dict) and CHUNKED in tree:
        yield name, _joined(tree, name)
    elif isinstance(tree, (dict, list)):
        if depth == 0:
            raise ValueError(f"{shortened(name)} is nested deeper than {MAX_DEPTH} names")
        for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _flattened(part, f"{name}/{key}" if name else str(key), depth - 1)
    elif isinstance(tree, np.ndarray):
        yield name, tree


def _joined(tree: dict[str, Any], name: str) -> np.ndarray:
    """Joins an array that was split into flat chunks, in the order of their numbers."""
    shape, chunks = _numbered(tree.get("shape")), _numbered(tree.get("chunks"))
    if not _is_shape(shape) or not chunks or not all(isinstance(chunk, np.ndarray) for chunk in chunks):
        raise ValueError(f"{shortened(name)} is a chunked array without shape or chunks")
    if math.prod(shape) != sum(chunk.size for chunk in chunks) or len({chunk.dtype for chunk in chunks}) != 1:
        held = f"has chunks of {sum(chunk.size for chunk in chunks):,} numbers"
        raise ValueError(f"{shortened(name)} declares shape {quoted(tuple(shape))} and {held}")
    return np.concatenate([chunk.reshape(chunk.size) for chunk in chunks]).reshape(shape)


def _numbered(values: Any) -> list[Any]:
    """Returns a list, or the values of a map with keys "0", "1", …, as Flax writes tuples."""
    if isinstance(values, dict):
        if set(values) != {str(index) for index in range(len(values))}:
            return []
        return [values[str(index)] for index in range(len(values))]
    return values if isinstance(values, list) else []


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
