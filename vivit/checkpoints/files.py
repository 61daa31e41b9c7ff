"""Reads and writes named arrays of safetensors and npz files.

Files are untrusted: sizes are limited, and pickles are never read. Arrays are views of the mapped file where the format
allows it. The meaning of the arrays is left to the callers.
"""

import lzma
import math
import os
import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, NamedTuple

import ml_dtypes
import numpy as np
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vivit.reference.values import quoted, shortened

Arrays = dict[str, np.ndarray]

FREE_BYTES = 2**26  # an npz may unpack to this many bytes, plus
CHUNK = 2**24  # bytes unpacked at a time
MAX_RATIO = 20  # this many times its size: weights hardly compress
DTYPES = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
BROKEN_ZIP = (  # errors of a damaged or encrypted archive, and our own ValueError
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, ValueError, EOFError, RuntimeError, NotImplementedError),
)
UNPICKLE = (
    "pickles are never read; if you trust it, convert it: "
    "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors'), or np.savez of plain arrays"
)


class Safetensors(NamedTuple):
    """The arrays and the metadata of a safetensors file."""

    arrays: Arrays
    metadata: dict[str, str]


def file_format(path: Path) -> str:
    """Returns a file's format by its first bytes: "safetensors", "zip", "msgpack", "pickle", "hdf5" or "unknown"."""
    with open(path, "rb") as file:
        start = file.read(16)
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "pickle"
    if start[:4] == b"PK\x03\x04":
        return "zip"
    if start[:8] == b"\x89HDF\r\n\x1a\n":
        return "hdf5"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40:
        return "safetensors"
    if start[:1] in (b"\xde", b"\xdf") or (start[:1] and 0x81 <= start[0] <= 0x8F):
        return "msgpack"
    return "unknown"


def read_safetensors(path: Path) -> Safetensors:
    """Returns the arrays of a safetensors file, as read-only views of the mapped file, and its metadata.

    Raises ValueError, naming the file, if it is truncated, its header is wrong, or an array has no float type.
    """
    try:
        with safe_open(path, framework="np") as file:  # checks that the arrays fill the file without gaps
            names, metadata = file.offset_keys(), file.metadata() or {}
            headers = [(name, file.get_slice(name)) for name in names]
            headers = [(name, header.get_dtype(), tuple(header.get_shape())) for name, header in headers]
        mapped = np.memmap(path, np.uint8, mode="r")
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from None
    arrays, offset = {}, 8 + int.from_bytes(mapped[:8].tobytes(), "little")
    for name, dtype, shape in headers:
        if dtype not in DTYPES:
            raise ValueError(
                f"{path}: {shortened(name)} has dtype {quoted(dtype)}: it must be one of {', '.join(DTYPES)}"
            )
        arrays[name] = np.ndarray(shape, DTYPES[dtype], mapped, offset)
        offset += math.prod(shape) * DTYPES[dtype].itemsize
    return Safetensors(arrays, metadata)


def read_npz(path: Path) -> Arrays:
    """Returns the arrays of an npz file with their stored dtypes; records of two bytes are read as bfloat16.

    Raises ValueError, naming the file, if it is damaged, holds pickles, or would unpack to more than FREE_BYTES plus
    MAX_RATIO times its size. Declared sizes are checked before anything is unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
                raise ValueError(f"it is a PyTorch pickle: {UNPICKLE}")
            if len(set(names)) != len(names):
                raise ValueError("it names an array twice")
            limit = FREE_BYTES + MAX_RATIO * os.path.getsize(path)
            total = sum(member.file_size for member in members)
            if total > limit:
                raise ValueError(f"it would unpack to {total:,} bytes: for its size it must be at most {limit:,}")
            return {member.filename.removesuffix(".npy"): _read_member(archive, member) for member in members}
    except BROKEN_ZIP as error:
        raise ValueError(f"{path} cannot be read as npz: {error}") from None


def _npy_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns shape, whether the order is Fortran's, and dtype. Raises ValueError for other headers and for pickles."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} has npy version {version}: it must be (1, 0) or (2, 0)")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers that Python 2 wrote
            shape, fortran_order, dtype = read_header(file)
    except zipfile.BadZipFile:
        raise
    except Exception as error:  # NumPy parses it as Python, which raises many types of errors
        raise ValueError(f"{name} has a header that cannot be read: {quoted(str(error))}") from None
    if dtype.hasobject:
        raise ValueError(f"{name} is a pickle: {UNPICKLE}")
    if not dtype.itemsize or dtype.names is not None or dtype.subdtype is not None:
        raise ValueError(f"{name} has dtype {quoted(dtype)}: it must be a plain number type")
    return shape, fortran_order, dtype


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Reads one array into memory of its own. Reading to the end checks the checksum."""
    with archive.open(member) as file:
        shape, fortran_order, dtype = _npy_header(file, member.filename)
        if dtype == np.dtype("V2"):
            dtype = DTYPES["BF16"]
        size = math.prod(shape) * dtype.itemsize
        if size != member.file_size - file.tell():
            raise ValueError(f"{member.filename} declares {size:,} bytes and holds {member.file_size - file.tell():,}")
        array = np.empty(shape, dtype, order="F" if fortran_order else "C")
        flat = array.reshape(-1, order="A").view(np.uint8)
        offset = 0
        while offset < size:
            chunk = np.frombuffer(file.read(min(size - offset, CHUNK)), np.uint8)
            if not chunk.size:
                raise ValueError(f"{member.filename} ends after {offset:,} of {size:,} bytes")
            flat[offset : offset + chunk.size] = chunk
            offset += chunk.size
        if file.read(1):
            raise ValueError(f"{member.filename} continues after its {size:,} bytes")
        return array


def write_safetensors(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes a safetensors file. Raises OSError for a full disk and the like, in place of the library's own error."""
    try:
        save_file(arrays, path, metadata)
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise OSError(f"{path} could not be written: {error}") from None
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None
