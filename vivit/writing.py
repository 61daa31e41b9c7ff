"""Where output may go, and how it is written: whole or not at all, and never over what is read.

Whatever is written begins in a working folder beside its place, and gets its name when it is whole. The kernel holds a
lock on that folder while its process lives; what a killed process left is removed by the next that writes beside it.
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

from vivit.paths import as_path, is_folder, status

STANDARD_OUTPUT = "-"
PREFIX, SUFFIX = ".vivit-", ".partial"  # of working folders
CHUNK = 1 << 20  # bytes copied at once

Piped = Literal["text", "bytes"]


def check_place(
    path: str | Path,
    *,
    suffixes: Sequence[str] = (),
    inputs: Iterable[str | Path] = (),
    piped: Piped | None = None,
) -> None:
    """Raises ValueError unless a file of this name can be written, so that long work is not done in vain.

    suffixes: of the format, in small letters; (): it has none of its own. inputs: what is read, "-" is standard input;
    the file must be none of them, whatever names it goes by. piped: what "-", standard output, would get; bytes are not
    for a terminal; None: "-" is refused.
    """
    if str(path) == STANDARD_OUTPUT:
        _check_standard_output(inputs, piped)
        return
    target = _target(path, inputs)
    if not is_folder(target.parent):
        raise ValueError(f"{path}: the folder {target.parent} does not exist")
    for name in (Path(path), target):  # and that which a link leads to
        if suffixes and name.suffix.lower() not in suffixes:
            raise ValueError(f"{name} must end in {' or '.join(suffixes)}")
    try:
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from None


def write_file(path: str | Path, write: Callable[[Path], object], *, inputs: Iterable[str | Path] = ()) -> None:
    """Calls write(temporary), an empty file, and gives the result its name, or sends it to standard output ("-").

    The file is whole or as it was, whenever we are killed. A link is followed. Raises ValueError if what is there by
    now is no regular file, or one of the inputs; OSError, naming the path, if it cannot be written.
    """
    if str(path) == STANDARD_OUTPUT:
        _send(write)
        return
    target = _target(path, inputs)
    with naming(path), working_folder(target.parent) as folder:
        temporary = folder / target.name
        mode = _made(temporary)
        write(temporary)
        temporary.chmod(mode)  # libraries may have put another file in its place, for its owner alone
        _to_disk(temporary)
        os.replace(temporary, target)
        _to_disk(target.parent)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """An OSError of writing in here, such as of a full disk, becomes one line that names the path.

    The system names no file when writing fails, and ours are temporary ones. Errors of other files stay what they are.
    """
    try:
        yield
    except BrokenPipeError:  # of standard output: its reader, such as head, has what it wanted
        raise
    except OSError as error:
        while isinstance(error.__cause__, OSError):  # one within another
            error = error.__cause__
        if not _is_temporary(error.filename) and Path(str(error.filename)) != Path(path):
            raise
        what = "standard output" if str(path) == STANDARD_OUTPUT else path
        raise OSError(f"{what} could not be written: {error.strerror or error}") from error


def write_text(path: str | Path, text: str, *, inputs: Iterable[str | Path] = ()) -> None:
    """A text file, UTF-8, as write_file writes it.

    Bytes of names that are not UTF-8 become escapes such as \\udcff, which in JSON mean the same again.
    """
    write_file(path, lambda temporary: temporary.write_bytes(text.encode("utf-8", "backslashreplace")), inputs=inputs)


def check_folder(path: str | Path, *, inputs: Iterable[str | Path] = (), new: bool = False) -> None:
    """Raises ValueError unless a folder of this name is there, or can be, and is none of the inputs.

    new: it must not be there, or be empty.
    """
    if str(path) == STANDARD_OUTPUT:
        raise ValueError("- is standard output, which holds no folder: name one")
    found = status(path)
    if found is None:
        return
    _check_none(str(path), found, inputs)
    if new and not (stat.S_ISDIR(found.st_mode) and not os.listdir(path)):
        raise ValueError(f"{path} is there already: name a folder that is not, or an empty one")
    if not stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{path} is {_kind(found.st_mode)}: it must be a folder, or not be there")


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder to be filled, that gets its name at the end. Raises ValueError if that is taken."""
    check_folder(path, new=True)
    target = Path(os.path.realpath(path))
    with naming(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        with working_folder(target.parent) as folder:
            mode = _made(folder / "example")
            (folder / "example").unlink()
            temporary = folder / target.name
            temporary.mkdir()
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file() and not file.is_symlink():
                    file.chmod(mode)
            os.replace(temporary, target)
            _to_disk(target.parent)


@contextmanager
def working_folder(beside: Path, *, sweep: bool = True) -> Iterator[Path]:
    """A folder in another one for what is not whole yet. It is gone afterwards; after a kill, when the next one comes.

    sweep: whether what killed processes left there is removed first.
    """
    if sweep:
        remove_abandoned(beside)
    folder, lock = _locked_folder(beside)
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def remove_abandoned(beside: Path) -> None:
    """Removes the working folders in a folder whose processes have ended."""
    with suppress(OSError), os.scandir(beside) as found:
        for entry in found:
            if entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX):
                with suppress(OSError):  # it is held, another's, or gone by now
                    lock = _open_folder(entry.path)
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(entry.path, ignore_errors=True)
                    finally:
                        os.close(lock)


def beside(path: str | Path) -> Path:
    """The folder in which a file of this name begins; for standard output that of temporary files."""
    if str(path) == STANDARD_OUTPUT:
        return Path(tempfile.gettempdir())
    return Path(os.path.realpath(path)).parent


def _target(path: str | Path, inputs: Iterable[str | Path]) -> Path:
    """What is written in the end. Raises ValueError if what is there must not be replaced."""
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
        raise ValueError(f"{path} is {_kind(found.st_mode)}: name a file")
    _check_none(str(path), found, inputs)
    return target


def _check_none(what: str, found: os.stat_result, inputs: Iterable[str | Path]) -> None:
    """Raises ValueError if one of the inputs is this file, by whatever name."""
    for name in inputs:
        other = _status_of_stream(sys.stdin) if str(name) == "-" else _status_or_none(name)
        if other is not None and os.path.samestat(found, other):
            same = "" if str(name) == what else f", as {name}"
            raise ValueError(f"{what} is read{same}: name another file to write")


def _status_or_none(name: str | Path) -> os.stat_result | None:
    try:
        return os.stat(name)
    except (OSError, ValueError):  # what cannot be read is said when it is read
        return None


def _status_of_stream(stream: TextIO | None) -> os.stat_result | None:
    """None: it is closed, or no stream of the system."""
    try:
        return None if stream is None else os.fstat(stream.fileno())
    except (OSError, ValueError):
        return None


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "a file"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _check_standard_output(inputs: Iterable[str | Path], piped: Piped | None) -> None:
    if piped is None:
        raise ValueError("- is standard output, where this cannot go: name a file")
    if sys.stdout is None or getattr(sys.stdout, "name", None) == os.devnull:  # as vivit.process opens what is closed
        raise ValueError("- is standard output, which is closed: name a file")
    if piped == "bytes" and sys.stdout.isatty():
        raise ValueError("- is standard output, a terminal, which shows no bytes: name a file, or pipe it on")
    found = _status_of_stream(sys.stdout)
    if found is not None and stat.S_ISREG(found.st_mode):
        _check_none("standard output", found, inputs)


def _made(path: Path) -> int:
    """Makes an empty file. Returns its mode, which is what the umask gives."""
    path.touch()
    return stat.S_IMODE(path.stat().st_mode)


def _send(write: Callable[[Path], object]) -> None:
    """Makes the file in the folder of temporary files, and copies it to standard output."""
    with naming(STANDARD_OUTPUT), working_folder(beside(STANDARD_OUTPUT)) as folder:
        whole = folder / "whole"
        whole.touch()
        write(whole)
        sys.stdout.flush()
        with whole.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer, CHUNK)
        sys.stdout.buffer.flush()


def _locked_folder(beside: Path) -> tuple[Path, int]:
    """A new working folder, and the descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=beside, prefix=PREFIX, suffix=SUFFIX))
        with suppress(FileNotFoundError):  # another process took it for abandoned before it was locked
            lock = _open_folder(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    os.close(lock)
                    continue
                # there are no locks here: then nobody removes what is not his
            if os.path.exists(folder):
                return folder, lock
            os.close(lock)


def _open_folder(path: str | Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _is_temporary(name: object) -> bool:
    """Whether an error names no file, or one in a working folder, which says nothing to anybody."""
    return name is None or (PREFIX in str(name) and SUFFIX in str(name))


def _to_disk(path: Path) -> None:
    """Waits until the file or folder is on the disk, not only in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
