"""How a run is told to end: SIGTERM, SIGINT (Ctrl-C) and SIGHUP are heard between updates.

A second SIGINT ends the process at once. The others may come twice, as when a terminal and its shell both hang up.
"""

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class ToldToStop(Exception):
    """A signal came, where nothing is lost by stopping at once."""

    def __init__(self, number: int) -> None:
        super().__init__(f"told to stop by {signal.Signals(number).name}")
        self.number = number


class Told:
    """What was heard. number: of the signal, 0: none yet."""

    def __init__(self) -> None:
        self.number = 0
        self._at_once = False
        self._before = {}

    @contextmanager
    def at_once(self, allowed: bool = True) -> Iterator[None]:
        """If allowed, a signal that comes in here, or came before, raises ToldToStop instead of being heard later."""
        self._at_once = allowed
        try:
            if self.number and allowed:
                raise ToldToStop(self.number)
            yield
        finally:
            self._at_once = False

    def listen(self) -> None:
        """Begins to listen. A signal that the process was told to ignore, as under nohup, stays ignored."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._hear)

    def leave(self) -> None:
        """Signals do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _hear(self, number: int, frame: object) -> None:
        first, self.number = not self.number, self.number or number
        if signal.SIGINT in self._before:
            signal.signal(signal.SIGINT, self._before[signal.SIGINT])
        if number == signal.SIGHUP:
            _forget_terminal()
        if first:
            with contextlib.suppress(OSError):  # print() could be in the middle of a line
                os.write(2, f"{signal.Signals(number).name}: saving, then ending; Ctrl-C ends at once\n".encode())
        if self._at_once:
            raise ToldToStop(number)


@contextmanager
def told_to_stop() -> Iterator[Told]:
    """Listens while it lasts; signals are only heard in a program's main thread."""
    told = Told()
    if threading.current_thread() is threading.main_thread():
        told.listen()
    try:
        yield told
    finally:
        told.leave()


def _forget_terminal() -> None:
    """Lets what is printed to a terminal that has gone go nowhere: writing there would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(output).st_mode):
                os.dup2(nowhere, output)
    os.close(nowhere)
