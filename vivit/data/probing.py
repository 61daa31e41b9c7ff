"""What a video file holds: when each frame is shown, how large it is, and whether a keyframe can be sought.

Declared lengths are never trusted. Frames are counted by demuxing alone where one packet is one frame; elsewhere the
file is decoded once from start to end.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from vivit.data.opening import FAILURES, Limits, Opened, frames, opened, packets
from vivit.data.pictures import upright_size

# codecs whose every packet shows one frame; vp8 and mpeg4 have packets that show none
ONE_FRAME_A_PACKET = {"av1", "dnxhd", "ffv1", "h264", "hevc", "libdav1d", "mjpeg", "prores", "vp9"}
# containers whose stamps are those of decoding
UNSTAMPED = {"avi"}
REORDERED = 16  # frames: further no codec moves a picture from its place in decoding to that on the screen
USUAL_RATE = 25.0  # for a file without stamps that declares no rate


class Table(NamedTuple):
    """The presentation stamps of a file, as far as it was demuxed: frame i is what is on the screen at the i-th.

    ticks: int64[n], strictly increasing, in the stream's time base. keys: int64[k], frames at which decoding can start.
    start: the first frame that decoding from the start of the file can yield. distinct: no two packets have one stamp.
    """

    ticks: np.ndarray
    keys: np.ndarray
    start: int
    distinct: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Video:
    """What is known of one video file.

    stamps: float64[n], seconds since the first frame, one a frame. height, width: upright. rate: frames a second.
    table: None if the file has to be decoded from its start.
    """

    path: str
    stamps: np.ndarray
    height: int
    width: int
    rate: float
    table: Table | None


def probe(path: str | Path, *, limits: Limits | None = None, threads: int = 1) -> Video:
    """Counts and times the frames of a file, without decoding more than one of them if its stamps allow that.

    threads: of the decoder, 0: all cores. Raises ValueError, in one line that names the file, if it cannot be read as
    a video or has no frame.
    """
    with opened(path, limits=limits, threads=threads) as file:
        shown: list[av.VideoFrame] = []
        table = stamp_table(file, shown=shown)
        if table is not None and shown and number_of(table.ticks, shown[0].pts) is not None:
            return _video(file, shown[0], table.ticks, table)
    with opened(path, limits=limits, threads=threads) as file:
        coming = frames(file)
        first = next(coming, None)
        if first is None:
            raise ValueError(f"{path} has 0 frames: it must have at least one")
        return _video(file, first, [first.pts, *(frame.pts for frame in coming)], None)


def stamp_table(file: Opened, last: int | None = None, shown: list[av.VideoFrame] | None = None) -> Table | None:
    """One pass over the packets of a file that was just opened.

    last: stop where nothing that follows can be shown before this frame; None: read to the end. shown: receives the
    first frame, the only one that is decoded; None: none is.
    Returns None where stamps do not tell which frame is which: then only decoding from the start does.
    """
    if UNSTAMPED & set(file.container.format.name.split(",")):
        return None
    if file.stream.codec_context.name not in ONE_FRAME_A_PACKET:
        return None
    ticks, keys = array("q"), array("q")  # eight bytes a frame, also while they are collected
    key = first_key = None
    for packet in packets(file):
        tick = packet.pts
        if tick is None or (packet.is_keyframe and key is not None and tick < key):
            return None  # no stamps, or they begin anew: parts of several files
        if packet.is_keyframe:
            # whatever is shown before a keyframe is stored before the next one
            if last is not None and key is not None and len(ticks) > last and _count_before(ticks, key) > last:
                break
            key = tick
            first_key = tick if first_key is None else first_key
        if shown is not None and not shown:
            with suppress(*FAILURES):
                shown += file.stream.decode(packet)[:1]
        if packet.is_discard:
            continue
        if packet.is_keyframe:
            keys.append(tick)
        ticks.append(tick)
    if shown is not None and not shown:
        with suppress(*FAILURES):
            shown += file.stream.decode(None)[:1]
    if not ticks:
        return None
    ordered = np.unique(np.array(ticks, np.int64))
    start = len(ordered) if first_key is None else int(np.searchsorted(ordered, first_key))
    places = np.searchsorted(ordered, np.unique(np.array(keys, np.int64)))
    return Table(ordered, places, start, len(ordered) == len(ticks))


def from_keyframe(
    file: Opened, table: Table, key: int, read: Callable[[Opened], Iterator[av.Packet]] = packets
) -> Iterator[av.Packet]:
    """The packets from this keyframe on, sought; none if it is not to be found. Raises what FFmpeg raises."""
    tick = int(table.ticks[key])
    # transport streams are sought by the stamps of decoding, which are up to so many frames earlier
    for place in (key, max(0, key - REORDERED)):
        file.container.seek(int(table.ticks[place]), stream=file.stream)
        coming = read(file)
        for packet in coming:
            if packet.is_keyframe and packet.pts == tick:
                return chain([packet], coming)
            if packet.is_keyframe and packet.pts is not None and packet.pts > tick:
                break
    return iter(())


def number_of(ticks: np.ndarray, tick: int | None) -> int | None:
    """Which of the increasing ticks this is; None: none of them."""
    place = len(ticks) if tick is None else int(np.searchsorted(ticks, tick))
    return place if place < len(ticks) and ticks[place] == tick else None


def _count_before(ticks: array, key: int) -> int:
    """How many different ticks come before this one."""
    before = np.unique(np.array(ticks, np.int64))
    return int(np.searchsorted(before, key))


def _video(file: Opened, first: av.VideoFrame, ticks: Sequence[int | None] | np.ndarray, table: Table | None) -> Video:
    stamps = _stamps(file, ticks)
    rate = (len(stamps) - 1) / float(stamps[-1]) if len(stamps) > 1 else _declared_rate(file)
    height, width = upright_size(first)
    return Video(path=file.path, stamps=stamps, height=height, width=width, rate=rate, table=table)


def _stamps(file: Opened, ticks: Sequence[int | None] | np.ndarray) -> np.ndarray:
    """float64[n]: seconds since the first frame; counted at the declared rate where stamps are missing or fall back."""
    base = file.stream.time_base
    stamps = np.array(ticks, np.float64)  # not a number where there is no stamp
    if base and not np.isnan(stamps).any():
        stamps = (stamps - stamps[0]) * float(base)
        if (np.diff(stamps) > 0).all():
            return stamps
    return np.arange(len(ticks)) / _declared_rate(file)


def _declared_rate(file: Opened) -> float:
    rate = file.stream.average_rate or file.stream.guessed_rate
    return float(rate) if rate and rate > 0 else USUAL_RATE
