"""Runs a command as a process: standard streams, Ctrl-C, and the exit code.

It imports little, so that Ctrl-C is handled from the start, even while JAX is being imported.
"""

import codecs
import contextlib
import io
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from glob import glob
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
GRACE = 3.0  # seconds for cleaning up after Ctrl-C; a waiting thread may never end
POLL = 0.5  # seconds
SHOW_CURSOR = "\x1b[?25h"  # progress bars hide it
PLAIN = {"…": "...", "→": "->", "←": "<-", **dict(zip("×÷−–—─·²³«»", 'x/----.23""', strict=True))}
NO_TPU = {"TPU_ACCELERATOR_TYPE": "v2-8", "TPU_WORKER_HOSTNAMES": "localhost"}  # libtpu warns if they are missing

_interrupted = threading.Event()
_reported = threading.Lock()  # acquired once, by the thread that reports the interruption


def run(name: str, command: Callable[[], int]) -> NoReturn:
    """Runs a command in this process, and exits with the command's exit code, or with 130 after Ctrl-C.

    Native threads (JAX, FFmpeg) can crash while the interpreter shuts down. So after an interruption the process
    flushes its output and exits immediately. While the command has its own SIGINT handler, that handler applies.
    """
    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # ignored in a script's background jobs
            signal.signal(signal.SIGINT, _interrupt)
            _watch(name)
        quiet_libtpu()
        code = _finished(command)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except BaseException:
        if not _interrupted.is_set():
            raise
        code = INTERRUPTED  # any exception may have replaced KeyboardInterrupt
        report_interrupted(name)
    if _interrupted.is_set() or code >= 128:
        flush()
        os._exit(INTERRUPTED if _interrupted.is_set() else code)
    sys.exit(code)


def _finished(command: Callable[[], int]) -> int:
    """Returns the exit code of a command, with its output flushed."""
    open_streams()
    try:
        code = command()
    except SystemExit as end:  # argparse has printed its message
        code = end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        discard_output()
        code = 0
    return code if flush() else code or 2


def open_streams() -> None:
    """Opens /dev/null for closed standard streams; characters that an encoding lacks are replaced by ASCII."""
    for number in range(3):  # otherwise the next opened file would become standard output
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    codecs.register_error("vivit", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="vivit")


def flush() -> bool:
    """Returns whether all output could be written.

    Output that could not is dropped, so that the interpreter does not retry.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:  # the reader, such as head, may have closed the pipe
        discard_output()
        return isinstance(error, BrokenPipeError)
    return True


def discard_output() -> None:
    """Redirects standard output and error to /dev/null, each if it cannot be written to."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def quiet_libtpu() -> None:
    """Sets the variables that libtpu warns about on machines without a TPU."""
    if not glob("/dev/accel[0-9]*") and not glob("/dev/vfio/[0-9]*"):
        for name, value in NO_TPU.items():
            os.environ.setdefault(name, value)


def report_interrupted(name: str) -> None:
    """Prints one line on standard error, once per process."""
    if _reported.acquire(blocking=False):
        cursor = SHOW_CURSOR if os.isatty(2) else ""
        with contextlib.suppress(OSError):
            os.write(2, f"{cursor}{name}: interrupted\n".encode())


def interrupted() -> bool:
    """Returns whether this process has received Ctrl-C, which may have caused an error."""
    return _interrupted.is_set()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Handles SIGINT: raises KeyboardInterrupt; exits immediately at the second signal, or during an import.

    An exception during an import can crash JAX's native code, and no work is lost yet.
    """
    if _interrupted.is_set() or _importing(frame):
        report_interrupted("vivit")
        os._exit(INTERRUPTED)
    _interrupted.set()
    sys.unraisablehook = _unraisable
    threading.excepthook = lambda *_: None  # errors of other threads no longer matter
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _unraisable(unraisable: object) -> None:
    """Handles exceptions that Python drops, such as in destructors: exits for KeyboardInterrupt."""
    if getattr(unraisable, "exc_type", None) is KeyboardInterrupt:
        report_interrupted("vivit")
        os._exit(INTERRUPTED)


def _watch(name: str) -> None:
    """Ends the process GRACE seconds after Ctrl-C, in case it waits for compiled code or a thread.

    Not while the command has its own SIGINT handler, which is checked every POLL seconds: the command may restore this
    handler as soon as it has received the first signal, so that the second one ends the process.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        ours = True
        while True:
            if select.select([reader], [], [], POLL)[0] and os.read(reader, 1)[0] == signal.SIGINT and ours:
                time.sleep(GRACE)
                report_interrupted(name)
                os._exit(INTERRUPTED)
            ours = signal.getsignal(signal.SIGINT) is _interrupt

    threading.Thread(target=watch, name="interruptions", daemon=True).start()


def _plain(error: UnicodeError) -> tuple[str, int]:
    """The error handler "vivit": replaces our symbols by ASCII, and escapes other characters as Python does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    plain = (PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in letters)
    return "".join(plain), error.end
