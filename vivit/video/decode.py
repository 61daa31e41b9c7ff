"""Decodes the frames with given numbers from a video file, and as few others as possible.

If index.py gives a timestamp table, frame i is the frame displayed at the i-th timestamp; otherwise it is the i-th
frame that decoding from the start gives. Where the table allows it, the decoder seeks a keyframe. The decoded
timestamps must then equal those of the table. If they do not, the file is decoded from its start. If they still do not,
the file is damaged, and damage.py determines each frame.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from itertools import chain, dropwhile
from pathlib import Path

import av
import numpy as np

from vivit.video.container import FAILURES, Limits, OpenVideo, frames, open_video, packets
from vivit.video.crops import as_stored
from vivit.video.damage import decode_displayed, displayed_frames
from vivit.video.frame import Fit, check_pictures, convert, upright_size
from vivit.video.h264 import FrameNumbers, is_nonreference, length_size
from vivit.video.index import StampTable, Video, from_keyframe, stamp_table

SEEK_OVER = 32  # frames: a shorter distance is decoded, a longer one is skipped by seeking


class ShortVideoError(ValueError):
    """A requested frame is beyond the end of the video; `frames` is the number of frames."""

    def __init__(self, message: str, frames: int) -> None:
        super().__init__(message)
        self.frames = frames


class _StampMismatchError(Exception):
    """The decoded frames do not have the timestamps of the table."""


def read_frames(
    video: Video | str | Path,
    indices: Sequence[int] | np.ndarray,
    *,
    fit: Fit | None = None,
    limits: Limits | None = None,
    threads: int = 1,
    refuse_damaged: bool = False,
) -> np.ndarray:
    """Returns the frames with these numbers, in this order, as uint8[f height width 3].

    indices: int[f], from 0, in any order, repeats allowed. fit: function from the upright size of the first decoded
    frame to a Placement, which scales and crops all frames to one size; None: the stored size. threads: of the decoder,
    0: one per core; as many more threads scale the frames. The pixels do not depend on it.
    A damaged frame is replaced by the frame before it; one warning reports the number of damaged frames in the file.
    refuse_damaged: raise an error instead if damage is met while decoding.
    Raises a one-line error that names the file: ShortVideoError if the file has too few frames, ValueError if it cannot
    be read or indices is empty or negative.
    """
    wanted, order = np.unique(np.asarray(indices, np.int64), return_inverse=True)
    path = video.path if isinstance(video, Video) else str(video)
    if wanted.size == 0 or wanted[0] < 0:
        raise ValueError(f"indices of {path} are {list(indices)[:8]}: they must be frame numbers, from 0")
    table = video.table if isinstance(video, Video) else _table(path, int(wanted[-1]), limits)
    coming = wanted_frames(path, wanted, table, limits, threads, refuse_damaged=refuse_damaged)
    first = next(coming)
    placement = (fit or as_stored)(*upright_size(first[1]))
    check_pictures(path, placement, len(wanted), limits or Limits())
    pictures = np.empty((len(wanted), placement.tall, placement.wide, 3), np.uint8)
    try:
        convert(chain([first], coming), pictures, placement, threads=threads)
    except FAILURES as error:
        raise ValueError(f"{path} has a picture that cannot be converted: {error}") from None
    return pictures if np.array_equal(order, np.arange(len(wanted))) else pictures[order]


def _table(path: str, last: int, limits: Limits | None) -> StampTable | None:
    """Returns the timestamp table up to this frame."""
    with open_video(path, limits=limits) as file:
        return stamp_table(file, last)


def wanted_frames(
    path: str,
    wanted: np.ndarray,
    table: StampTable | None,
    limits: Limits | None,
    threads: int,
    *,
    refuse_damaged: bool = False,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields (row of `wanted`, frame). If a seek led to wrong timestamps, starts again with the first row."""
    if table is None:
        with open_video(path, limits=limits, threads=threads) as file:
            yield from _by_counting(file, wanted.tolist())
        return
    if len(table.ticks) <= wanted[-1]:
        raise _short(path, len(table.ticks), int(wanted[-1]))
    for seeking in (True, False) if table.distinct and wanted[0] >= table.start else ():
        with suppress(_StampMismatchError), open_video(path, limits=limits, threads=threads) as file:
            yield from _by_stamps(file, table, wanted.tolist(), seeking=seeking)
            return
    displayed = displayed_frames(path, limits, refuse_damaged=refuse_damaged)
    if len(displayed.pictures) <= wanted[-1]:
        raise _short(path, len(displayed.pictures), int(wanted[-1]))
    yield from decode_displayed(path, displayed, wanted, limits)


def _by_counting(file: OpenVideo, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields (row, frame) by decoding from the start and counting."""
    row = decoded = 0
    for index, frame in enumerate(frames(file)):
        decoded = index + 1
        if index == wanted[row]:
            yield row, frame
            row += 1
            if row == len(wanted):
                return
    raise _short(file.path, decoded, wanted[-1])


def _by_stamps(
    file: OpenVideo, table: StampTable, wanted: list[int], *, seeking: bool
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields (row, frame) by timestamps. Raises _StampMismatchError if a decoded timestamp is not that of the table."""
    row = 0
    for key, targets in _ranges(table, wanted, seeking=seeking):
        for frame in _decode_range(file, table, key, targets):
            yield row, frame
            row += 1


def _ranges(table: StampTable, wanted: list[int], *, seeking: bool) -> Iterator[tuple[int | None, list[int]]]:
    """Yields (keyframe to seek or None for the start of the file, frames to decode from there)."""
    key, targets, position = None, [], table.start
    for target in wanted:
        before = np.searchsorted(table.keys, target, side="right") - 1
        if seeking and before >= 0 and table.keys[before] > position + SEEK_OVER:
            if targets:
                yield key, targets
            key, targets = int(table.keys[before]), []
        targets.append(target)
        position = target + 1
    yield key, targets


def _decode_range(file: OpenVideo, table: StampTable, key: int | None, targets: list[int]) -> Iterator[av.VideoFrame]:
    """Yields the target frames, decoding them and the frames they refer to from a keyframe (None: from the start).

    Every decoded frame must be intact, with the table's next timestamp, and no timestamp of the table may be missing. A
    frame is yielded after every frame that was decoded before it has passed this check.
    """
    first, coming = table.start, packets(file)
    pending = _PendingFrames(table, first if key is None else key, targets)
    try:
        if key is not None:
            coming = from_keyframe(file, table, key, packets)
        elif first:  # packets before the first keyframe cannot be decoded
            coming = dropwhile(lambda packet: packet.pts != table.ticks[first], coming)
        for frame in _decoded(file, coming, pending):
            yield from pending.add_frame(frame)
    except FAILURES:
        raise _StampMismatchError from None
    yield from pending.finish()


def _decoded(file: OpenVideo, coming: Iterator[av.Packet], pending: "_PendingFrames") -> Iterator[av.VideoFrame]:
    """Yields decoded frames until all targets are decoded and the packet of every timestamp of the table was read."""
    context = file.stream.codec_context
    prefix, numbers = length_size(context), FrameNumbers(context)
    for packet in coming:
        decoding = pending.remaining > 0
        if packet.pts is None or (decoding and (packet.is_corrupt or numbers.gap_before(packet))):
            raise _StampMismatchError
        skipped = packet.pts not in pending.wanted and is_nonreference(packet, prefix)
        pending.add_packet(packet.pts, shown=not packet.is_discard, decoded=decoding and not skipped)
        if decoding:
            if prefix is not None:
                context.skip_frame = "NONREF" if skipped else "DEFAULT"
            yield from file.stream.decode(packet)
        if not pending.missing:
            break
    if pending.missing or pending.remaining:
        raise _StampMismatchError
    yield from file.stream.decode(None)


class _PendingFrames:
    """Tracks frames that are inside the decoder, by timestamp. Ignores those before frame `first`.

    missing: number of timestamps up to the last target whose packets were not read yet. remaining: number of such
    targets.
    """

    def __init__(self, table: StampTable, first: int, targets: list[int]) -> None:
        self.wanted = set(table.ticks[targets].tolist())
        self.missing, self.remaining = targets[-1] - first + 1, len(targets)
        self._start, self._end = int(table.ticks[first]), int(table.ticks[targets[-1]])
        self._inside: list[int] = []  # timestamps in the decoder, a heap
        self._after: dict[int, int] = {}  # for each target in the decoder, the latest timestamp decoded before it
        self._latest = self._start
        self._held: deque[tuple[int, av.VideoFrame]] = deque()

    def add_packet(self, stamp: int, *, shown: bool, decoded: bool) -> None:
        """Records a packet. shown: it contains a displayed frame. decoded: it is passed to the decoder."""
        self.missing -= shown and self._start <= stamp <= self._end
        self.remaining -= stamp in self.wanted
        if shown and decoded and stamp >= self._start:
            if stamp in self.wanted:
                self._after[stamp] = self._latest
            self._latest = max(self._latest, stamp)
            heappush(self._inside, stamp)

    def add_frame(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Checks a decoded frame and yields the targets verified by now. Raises _StampMismatchError if unexpected."""
        stamp = frame.pts
        if stamp is not None and stamp < self._start:
            return  # displayed before the keyframe: refers to packets that seeking skipped
        if frame.is_corrupt or stamp is None or not self._inside or stamp != heappop(self._inside):
            raise _StampMismatchError
        if stamp in self.wanted:
            self._held.append((self._after.pop(stamp), frame))
        while self._held and self._held[0][0] <= stamp:
            yield self._held.popleft()[1]

    def finish(self) -> Iterator[av.VideoFrame]:
        """Yields the remaining targets. Raises _StampMismatchError if the decoder did not return all frames."""
        if self._inside:
            raise _StampMismatchError
        yield from (frame for _, frame in self._held)


def _short(path: str, decoded: int, last: int) -> ShortVideoError:
    return ShortVideoError(f"{path} has {decoded} frames: frame {last} was requested, counting from 0", decoded)
