"""From a video file and the numbers of frames to their pixels: only what is needed is decoded.

Frame i is the i-th that decoding from the start yields. A keyframe is sought only where the table of stamps, from
probing.py, allows it, and what then comes out must carry the very stamps of the table; if it does not, the file is
decoded from its start and frames are counted.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import av
import numpy as np

from vivit.data.converting import convert
from vivit.data.opening import FAILURES, Limits, Opened, frames, opened, packets
from vivit.data.pictures import Fit, upright_size
from vivit.data.probing import Table, Video, stamp_table
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
) -> np.ndarray:
    """The frames of these numbers, in this order, as uint8[f height width 3].

    indices: int[f], from 0, in any order, repeated or not. fit: how a picture is scaled and cut, from the upright size
    of the first frame taken; all are brought to that size. None: as stored. threads: of the decoder, 0: all cores; the
    pictures are scaled in as many others.
    Raises ShortVideoError if the file has too few frames, ValueError if it cannot be read or indices make no sense;
    one line that names the file.
    """
    wanted, order = np.unique(np.asarray(indices, np.int64), return_inverse=True)
    path = video.path if isinstance(video, Video) else str(video)
    if wanted.size == 0 or wanted[0] < 0:
        raise ValueError(f"indices of {path} are {list(indices)[:8]}: they must be numbers of frames, at least one")
    table = video.table if isinstance(video, Video) else _table(path, int(wanted[-1]), limits)
    coming = wanted_frames(path, wanted, table, limits, threads)
    first = next(coming)
    placement = (fit or as_stored)(*upright_size(first[1]))
    pictures = np.empty((len(wanted), placement.tall, placement.wide, 3), np.uint8)
    try:
        convert(chain([first], coming), pictures, placement, threads=threads)
    except FAILURES as error:
        raise ValueError(f"{path} has a picture that cannot be converted: {error}") from None
    return pictures if np.array_equal(order, np.arange(len(wanted))) else pictures[order]


def _table(path: str, last: int, limits: Limits | None) -> Table | None:
    """The table as far as this frame, where jumping could be worth the pass over the file."""
    if last <= SEEK_OVER * 2:
        return None
    with opened(path, limits=limits, threads=1) as file:
        return stamp_table(file, last)


def wanted_frames(
    path: str, wanted: np.ndarray, table: Table | None, limits: Limits | None, threads: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Pairs of a row of `wanted` and its frame; after a jump that misled, all of them once more."""
    if table is not None and len(table.ticks) <= wanted[-1]:
        raise _short(path, len(table.ticks), int(wanted[-1]))
    if table is not None:
        try:
            with opened(path, limits=limits, threads=threads) as file:
                yield from _by_keyframes(file, table, wanted.tolist())
            return
        except _MisledError:
            pass
    with opened(path, limits=limits, threads=threads) as file:
        yield from _by_counting(file, wanted.tolist())


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


def _by_keyframes(file: Opened, table: Table, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    coming = _checked(file, table, 0, packets(file), wanted)
    position = 0  # of the next frame that `coming` yields
    for row, target in enumerate(wanted):
        before = np.searchsorted(table.keys, target, side="right") - 1
        key = int(table.keys[before]) if before >= 0 else 0
        if key > position + SEEK_OVER:
            coming = _from_keyframe(file, table, key, wanted)
        for index, frame in coming:
            position = index + 1
            if index == target:
                yield row, frame
                break
        else:
            raise _MisledError


def _from_keyframe(file: Opened, table: Table, key: int, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames with their numbers, from this keyframe or one before it."""
    try:
        file.container.seek(int(table.ticks[key]), stream=file.stream)
        coming = packets(file)
        first = next(coming)
    except (*FAILURES, StopIteration):
        raise _MisledError from None
    landed = int(np.searchsorted(table.ticks, first.pts)) if first.pts is not None else len(table.ticks)
    if not first.is_keyframe or landed > key or table.ticks[landed] != first.pts:
        raise _MisledError
    return _checked(file, table, landed, chain([first], coming), wanted)


def _checked(
    file: Opened, table: Table, position: int, coming: Iterator[av.Packet], wanted: list[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decodes what is wanted or referred to; every frame must carry the stamp that the table has for it."""
    ticks, spared = table.ticks, set[int]()
    start = ticks[position]
    try:
        for frame in _decoded(file, coming, set(ticks[wanted].tolist()), spared):
            if frame.pts is not None and frame.pts < start:
                continue  # shown before the keyframe: needs what was jumped over
            while position < len(ticks) and int(ticks[position]) in spared:
                position += 1
            if frame.is_corrupt or position >= len(ticks) or frame.pts != ticks[position]:
                raise _MisledError
            yield position, frame
            position += 1
    except FAILURES:
        raise _MisledError from None


def _decoded(file: Opened, coming: Iterator[av.Packet], wanted: set[int], spared: set[int]) -> Iterator[av.VideoFrame]:
    """wanted: stamps. spared: receives the stamps of frames that are not decoded."""
    context = file.stream.codec_context
    prefix = prefix_of(context)
    for packet in coming:
        stamp = packet.pts
        spare = stamp is not None and stamp not in wanted and can_be_spared(packet, prefix)
        if stamp is not None and spare:
            spared.add(stamp)
        if prefix is not None:
            context.skip_frame = "NONREF" if spare else "DEFAULT"
        yield from file.stream.decode(packet)
    yield from file.stream.decode(None)


def _short(path: str, decoded: int, last: int) -> ShortVideoError:
    return ShortVideoError(f"{path} has {decoded} frames: frame {last} is asked for, they count from 0", decoded)
