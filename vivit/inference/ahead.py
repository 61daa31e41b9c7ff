"""Work that goes on in threads while the device computes, in order and never far ahead.

Threads are enough: FFmpeg and the device both work without Python's lock.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from vivit.reference.values import quoted

MOST_THREADS = 1024  # more would start, and wait for each other

Item = TypeVar("Item")
Result = TypeVar("Result")


def check_threads(threads: object) -> None:
    """Raises ValueError unless so many threads can be started."""
    if type(threads) is not int or not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads is {quoted(threads)}: it must be an integer from 1 to {MOST_THREADS}")


def mapped(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int | None = None
) -> Generator[Result, None, None]:
    """function(item) for every item, in order; at most `ahead` results are being made or waiting to be taken.

    ahead: None: as many as threads.
    """
    ahead = ahead or threads
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()


def prefetched(items: Iterable[Item], *, count: int = 2) -> Iterator[Item]:
    """The items of an iterator that runs in a thread of its own, at most `count` ahead; its error is raised here."""
    waiting: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(count)
    stopped = threading.Event()

    def put(more: bool, value: Item | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put((more, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for item in items:
                if not put(True, item):
                    return
            put(False, None)
        except BaseException as error:
            put(False, error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            more, value = waiting.get()
            if more:
                yield value  # pyright: ignore[reportReturnType]
            elif value is None:
                return
            else:
                raise value  # pyright: ignore[reportGeneralTypeIssues]
    finally:
        stopped.set()
        thread.join()
