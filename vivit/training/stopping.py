"""Handles SIGTERM, SIGINT (Ctrl-C) and SIGHUP during a training run: the run ends between two updates.

A second SIGINT ends the process immediately. SIGTERM and SIGHUP may arrive twice, for example when a terminal and its
shell both hang up.
"""

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignalReceived(Exception):
    """A signal arrived where stopping immediately loses nothing. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class StopListener:
    """Records the first signal that arrives. number: of that signal; 0: none yet."""

    def __init__(self) -> None:
        self.number = 0
        self._interruptible = False
        self._handlers = {}

    @contextmanager
    def interruptible(self, allowed: bool = True) -> Iterator[None]:
        """Raises StopSignalReceived for a signal that arrives inside this block or arrived before, if `allowed`.

        Elsewhere a signal is only recorded.
        """
        self._interruptible = allowed
        try:
            if self.number and allowed:
                raise StopSignalReceived(self.number)
            yield
        finally:
            self._interruptible = False

    def listen(self) -> None:
        """Installs the handlers. Signals that the process ignores, as under nohup, stay ignored."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Restores the previous handlers."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _handle(self, number: int, frame: object) -> None:
        first, self.number = not self.number, self.number or number
        if signal.SIGINT in self._handlers:
            signal.signal(signal.SIGINT, self._handlers[signal.SIGINT])
        if number == signal.SIGHUP:
            _discard_terminal_output()
        if first:
            with contextlib.suppress(OSError):  # print() is not reentrant: a signal may interrupt it
                os.write(2, f"{signal.Signals(number).name}: saving, then ending; Ctrl-C ends at once\n".encode())
        if self._interruptible:
            raise StopSignalReceived(number)


@contextmanager
def listen_for_stop_signals() -> Iterator[StopListener]:
    """Listens for signals inside this block, in the main thread only: Python handles signals in no other."""
    listener = StopListener()
    if threading.current_thread() is threading.main_thread():
        listener.listen()
    try:
        yield listener
    finally:
        listener.restore()


def _discard_terminal_output() -> None:
    """Redirects output to a terminal that has closed to /dev/null, since writing to it would raise an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(output).st_mode):
                os.dup2(nowhere, output)
    os.close(nowhere)
