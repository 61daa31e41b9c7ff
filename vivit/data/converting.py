"""Scaling pictures in other threads while the next ones are still being decoded.

FFmpeg does both without Python's lock. What the pixels of one picture become is pictures.py's question.
"""

import os
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import av
import numpy as np

from vivit.data.pictures import Placement, Tables, fill

MOST_THREADS = 8  # scaling a picture takes about as long as decoding it
SMALL = 200_000  # pixels, before and after: of fewer, handing a picture over takes longer than scaling it
WAITING = 2  # pictures a thread that may wait: they stay in memory until they are scaled


def convert(
    coming: Iterable[tuple[int, av.VideoFrame]], pictures: np.ndarray, placement: Placement, *, threads: int
) -> None:
    """Fills pictures, uint8[f tall wide 3], at the rows that come, in any order; a row that comes again is replaced.

    threads: beside the caller's, which decodes; 0: as many as there are cores. Raises what `coming` and FFmpeg raise.
    """
    threads = min(MOST_THREADS, threads or os.cpu_count() or 1)
    local = threading.local()

    def one(row: int, frame: av.VideoFrame) -> None:
        if not hasattr(local, "tables"):
            local.tables = Tables()
        fill(pictures[row], frame, placement, local.tables)

    waiting: deque[Future[None]] = deque()
    last = -1
    with ThreadPoolExecutor(threads, thread_name_prefix="vivit-convert") as pool:
        for row, frame in coming:
            small = frame.height * frame.width + placement.height * placement.width < SMALL
            # of the same row, what comes later counts
            room = 0 if small or row <= last else WAITING * threads - 1
            while len(waiting) > room:
                waiting.popleft().result()
            if small:
                one(row, frame)
            else:
                waiting.append(pool.submit(one, row, frame))
            last = row
        for future in waiting:
            future.result()
