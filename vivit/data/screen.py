"""What a damaged file shows: which decoded picture is on the screen at each of its stamps.

What becomes of damage depends on where decoding began and on the timing of threads, and a frame must depend on neither.
So the pictures of a damaged file are those that one thread yields from the keyframe before them on.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import groupby, pairwise
from typing import NamedTuple

import av
import numpy as np

from vivit.data.opening import FAILURES, Limits, Opened, check_size, opened, packets
from vivit.data.probing import Table, from_keyframe, number_of, stamp_table

REMEMBERED = 4096  # files
START = -1  # in the place of a keyframe: the start of the file

_log = logging.getLogger("vivit.data")
_SAYING = threading.Lock()  # two threads may meet the same damage at once


class Screen(NamedTuple):
    """For every frame the picture that it is: the keyframe from which it is decoded, and its number from there on.

    A frame whose own picture does not come out, or is marked as corrupt, is the picture before it (before the first
    good one: that one). parts, pictures: int64[n], from which of `begins` on, and which one. begins: START, keyframes
    that can be decoded, and the number of frames. damaged: how many frames are not their own pictures.
    """

    table: Table
    begins: list[int]
    parts: np.ndarray
    pictures: np.ndarray
    damaged: int


def screen_of(path: str, limits: Limits | None, *, refuse_damaged: bool = False) -> Screen:
    """Decodes the whole file, the first time. A warning says once how many of its frames are damaged, if any is.

    Raises ValueError, in one line that names the file, if it cannot be read, if no picture can be decoded, or if
    frames are damaged and that is to be refused.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    screen = _screen(path, (status.st_size, status.st_mtime_ns), limits)
    if screen.damaged:
        said = f"{screen.damaged} of {len(screen.pictures)} frames are damaged"
        if refuse_damaged:
            raise ValueError(f"{path}: {said}")
        with _SAYING:
            _warn(path, said)
    return screen


@lru_cache(REMEMBERED)
def _warn(path: str, said: str) -> None:
    _log.warning("%s: %s, each is shown as the one before it", path, said)


def shown_frames(
    path: str, screen: Screen, wanted: np.ndarray, limits: Limits | None
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Pairs of a row of `wanted` and its frame, in order."""
    with opened(path, limits=limits) as file:
        for part, inside in groupby(range(len(wanted)), lambda row: int(screen.parts[wanted[row]])):
            rows = list(inside)
            coming = enumerate(_pictures(file, screen.table, *screen.begins[part : part + 2]))
            numbers = screen.pictures[wanted[rows]].tolist()
            needed, held = set(numbers), dict[int, av.VideoFrame]()  # after damage some come out late
            for number, same in groupby(zip(numbers, rows, strict=True), lambda pair: pair[0]):
                while number not in held:
                    held |= {each: frame for each, frame in [next(coming)] if each in needed}
                frame = held.pop(number)
                yield from ((row, frame) for _, row in same)


@lru_cache(REMEMBERED)
def _screen(path: str, state: tuple[int, int], limits: Limits | None) -> Screen:
    """state: what changes when the file does."""
    with opened(path, limits=limits) as file:
        table = stamp_table(file)
    if table is None:
        raise ValueError(f"{path} cannot be read as a video: it was changed meanwhile")
    count = len(table.ticks)
    first = table.start if len(table.keys) else 0  # what is shown before refers to what is not there
    parts, pictures = np.zeros(count, np.int64), np.full(count, -1)
    with opened(path, limits=limits) as file:
        keys = table.keys.tolist() if table.distinct else []
        begins = [START, *(key for key in keys if _comes_out(file, table, key)), count]
    with opened(path, limits=limits) as file:
        for part, (key, end) in enumerate(pairwise(begins)):
            for number, frame in enumerate(_pictures(file, table, key, end)):
                index = number_of(table.ticks, frame.pts)
                if index is not None and max(key, first) <= index < end and not frame.is_corrupt:
                    parts[index], pictures[index] = part, number
    good = np.flatnonzero(pictures >= 0)
    if not len(good):
        raise ValueError(f"{path} cannot be read as a video: none of its {count} pictures can be decoded")
    shown = good[np.maximum(np.searchsorted(good, np.arange(count), side="right") - 1, 0)]
    return Screen(table, begins, parts[shown], pictures[shown], count - len(good))


def _comes_out(file: Opened, table: Table, key: int) -> bool:
    """Whether a keyframe is one: decoded alone, it comes out."""
    with suppress(*FAILURES):
        for packet in from_keyframe(file, table, key):
            frames = [*file.stream.decode(packet), *file.stream.decode(None)]
            whole = [frame for frame in frames if frame.pts == table.ticks[key] and not frame.is_corrupt]
            return bool(whole) and not packet.is_corrupt
    return False


def _pictures(file: Opened, table: Table, key: int, end: int) -> Iterator[av.VideoFrame]:
    """All that comes out from this keyframe on until frame `end`, and some beyond; START: of a file just opened."""
    coming = packets(file) if key == START else from_keyframe(file, table, key)
    missing = end - max(key, 0)  # stamps that are not yet stored
    for packet in coming if missing else ():
        with suppress(*FAILURES):
            for frame in file.stream.decode(packet):
                check_size(file.path, frame.height, frame.width, file.limits)
                yield frame
        index = None if packet.is_discard else number_of(table.ticks, packet.pts)
        missing -= index is not None and max(key, 0) <= index < end
        if not missing and table.distinct:
            break
    with suppress(*FAILURES):
        yield from file.stream.decode(None)
