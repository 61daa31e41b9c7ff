"""Indexes a video file: the timestamp of every frame, the frame size, and the keyframes for seeking.

Declared lengths are ignored. Frames are counted by demuxing if every packet of the codec contains one frame; otherwise
the file is decoded once from start to end.
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

from vivit.video.container import FAILURES, Limits, OpenVideo, frames, open_video, packets
from vivit.video.frame import upright_size

# codecs with exactly one displayed frame per packet; vp8 and mpeg4 have packets without one
ONE_FRAME_PER_PACKET = {"av1", "dnxhd", "ffv1", "h264", "hevc", "libdav1d", "mjpeg", "prores", "vp9"}
# containers that store decoding timestamps only
DECODING_STAMPS = {"avi"}
MAX_REORDER = 16  # frames: the largest distance between decoding order and display order in any codec
DEFAULT_RATE = 25.0  # frames per second, for a file without timestamps and rate


class StampTable(NamedTuple):
    """The presentation timestamps of a file, as far as it was demuxed.

    ticks: int64[n], strictly increasing, in the stream's time base; frame i is displayed at ticks[i]. keys: int64[k],
    the keyframes. start: the first frame that decoding from the start of the file can give. distinct: all timestamps of
    packets differ.
    """

    ticks: np.ndarray
    keys: np.ndarray
    start: int
    distinct: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Video:
    """The index of one video file.

    stamps: float64[n], seconds since the first frame, one per frame. height, width: upright. rate: frames per second.
    table: None if frames can only be found by decoding from the start.
    """

    path: str
    stamps: np.ndarray
    height: int
    width: int
    rate: float
    table: StampTable | None


def probe(path: str | Path, *, limits: Limits | None = None, threads: int = 1) -> Video:
    """Indexes the frames of a file. Decodes at most one frame if the timestamps are complete.

    threads: of the decoder, 0: one per core. Raises a one-line ValueError that names the file if it cannot be read as a
    video or has no frame.
    """
    with open_video(path, limits=limits, threads=threads) as file:
        shown: list[av.VideoFrame] = []
        table = stamp_table(file, shown=shown)
        if table is not None and shown and frame_index(table.ticks, shown[0].pts) is not None:
            return _video(file, shown[0], table.ticks, table)
    with open_video(path, limits=limits, threads=threads) as file:
        coming = frames(file)
        first = next(coming, None)
        if first is None:
            raise ValueError(f"{path} has 0 frames: it must have at least one")
        return _video(file, first, [first.pts, *(frame.pts for frame in coming)], None)


def stamp_table(
    file: OpenVideo, last: int | None = None, shown: list[av.VideoFrame] | None = None
) -> StampTable | None:
    """Reads the packets of a newly opened file once and returns its timestamps.

    last: stop when all frames up to this one are known; None: read to the end. shown: a list that receives the first
    frame, the only one that is decoded; None: decode nothing.
    Returns None if timestamps do not identify the frames; then only decoding from the start does.
    """
    if DECODING_STAMPS & set(file.container.format.name.split(",")):
        return None
    if file.stream.codec_context.name not in ONE_FRAME_PER_PACKET:
        return None
    ticks, keys = array("q"), array("q")  # compact: eight bytes per frame
    key = first_key = None
    for packet in packets(file):
        tick = packet.pts
        if tick is None or (packet.is_keyframe and key is not None and tick < key):
            return None  # no timestamps, or they restart: concatenated files
        if packet.is_keyframe:
            # all frames displayed before a keyframe are stored before the next keyframe
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
    key_frames = np.searchsorted(ordered, np.unique(np.array(keys, np.int64)))
    return StampTable(ordered, key_frames, start, len(ordered) == len(ticks))


def from_keyframe(
    file: OpenVideo, table: StampTable, key: int, read: Callable[[OpenVideo], Iterator[av.Packet]] = packets
) -> Iterator[av.Packet]:
    """Seeks a keyframe and returns the packets from it on; none if it is not found. FFmpeg's errors pass through."""
    tick = int(table.ticks[key])
    # transport streams seek by decoding timestamps, which are up to MAX_REORDER frames earlier
    for target in (key, max(0, key - MAX_REORDER)):
        file.container.seek(int(table.ticks[target]), stream=file.stream)
        coming = read(file)
        for packet in coming:
            if packet.is_keyframe and packet.pts == tick:
                return chain([packet], coming)
            if packet.is_keyframe and packet.pts is not None and packet.pts > tick:
                break
    return iter(())


def frame_index(ticks: np.ndarray, tick: int | None) -> int | None:
    """Returns the index of a tick in increasing ticks, or None if it is not among them."""
    index = len(ticks) if tick is None else int(np.searchsorted(ticks, tick))
    return index if index < len(ticks) and ticks[index] == tick else None


def _count_before(ticks: array, key: int) -> int:
    """Returns the number of different ticks before this one."""
    before = np.unique(np.array(ticks, np.int64))
    return int(np.searchsorted(before, key))


def _video(
    file: OpenVideo, first: av.VideoFrame, ticks: Sequence[int | None] | np.ndarray, table: StampTable | None
) -> Video:
    stamps = _stamps(file, ticks)
    rate = (len(stamps) - 1) / float(stamps[-1]) if len(stamps) > 1 else _declared_rate(file)
    height, width = upright_size(first)
    return Video(path=file.path, stamps=stamps, height=height, width=width, rate=rate, table=table)


def _stamps(file: OpenVideo, ticks: Sequence[int | None] | np.ndarray) -> np.ndarray:
    """Returns seconds since the first frame, float64[n]; at the declared rate if timestamps are missing or decrease."""
    base = file.stream.time_base
    stamps = np.array(ticks, np.float64)  # None becomes NaN
    if base and not np.isnan(stamps).any():
        stamps = (stamps - stamps[0]) * float(base)
        if (np.diff(stamps) > 0).all():
            return stamps
    return np.arange(len(ticks)) / _declared_rate(file)


def _declared_rate(file: OpenVideo) -> float:
    rate = file.stream.average_rate or file.stream.guessed_rate
    return float(rate) if rate and rate > 0 else DEFAULT_RATE
