"""Determines the frames of a damaged file: which decoded frame is displayed at each timestamp.

The result of decoding a damaged file depends on where decoding starts and on the timing of threads; the pixels of a
frame must not. A damaged file is therefore always decoded by one thread, from the last usable keyframe before the
frame.
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

from vivit.video.container import FAILURES, Limits, OpenVideo, check_size, open_video, packets
from vivit.video.index import StampTable, frame_index, from_keyframe, stamp_table

CACHED_FILES = 4096
START = -1  # in place of a keyframe: the start of the file

_log = logging.getLogger("vivit.data")
_WARN_LOCK = threading.Lock()  # without it, two threads may warn about the same file


class DisplayedFrames(NamedTuple):
    """For every frame number, the decoded frame that is displayed.

    A frame that is not decoded, or is marked as corrupt, is replaced by the last good frame before it (the first good
    frame if there is none). starts: the starts of segments, which are decoded separately: START, keyframes that can be
    decoded, and last the number of frames. segments, pictures: int64[n], the segment of each frame, and the index among
    the frames decoded from it. damaged: number of replaced frames.
    """

    table: StampTable
    starts: list[int]
    segments: np.ndarray
    pictures: np.ndarray
    damaged: int


def displayed_frames(path: str, limits: Limits | None, *, refuse_damaged: bool = False) -> DisplayedFrames:
    """Returns the displayed frames; decodes the whole file on the first call. Warns once if frames are damaged.

    Raises a one-line ValueError that names the file if it cannot be read, if no frame can be decoded, or if frames are
    damaged and refuse_damaged is True.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    displayed = _displayed(path, (status.st_size, status.st_mtime_ns), limits)
    if displayed.damaged:
        message = f"{displayed.damaged} of {len(displayed.pictures)} frames are damaged"
        if refuse_damaged:
            raise ValueError(f"{path}: {message}")
        with _WARN_LOCK:
            _warn(path, message)
    return displayed


@lru_cache(CACHED_FILES)
def _warn(path: str, message: str) -> None:
    _log.warning("%s: %s, each is replaced by the frame before it", path, message)


def decode_displayed(
    path: str, displayed: DisplayedFrames, wanted: np.ndarray, limits: Limits | None
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields (row of `wanted`, frame), in order."""
    with open_video(path, limits=limits) as file:
        for segment, inside in groupby(range(len(wanted)), lambda row: int(displayed.segments[wanted[row]])):
            rows = list(inside)
            coming = enumerate(_decode_segment(file, displayed.table, *displayed.starts[segment : segment + 2]))
            numbers = displayed.pictures[wanted[rows]].tolist()
            needed, held = set(numbers), dict[int, av.VideoFrame]()  # after damage, frames may be late
            for number, same in groupby(zip(numbers, rows, strict=True), lambda pair: pair[0]):
                while number not in held:
                    held |= {each: frame for each, frame in [next(coming)] if each in needed}
                frame = held.pop(number)
                yield from ((row, frame) for _, row in same)


@lru_cache(CACHED_FILES)
def _displayed(path: str, state: tuple[int, int], limits: Limits | None) -> DisplayedFrames:
    """As displayed_frames, without errors for damage. state: size and time of the file, for the cache."""
    with open_video(path, limits=limits) as file:
        table = stamp_table(file)
    if table is None:
        raise ValueError(f"{path} cannot be read as a video: it changed while it was read")
    count = len(table.ticks)
    first = table.start if len(table.keys) else 0  # earlier frames refer to missing ones
    segments, pictures = np.zeros(count, np.int64), np.full(count, -1)
    with open_video(path, limits=limits) as file:
        keys = table.keys.tolist() if table.distinct else []
        starts = [START, *(key for key in keys if _decodes_alone(file, table, key)), count]
    with open_video(path, limits=limits) as file:
        for segment, (key, end) in enumerate(pairwise(starts)):
            for number, frame in enumerate(_decode_segment(file, table, key, end)):
                index = frame_index(table.ticks, frame.pts)
                if index is not None and max(key, first) <= index < end and not frame.is_corrupt:
                    segments[index], pictures[index] = segment, number
    good = np.flatnonzero(pictures >= 0)
    if not len(good):
        raise ValueError(f"{path} cannot be read as a video: none of its {count} frames can be decoded")
    shown = good[np.maximum(np.searchsorted(good, np.arange(count), side="right") - 1, 0)]
    return DisplayedFrames(table, starts, segments[shown], pictures[shown], count - len(good))


def _decodes_alone(file: OpenVideo, table: StampTable, key: int) -> bool:
    """Returns True if the keyframe can be decoded alone."""
    with suppress(*FAILURES):
        for packet in from_keyframe(file, table, key):
            frames = [*file.stream.decode(packet), *file.stream.decode(None)]
            whole = [frame for frame in frames if frame.pts == table.ticks[key] and not frame.is_corrupt]
            return bool(whole) and not packet.is_corrupt
    return False


def _decode_segment(file: OpenVideo, table: StampTable, key: int, end: int) -> Iterator[av.VideoFrame]:
    """Yields the frames decoded from a keyframe until frame `end`, and some beyond. START: from a new file's start."""
    coming = packets(file) if key == START else from_keyframe(file, table, key)
    missing = end - max(key, 0)  # timestamps whose packets are still to be read
    for packet in coming if missing else ():
        with suppress(*FAILURES):
            for frame in file.stream.decode(packet):
                check_size(file.path, frame.height, frame.width, file.limits)
                yield frame
        index = None if packet.is_discard else frame_index(table.ticks, packet.pts)
        missing -= index is not None and max(key, 0) <= index < end
        if not missing and table.distinct:
            break
    with suppress(*FAILURES):
        yield from file.stream.decode(None)
