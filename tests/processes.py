"""Starts two processes of one cluster and collects their output."""

import os
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def free_address():
    """Returns host:port for process 0 to listen on."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def started(program, *arguments):
    """Starts a Python program, which may import from tests/."""
    code = f"import sys; sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]\n{program}"
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    environment = {**os.environ, "XLA_FLAGS": ""}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, **options)


def outputs(both):
    """Returns (standard output, standard error) of both processes, which must exit with 0."""
    try:
        outs = [process.communicate(timeout=300) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], outs[0][1][-2000:] + outs[1][1][-2000:]
    return outs
