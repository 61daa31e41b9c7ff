"""Writes npz files row by row, with one row in memory at a time."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vivit.files.atomic import parent_folder, report_write_errors, working_folder

CHUNK = 1 << 22  # bytes per copy


class NpzWriter:
    """Rows of several arrays. Each array is a file of its own until `pack` writes them into one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}
        self._rows: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        self.count = 0

    def append(self, row: Mapping[str, np.ndarray]) -> None:
        """Appends one row to every array.

        Raises ValueError unless names, dtypes and shapes equal those of the first row.
        """
        kinds = {name: (value.dtype, value.shape) for name, value in row.items()}
        if self._rows and kinds != self._rows:
            raise ValueError(f"a row has {kinds}: it must have {self._rows}")
        self._rows = kinds
        for number, (name, value) in enumerate(row.items()):
            path = self._files.setdefault(name, self._folder / str(number))
            with path.open("ab") as file:
                file.write(np.ascontiguousarray(value).data)
        self.count += 1

    def shorten(self, count: int) -> None:
        """Removes the rows after the first `count`."""
        for name, (dtype, shape) in self._rows.items():
            with self._files[name].open("r+b") as file:
                file.truncate(count * dtype.itemsize * int(np.prod(shape)))
        self.count = count

    def pack(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes the npz file: the appended rows, and other arrays."""
        with zipfile.ZipFile(path, "w", allowZip64=True) as packed:
            for name, value in arrays.items():
                with packed.open(f"{name}.npy", "w") as entry:
                    np.lib.format.write_array(entry, value, allow_pickle=False)
            for name, (dtype, shape) in self._rows.items():
                header = dict(
                    descr=np.lib.format.dtype_to_descr(dtype), fortran_order=False, shape=(self.count, *shape)
                )
                with packed.open(f"{name}.npy", "w", force_zip64=True) as entry, self._files[name].open("rb") as rows:
                    np.lib.format.write_array_header_1_0(entry, header)
                    while chunk := rows.read(CHUNK):
                        entry.write(chunk)


@contextmanager
def open_npz(path: str | Path) -> Iterator[NpzWriter]:
    """Yields an NpzWriter in a working folder beside the path; the folder is removed afterwards."""
    with report_write_errors(path), working_folder(parent_folder(path)) as folder:
        yield NpzWriter(folder)
