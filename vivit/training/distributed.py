"""Joins the processes of a distributed training: one per host, or in tests several on one host."""

import jax


def start(address: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Joins this process to the others. Must be called before any other use of JAX; does nothing for a single process.

    address: "host:port" of process 0. processes: the number of processes. process: the index of this one, from 0. If
    all three are None, JAX detects the cluster (TPU pods, Slurm, …); without a cluster this is a single process.

    Raises ValueError if the arguments are incomplete or invalid, RuntimeError if the other processes cannot be reached
    or JAX is already initialised.
    """
    given = [address is not None, processes is not None, process is not None]
    if not any(given):
        _join()
        return
    if not all(given):
        found = f"address is {address!r}, processes {processes!r} and process {process!r}"
        raise ValueError(f"{found}: all of them must be given, or none")
    if type(processes) is not int or processes < 1:
        raise ValueError(f"processes is {processes!r}: it must be a positive integer")
    if type(process) is not int or not 0 <= process < processes:
        raise ValueError(f"process is {process!r}: it must be an integer from 0 to {processes - 1}")
    host, colon, port = str(address).rpartition(":")
    if not (host and colon and port.isdigit()):
        raise ValueError(f"address is {address!r}: it must be host:port, of process 0")
    if processes > 1:
        _join(coordinator_address=address, num_processes=processes, process_id=process)


def _join(**options: str | int | None) -> None:
    try:
        jax.distributed.initialize(**options)  # pyright: ignore[reportArgumentType]
    except ValueError as error:  # "coordinator_address should be defined": there is no cluster to join
        if options:
            raise ValueError(f"the processes do not fit together: {_first_line(error)}") from None
    except RuntimeError as error:
        raise RuntimeError(f"the training's processes were not joined: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
