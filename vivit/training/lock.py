"""One process, or one cluster, at a time in a run's folder: a lock that the kernel releases when its holder dies."""

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

NAME = "lock"  # in the folder; it stays there, since removing it would let two in


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder, which is made if it is not there; of a cluster's processes the first holds it for all.

    Raises ValueError that names the process which holds it, and OSError if the folder cannot be written; in a cluster
    in all processes.
    """
    descriptor, error = None, None
    if jax.process_index() == 0:
        try:
            descriptor = _taken(folder)
        except (ValueError, OSError) as refused:
            error = refused
    try:
        if jax.process_count() > 1:
            failed = multihost_utils.broadcast_one_to_all(np.array(error is not None))
            if failed and error is None:
                error = ValueError(f"{folder} was refused to process 0 of this cluster, whose message says why")
        if error is not None:
            raise error
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _taken(folder: Path) -> int:
    """The open file that is the lock. Its first line, of the holder, is only there to be shown."""
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
    process, _, host = os.pread(descriptor, 300, 0).decode(errors="replace").strip().partition(" ")
    os.close(descriptor)
    where = f" of {host}" if host and host != socket.gethostname() else ""
    return f"process {process}{where}" if process else "another process"
