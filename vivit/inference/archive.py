"""An npz file whose arrays grow row by row: what is in memory is one row, whatever becomes of the file."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vivit.writing import beside, naming, working_folder

CHUNK = 1 << 22  # bytes copied at once


class Archive:
    """Rows of several arrays, each array on the disk in a file of its own until `growing` packs them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}
        self._rows: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        self.count = 0

    def append(self, row: Mapping[str, np.ndarray]) -> None:
        """One more row of every array. Raises ValueError unless names, dtypes and shapes are those of the first."""
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
        """Forgets the rows after the first `count`."""
        for name, (dtype, shape) in self._rows.items():
            with self._files[name].open("r+b") as file:
                file.truncate(count * dtype.itemsize * int(np.prod(shape)))
        self.count = count

    def pack(self, path: Path, whole: Mapping[str, np.ndarray]) -> None:
        """Writes the file: the arrays of rows, and others that are given whole."""
        with zipfile.ZipFile(path, "w", allowZip64=True) as packed:
            for name, value in whole.items():
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
def growing(path: str | Path) -> Iterator[Archive]:
    """An archive to be filled, and packed before it ends; beside the path while it grows, gone afterwards."""
    with naming(path), working_folder(beside(path)) as folder:
        yield Archive(folder)
