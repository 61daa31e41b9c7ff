"""Locks a run's folder for one process, or one cluster, at a time.

The kernel releases the lock when the process ends.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

NAME = "lock"  # never removed: removing it would let two processes hold the lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which is created if it is missing. In a cluster process 0 holds it for all processes.

    Raises ValueError that names the process which holds the lock, and OSError if the folder cannot be written; in a
    cluster all processes raise.
    """
    descriptor, error = None, None
    if jax.process_index() == 0:
        try:
            descriptor = _acquire(folder)
        except (ValueError, OSError) as failure:
            error = failure
    try:
        if jax.process_count() > 1:
            failed = multihost_utils.broadcast_one_to_all(np.array(error is not None))
            if failed and error is None:
                error = ValueError(f"{folder} could not be locked by process 0 of this cluster: see its error message")
        if error is not None:
            raise error
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _acquire(folder: Path) -> int:
    """Returns the descriptor of the locked file. The file's first line names the process for error messages only."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
    except BlockingIOError:
        raise ValueError(f"{folder} is in use by {_holder(descriptor)}: wait until it ends, or name another") from None
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.ENOSPC:
            raise OSError(error.errno, error.strerror, str(folder / NAME)) from None
        raise OSError(error.errno, f"cannot be locked, {error.strerror}", str(folder / NAME)) from None
    return descriptor


def _holder(descriptor: int) -> str:
    """Describes the process that holds the lock, and closes the descriptor."""
    process, _, host = os.pread(descriptor, 300, 0).decode(errors="replace").strip().partition(" ")
    os.close(descriptor)
    where = f" of {host}" if host and host != socket.gethostname() else ""
    return f"process {process}{where}" if process else "another process"
