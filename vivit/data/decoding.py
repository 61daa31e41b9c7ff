"""From a video file and the numbers of frames to their pixels: only what is needed is decoded.

Where the table of stamps from probing.py is to be had, frame i is what is on the screen at the i-th stamp; elsewhere it
is the i-th picture that decoding from the start yields. A keyframe is sought where the table allows it, and what then
comes out must carry the very stamps of the table. If it does not, the file is decoded from its start; if they are not
there either, the file is damaged, and screen.py says which picture each frame is.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from itertools import chain, dropwhile
from pathlib import Path

import av
import numpy as np

from vivit.data.converting import convert
from vivit.data.numbering import Numbering
from vivit.data.opening import FAILURES, Limits, Opened, frames, opened, packets
from vivit.data.pictures import Fit, check_pictures, upright_size
from vivit.data.probing import Table, Video, from_keyframe, stamp_table
from vivit.data.screen import screen_of, shown_frames
from vivit.data.sparing import can_be_spared, prefix_of
from vivit.data.views import as_stored

SEEK_OVER = 32  # frames that are rather decoded than jumped over


class ShortVideoError(ValueError):
    """A video has fewer frames than were asked for; `frames` says how many."""

    def __init__(self, message: str, frames: int) -> None:
        super().__init__(message)
        self.frames = frames


class _MisledError(Exception):
    """What comes after a keyframe is not what the table of stamps says."""


def read_frames(
    video: Video | str | Path,
    indices: Sequence[int] | np.ndarray,
    *,
    fit: Fit | None = None,
    limits: Limits | None = None,
    threads: int = 1,
    refuse_damaged: bool = False,
) -> np.ndarray:
    """The frames of these numbers, in this order, as uint8[f height width 3].

    indices: int[f], from 0, in any order, repeated or not. fit: how a picture is scaled and cut, from the upright size
    of the first frame taken; all are brought to that size. None: as stored. threads: of the decoder, 0: all cores; the
    pictures are scaled in as many others; the pixels do not depend on it.
    A frame that is damaged is the one before it, and a warning says once how many of the file are. refuse_damaged: it
    is an error instead, where damage is met on the way.
    Raises ShortVideoError if the file has too few frames, ValueError if it cannot be read or indices make no sense;
    one line that names the file.
    """
    wanted, order = np.unique(np.asarray(indices, np.int64), return_inverse=True)
    path = video.path if isinstance(video, Video) else str(video)
    if wanted.size == 0 or wanted[0] < 0:
        raise ValueError(f"indices of {path} are {list(indices)[:8]}: they must be numbers of frames, at least one")
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


def _table(path: str, last: int, limits: Limits | None) -> Table | None:
    """The table as far as this frame."""
    with opened(path, limits=limits) as file:
        return stamp_table(file, last)


def wanted_frames(
    path: str,
    wanted: np.ndarray,
    table: Table | None,
    limits: Limits | None,
    threads: int,
    *,
    refuse_damaged: bool = False,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Pairs of a row of `wanted` and its frame; after a jump that misled, all of them once more."""
    if table is None:
        with opened(path, limits=limits, threads=threads) as file:
            yield from _by_counting(file, wanted.tolist())
        return
    if len(table.ticks) <= wanted[-1]:
        raise _short(path, len(table.ticks), int(wanted[-1]))
    for jumping in (True, False) if table.distinct and wanted[0] >= table.start else ():
        with suppress(_MisledError), opened(path, limits=limits, threads=threads) as file:
            yield from _by_stamps(file, table, wanted.tolist(), jumping=jumping)
            return
    screen = screen_of(path, limits, refuse_damaged=refuse_damaged)
    if len(screen.pictures) <= wanted[-1]:
        raise _short(path, len(screen.pictures), int(wanted[-1]))
    yield from shown_frames(path, screen, wanted, limits)


def _by_counting(file: Opened, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    row = decoded = 0
    for index, frame in enumerate(frames(file)):
        decoded = index + 1
        if index == wanted[row]:
            yield row, frame
            row += 1
            if row == len(wanted):
                return
    raise _short(file.path, decoded, wanted[-1])


def _by_stamps(file: Opened, table: Table, wanted: list[int], *, jumping: bool) -> Iterator[tuple[int, av.VideoFrame]]:
    """Raises _MisledError if anything that is decoded on the way is not what the table says."""
    row = 0
    for key, targets in _runs(table, wanted, jumping=jumping):
        for frame in _run(file, table, key, targets):
            yield row, frame
            row += 1


def _runs(table: Table, wanted: list[int], *, jumping: bool) -> Iterator[tuple[int | None, list[int]]]:
    """What is decoded in one go: from which keyframe on, None: the start of the file, and the frames wanted there."""
    key, targets, position = None, [], table.start
    for target in wanted:
        before = np.searchsorted(table.keys, target, side="right") - 1
        if jumping and before >= 0 and table.keys[before] > position + SEEK_OVER:
            if targets:
                yield key, targets
            key, targets = int(table.keys[before]), []
        targets.append(target)
        position = target + 1
    yield key, targets


def _run(file: Opened, table: Table, key: int | None, targets: list[int]) -> Iterator[av.VideoFrame]:
    """The frames of these numbers, decoding what is wanted or referred to from a keyframe on; None: from the start.

    Every picture that is decoded must come out whole, under its stamp and in order, and no stamp of the table may be
    missing. A frame is yielded when all that was decoded before it has come out so.
    """
    first, coming = table.start, packets(file)
    awaited = _Awaited(table, first if key is None else key, targets)
    try:
        if key is not None:
            coming = from_keyframe(file, table, key, packets)
        elif first:  # what is stored before the first keyframe cannot be decoded
            coming = dropwhile(lambda packet: packet.pts != table.ticks[first], coming)
        for frame in _decoded(file, coming, awaited):
            yield from awaited.came(frame)
    except FAILURES:
        raise _MisledError from None
    yield from awaited.rest()


def _decoded(file: Opened, coming: Iterator[av.Packet], awaited: "_Awaited") -> Iterator[av.VideoFrame]:
    """What comes out until all that is wanted is decoded; packets are read on until no stamp is missing."""
    context = file.stream.codec_context
    prefix, numbering = prefix_of(context), Numbering(context)
    for packet in coming:
        decoding = awaited.ahead > 0
        if packet.pts is None or (decoding and (packet.is_corrupt or numbering.lost_before(packet))):
            raise _MisledError
        spare = packet.pts not in awaited.wanted and can_be_spared(packet, prefix)
        awaited.stored(packet.pts, shown=not packet.is_discard, decoded=decoding and not spare)
        if decoding:
            if prefix is not None:
                context.skip_frame = "NONREF" if spare else "DEFAULT"
            yield from file.stream.decode(packet)
        if not awaited.missing:
            break
    if awaited.missing or awaited.ahead:
        raise _MisledError
    yield from file.stream.decode(None)


class _Awaited:
    """Pictures on their way through a decoder, by their stamps; those before frame `first` are not looked at.

    missing: how many stamps up to the last wanted one are not yet stored. ahead: how many of the wanted ones.
    """

    def __init__(self, table: Table, first: int, targets: list[int]) -> None:
        self.wanted = set(table.ticks[targets].tolist())
        self.missing, self.ahead = targets[-1] - first + 1, len(targets)
        self._start, self._end = int(table.ticks[first]), int(table.ticks[targets[-1]])
        self._inside: list[int] = []  # a heap
        self._after: dict[int, int] = {}  # of a wanted one the latest stamp that was decoded before it
        self._latest = self._start
        self._held: deque[tuple[int, av.VideoFrame]] = deque()

    def stored(self, stamp: int, *, shown: bool, decoded: bool) -> None:
        """A packet has come. shown: whether there is a picture to be seen. decoded: whether it will be decoded."""
        self.missing -= shown and self._start <= stamp <= self._end
        self.ahead -= stamp in self.wanted
        if shown and decoded and stamp >= self._start:
            if stamp in self.wanted:
                self._after[stamp] = self._latest
            self._latest = max(self._latest, stamp)
            heappush(self._inside, stamp)

    def came(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Yields the wanted frames that are now known to be right. Raises _MisledError if this one is not expected."""
        stamp = frame.pts
        if stamp is not None and stamp < self._start:
            return  # shown before the keyframe: needs what was jumped over
        if frame.is_corrupt or stamp is None or not self._inside or stamp != heappop(self._inside):
            raise _MisledError
        if stamp in self.wanted:
            self._held.append((self._after.pop(stamp), frame))
        while self._held and self._held[0][0] <= stamp:
            yield self._held.popleft()[1]

    def rest(self) -> Iterator[av.VideoFrame]:
        """Yields the others once all have come out. Raises _MisledError if they have not."""
        if self._inside:
            raise _MisledError
        yield from (frame for _, frame in self._held)


def _short(path: str, decoded: int, last: int) -> ShortVideoError:
    return ShortVideoError(f"{path} has {decoded} frames: frame {last} is asked for, they count from 0", decoded)
