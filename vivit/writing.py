"""Files that appear whole or not at all: written under a temporary name beside their place, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Calls write(temporary) and gives the result its name. The file is whole or as it was, whenever we are killed."""
    with naming(path):
        descriptor, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        with naming(path):
            write(temporary)
            temporary.chmod(0o666 & ~_umask())
            _to_disk(temporary)
            os.replace(temporary, path)
            _to_disk(path.absolute().parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of writing in here, such as of a full disk, becomes one line that names the path.

    The system names no file when writing fails, and ours are temporary ones. Errors of other files stay what they are.
    """
    try:
        yield
    except OSError as error:
        while isinstance(error.__cause__, OSError):  # one within another
            error = error.__cause__
        other = error.filename is not None and f".{path.name}." not in str(error.filename)
        if other and Path(str(error.filename)) != path:
            raise
        raise OSError(f"{path} could not be written: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """A text file, UTF-8, as write_file writes it."""
    write_file(path, lambda temporary: temporary.write_text(text, "utf-8"))


def check_place(path: Path) -> None:
    """Raises ValueError unless a file of this name can be written, so that long work is not done in vain."""
    folder = path.absolute().parent
    if not path.name or path.is_dir():
        raise ValueError(f"{path} is a folder: name a file")
    if not folder.is_dir():
        raise ValueError(f"{path}: the folder {folder} does not exist")
    try:
        tempfile.TemporaryFile(dir=folder, prefix=f".{path.name}.").close()
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from None


def remove_unfinished(path: Path) -> None:
    """Removes what a killed write_file of this path left behind."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to be filled, that gets its name at the end. Raises ValueError if that is taken."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path} is there already: name a folder that is not, or an empty one")
    with naming(path):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f".{path.name}."))
    try:
        with naming(path):
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            os.replace(temporary, path)
            _to_disk(path.absolute().parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _to_disk(path: Path) -> None:
    """Waits until the file or folder is on the disk, not only in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
