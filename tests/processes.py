"""Two processes of one cluster, as tests start them: where they meet, and what comes of them."""

import socket


def free_address():
    """host:port where process 0 can be met."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def outputs(both):
    """(standard output, standard error) of both processes, which must end well."""
    try:
        outs = [process.communicate(timeout=300) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], outs[0][1][-2000:] + outs[1][1][-2000:]
    return outs
