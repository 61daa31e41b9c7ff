"""Ray: a local instance or a cluster, without usage reports, dashboard and messages, and the pool of its workers."""

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vivit.reference.values import quoted

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no report of the use to Ray's authors
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
STORE = 128 * 2**20  # bytes of the object store, besides the model and the names
PATIENCE = 10  # seconds
CORES = 2  # of a worker, which decodes and computes


@contextmanager
def connected(address: str | None, workers: int | None, stored: int) -> Iterator[None]:
    """Starts a local Ray, or connects to a cluster; leaves one that is there already as it is.

    address: of a cluster, such as "10.0.0.1:6379"; None: a local Ray, of this process alone. stored: bytes of what is
    put into the object store. Raises ModuleNotFoundError without Ray, and ValueError if the cluster cannot be reached.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        cores = 1 + max(workers or 1, os.cpu_count() or 1)  # one is left for reading
        options |= {"address": "local", "include_dashboard": False}
        options |= {"num_cpus": cores, "object_store_memory": 2 * stored + STORE}
    else:
        options |= {"address": address}
    try:
        with _unheard(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # Ray's processes start with exec at once
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"Ray cannot be started at {address or 'this machine'}: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def check_reachable(address: str) -> None:
    """Raises ValueError unless something listens at HOST:PORT: Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"address is {quoted(address)}: it must be HOST:PORT of a Ray cluster")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"no Ray cluster can be reached at {address}: {error}") from None


@contextmanager
def _unheard() -> Iterator[None]:
    """Drops what native code writes to standard error: Ray says there how much it will log."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def pool(workers: int | None, tasks: int | None = None) -> dict[str, Any]:
    """Returns the options of Dataset.map for actors.

    workers: their number; None: one for each GPU of Ray, or for every CORES cores. tasks: of all of them, which bounds
    their number; None: unknown. Each has a GPU if there are enough.
    """
    import ray
    from ray.data import ActorPoolStrategy

    found = ray.cluster_resources()
    size = workers or int(found.get("GPU", 0)) or max(1, int(found.get("CPU", 1)) // CORES)
    size = min(size, tasks or size)
    return {
        "compute": ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
        "num_cpus": 1,
        "num_gpus": 1 if found.get("GPU", 0) >= size else None,
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Ray Data's log and bars, and the warnings that it has of its own settings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from ray.data import DataContext

        context = DataContext.get_current()
        before = context.enable_progress_bars
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            yield
        finally:
            context.enable_progress_bars = before
