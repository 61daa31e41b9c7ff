"""Writes files and folders atomically, checks that they can be written, and never overwrites an input.

Output is written into a temporary folder beside its destination, and renamed when it is complete. The process holds a
lock on the temporary folder; folders that a killed process left are removed by the next process that writes beside
them.
"""

import errno
import fcntl
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TextIO

from vivit.files.paths import as_path, is_folder, status

STANDARD_OUTPUT = "-"
PREFIX, SUFFIX = ".vivit-", ".partial"  # of temporary folders
CHUNK = 1 << 20  # bytes per copy

Piped = Literal["text", "bytes"]


def check_writable(
    path: str | Path,
    *,
    suffixes: Sequence[str] = (),
    inputs: Iterable[str | Path] = (),
    piped: Piped | None = None,
) -> None:
    """Raises ValueError unless a file of this name can be written; called before long computations.

    suffixes: allowed suffixes in lower case; (): any. inputs: files that are read ("-" is standard input); the output
    must not be one of them under any name, such as a link. piped: what "-", standard output, would receive; bytes are
    refused on a terminal; None: "-" is refused.
    """
    if str(path) == STANDARD_OUTPUT:
        _check_standard_output(inputs, piped)
        return
    target = _resolve(path, inputs)
    if not is_folder(target.parent):
        raise ValueError(f"{path}: the folder {target.parent} does not exist")
    for name in (Path(path), target):  # the link's target as well
        if suffixes and name.suffix.lower() not in suffixes:
            raise ValueError(f"{name} must end in {' or '.join(suffixes)}")
    try:
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from None


def write_file(path: str | Path, write: Callable[[Path], object], *, inputs: Iterable[str | Path] = ()) -> None:
    """Calls write(temporary) on an empty file and renames it to path, or copies it to standard output if path is "-".

    If the process is killed, the destination is complete or unchanged. A link is followed. Raises ValueError if the
    destination is not a regular file or is one of the inputs; OSError, naming the path, if it cannot be written.
    """
    if str(path) == STANDARD_OUTPUT:
        _write_standard_output(write)
        return
    target = _resolve(path, inputs)
    with report_write_errors(path), working_folder(target.parent) as folder:
        temporary = folder / target.name
        mode = _create_empty(temporary)
        write(temporary)
        temporary.chmod(mode)  # a library may have replaced the file by one that only its owner can read
        _sync(temporary)
        os.replace(temporary, target)
        _sync(target.parent)


@contextmanager
def report_write_errors(path: str | Path) -> Iterator[None]:
    """Turns an OSError from writing inside this block, such as a full disk, into one line that names the path.

    The original error names no file, or a temporary one. Errors that name other files are raised unchanged.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of standard output, such as head, has closed it
        raise
    except OSError as error:
        while isinstance(error.__cause__, OSError):  # unwrap nested errors
            error = error.__cause__
        if not _is_temporary(error.filename) and Path(str(error.filename)) != Path(path):
            raise
        name = "standard output" if str(path) == STANDARD_OUTPUT else path
        raise OSError(f"{name} could not be written: {error.strerror or error}") from error


def write_text(path: str | Path, text: str, *, inputs: Iterable[str | Path] = ()) -> None:
    """Writes a text file in UTF-8, as write_file does.

    Bytes of file names that are not UTF-8 are escaped as \\udcff, which JSON decodes to the same name.
    """
    write_file(path, lambda temporary: temporary.write_bytes(text.encode("utf-8", "backslashreplace")), inputs=inputs)


def check_folder(path: str | Path, *, inputs: Iterable[str | Path] = (), new: bool = False) -> None:
    """Raises ValueError unless a folder of this name exists or can be created, and is not one of the inputs.

    new: the folder must be missing or empty.
    """
    if str(path) == STANDARD_OUTPUT:
        raise ValueError("- is standard output, which is not a folder: name a folder")
    found = status(path)
    if found is None:
        return
    _check_not_input(str(path), found, inputs)
    if new and not (stat.S_ISDIR(found.st_mode) and not os.listdir(path)):
        raise ValueError(f"{path} exists already: name a new folder or an empty one")
    if not stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{path} is {_file_type(found.st_mode)}: it must be a folder, or not exist")


@contextmanager
def atomic_dir(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder to fill, which is renamed to path at the end. Raises ValueError if path is not free."""
    check_folder(path, new=True)
    target = Path(os.path.realpath(path))
    with report_write_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        with working_folder(target.parent) as folder:
            mode = _create_empty(folder / "example")
            (folder / "example").unlink()
            temporary = folder / target.name
            temporary.mkdir()
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file() and not file.is_symlink():
                    file.chmod(mode)
            os.replace(temporary, target)
            _sync(target.parent)


@contextmanager
def working_folder(beside: Path, *, sweep: bool = True) -> Iterator[Path]:
    """Yields a temporary folder inside another folder, and removes it afterwards.

    sweep: whether to remove first the temporary folders that killed processes left.
    """
    if sweep:
        remove_stale_folders(beside)
    folder, lock = _locked_folder(beside)
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def remove_stale_folders(beside: Path) -> None:
    """Removes the temporary folders whose processes have ended."""
    with suppress(OSError), os.scandir(beside) as found:
        for entry in found:
            if entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX):
                with suppress(OSError):  # in use, owned by another user, or removed meanwhile
                    lock = _open_folder(entry.path)
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(entry.path, ignore_errors=True)
                    finally:
                        os.close(lock)


def parent_folder(path: str | Path) -> Path:
    """Returns the folder in which a file of this name is prepared; for standard output, the temporary folder."""
    if str(path) == STANDARD_OUTPUT:
        return Path(tempfile.gettempdir())
    return Path(os.path.realpath(path)).parent


def _resolve(path: str | Path, inputs: Iterable[str | Path]) -> Path:
    """Returns the path with links followed. Raises ValueError if the file there must not be replaced."""
    target = Path(os.path.realpath(as_path(path)))
    try:
        found = os.stat(target)
    except (FileNotFoundError, NotADirectoryError):
        return target
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from None
    if stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{path} is a folder: name a file")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is {_file_type(found.st_mode)}: name a file")
    _check_not_input(str(path), found, inputs)
    return target


def _check_not_input(name: str, found: os.stat_result, inputs: Iterable[str | Path]) -> None:
    """Raises ValueError if one of the inputs is this file, under any name."""
    for given in inputs:
        other = _status_of_stream(sys.stdin) if str(given) == "-" else _status_or_none(given)
        if other is not None and os.path.samestat(found, other):
            same = "" if str(given) == name else f", as {given}"
            raise ValueError(f"{name} is read{same}: name another file to write")


def _status_or_none(name: str | Path) -> os.stat_result | None:
    try:
        return os.stat(name)
    except (OSError, ValueError):  # reading it later reports the error
        return None


def _status_of_stream(stream: TextIO | None) -> os.stat_result | None:
    """Returns the status of a stream's file, or None if the stream is closed or has no file descriptor."""
    try:
        return None if stream is None else os.fstat(stream.fileno())
    except (OSError, ValueError):
        return None


def _file_type(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "a file"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _check_standard_output(inputs: Iterable[str | Path], piped: Piped | None) -> None:
    if piped is None:
        raise ValueError("- is standard output, which this output cannot use: name a file")
    if (
        sys.stdout is None or getattr(sys.stdout, "name", None) == os.devnull
    ):  # vivit.cli.process opens devnull for a closed stream
        raise ValueError("- is standard output, which is closed: name a file")
    if piped == "bytes" and sys.stdout.isatty():
        raise ValueError("- is standard output, a terminal, which cannot show bytes: name a file, or use a pipe")
    found = _status_of_stream(sys.stdout)
    if found is not None and stat.S_ISREG(found.st_mode):
        _check_not_input("standard output", found, inputs)


def _create_empty(path: Path) -> int:
    """Creates an empty file. Returns its mode, which follows the umask."""
    path.touch()
    return stat.S_IMODE(path.stat().st_mode)


def _write_standard_output(write: Callable[[Path], object]) -> None:
    """Writes a temporary file and copies it to standard output."""
    with report_write_errors(STANDARD_OUTPUT), working_folder(parent_folder(STANDARD_OUTPUT)) as folder:
        temporary = folder / "output"
        temporary.touch()
        write(temporary)
        sys.stdout.flush()
        with temporary.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer, CHUNK)
        sys.stdout.buffer.flush()


def _locked_folder(beside: Path) -> tuple[Path, int]:
    """Creates a temporary folder. Returns it and the descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=beside, prefix=PREFIX, suffix=SUFFIX))
        with suppress(FileNotFoundError):  # another process removed it before it was locked
            lock = _open_folder(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    os.close(lock)
                    continue
                # the file system has no locks: then nothing is removed either
            if os.path.exists(folder):
                return folder, lock
            os.close(lock)


def _open_folder(path: str | Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _is_temporary(name: object) -> bool:
    """Returns whether an error names no file, or a file in a temporary folder, which means nothing to the user."""
    return name is None or (PREFIX in str(name) and SUFFIX in str(name))


def _sync(path: Path) -> None:
    """Waits until the file or folder is written to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
