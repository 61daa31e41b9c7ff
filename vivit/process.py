"""A command as a process: its streams, what Ctrl-C does to it, and the one way in which it ends.

It imports next to nothing, so that Ctrl-C is understood from the first moments on, while JAX is still being imported.
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
PATIENCE = 3.0  # seconds in which what Ctrl-C stops can put things in order: a thread that waits may never do so
LOOK = 0.5  # seconds
SHOW_CURSOR = "\x1b[?25h"  # progress bars hide it
PLAIN = {"…": "...", "→": "->", "←": "<-", **dict(zip("×÷−–—─·²³«»", 'x/----.23""', strict=True))}
NO_TPU = {"TPU_ACCELERATOR_TYPE": "v2-8", "TPU_WORKER_HOSTNAMES": "localhost"}  # what libtpu else complains of

_interrupted = threading.Event()
_said = threading.Lock()  # taken, for good, by who says that the process was interrupted


def run(name: str, command: Callable[[], int]) -> NoReturn:
    """Runs a command in this process, and ends it with the command's exit code, or with 130 after Ctrl-C.

    Native threads (JAX, FFmpeg) can crash an interpreter that is taken down under them: after an interruption the
    process ends at once, with what was written flushed. While the command has a SIGINT handler of its own, that rules.
    """
    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a script's background
            signal.signal(signal.SIGINT, _interrupt)
            _watch(name)
        quiet_libtpu()
        code = _finished(command)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except BaseException:
        if not _interrupted.is_set():
            raise
        code = INTERRUPTED  # whatever became of KeyboardInterrupt on its way
        say_interrupted(name)
    if _interrupted.is_set() or code >= 128:
        flush()
        os._exit(INTERRUPTED if _interrupted.is_set() else code)
    sys.exit(code)


def _finished(command: Callable[[], int]) -> int:
    """The exit code of a command whose output is out."""
    open_streams()
    try:
        code = command()
    except SystemExit as end:  # argparse has said what there is to say
        code = end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:  # the reader, such as head, has what it wanted
        discard_output()
        code = 0
    return code if flush() else code or 2


def open_streams() -> None:
    """Standard streams that are closed lead to nowhere; what an encoding does not have is written in plain letters."""
    for number in range(3):  # else the next file that is opened would be standard output
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
    """Whether all output could be written. What cannot is dropped, else the interpreter would try, and fail, again."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:  # a reader that has gone, such as head, has what it wanted
        discard_output()
        return isinstance(error, BrokenPipeError)
    return True


def discard_output() -> None:
    """From here on nothing is written to a standard output or error that cannot be written to."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def quiet_libtpu() -> None:
    """Where there is no TPU, tells libtpu what it would complain of not knowing before it finds that out."""
    if not glob("/dev/accel[0-9]*") and not glob("/dev/vfio/[0-9]*"):
        for name, value in NO_TPU.items():
            os.environ.setdefault(name, value)


def say_interrupted(name: str) -> None:
    """One line on standard error, once, whoever says it first."""
    if _said.acquire(blocking=False):
        cursor = SHOW_CURSOR if os.isatty(2) else ""
        with contextlib.suppress(OSError):
            os.write(2, f"{cursor}{name}: interrupted\n".encode())


def interrupted() -> bool:
    """Whether this process has been told to stop, so that an error may be what came of it."""
    return _interrupted.is_set()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The handler of SIGINT: an exception the first time, the end the second, or at once where modules are imported.

    There native code (JAX's) may be under way, which crashes on an exception; and nothing is at stake yet.
    """
    if _interrupted.is_set() or _importing(frame):
        say_interrupted("vivit")
        os._exit(INTERRUPTED)
    _interrupted.set()
    sys.unraisablehook = _unraisable
    threading.excepthook = lambda *_: None  # threads whose main thread has gone have nothing to tell
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _unraisable(unraisable: object) -> None:
    """Where Python drops exceptions, such as in destructors, KeyboardInterrupt must not be lost."""
    if getattr(unraisable, "exc_type", None) is KeyboardInterrupt:
        say_interrupted("vivit")
        os._exit(INTERRUPTED)


def _watch(name: str) -> None:
    """Ends the process if it has not ended soon after Ctrl-C, as where compiled code or a thread's end is waited for.

    Not where the command hears the signal itself, which is seen by looking now and then: it may give the signal back
    to the handler here as soon as it has heard it, for the second time to be the end.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        ours = True
        while True:
            if select.select([reader], [], [], LOOK)[0] and os.read(reader, 1)[0] == signal.SIGINT and ours:
                time.sleep(PATIENCE)
                say_interrupted(name)
                os._exit(INTERRUPTED)
            ours = signal.getsignal(signal.SIGINT) is _interrupt

    threading.Thread(target=watch, name="interruptions", daemon=True).start()


def _plain(error: UnicodeError) -> tuple[str, int]:
    """The error handler "vivit": our signs in plain letters, all other characters as Python writes them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    plain = (PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in letters)
    return "".join(plain), error.end
