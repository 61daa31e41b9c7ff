"""Runs work in threads while the device computes: results in order, a limited number ahead.

Threads are sufficient: FFmpeg and the device work without Python's lock.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from vivit.reference.values import quoted

MAX_THREADS = 1024  # more would only wait for each other

Item = TypeVar("Item")
Result = TypeVar("Result")


def check_threads(threads: object) -> None:
    """Raises ValueError unless threads is an integer from 1 to MAX_THREADS."""
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads is {quoted(threads)}: it must be an integer from 1 to {MAX_THREADS}")


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int | None = None
) -> Generator[Result, None, None]:
    """Yields function(item) for every item, in order. At most `ahead` results are in progress or waiting.

    ahead: None: the number of threads.
    """
    ahead = ahead or threads
    waiting: deque[Future[Result]] = deque()
    own: set[int] = set()
    pool = ThreadPoolExecutor(threads, initializer=lambda: own.add(threading.get_ident()))
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
        pool.shutdown(wait=threading.get_ident() not in own)  # whose garbage may be collected in one of its threads


def prefetch(items: Iterable[Item], *, count: int = 2) -> Iterator[Item]:
    """Yields the items of an iterator that runs in another thread, at most `count` ahead. Re-raises its error."""
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
