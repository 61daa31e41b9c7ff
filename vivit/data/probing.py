"""What a video file holds: when each frame is shown, how large it is, and whether a keyframe can be sought.

Declared lengths are never trusted. Frames are counted by demuxing alone where one packet is one frame; elsewhere the
file is decoded once from start to end.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from vivit.data.opening import Limits, Opened, frames, opened, packets
from vivit.data.pictures import upright_size

# codecs whose every packet shows one frame; vp8 and mpeg4 have packets that show none
ONE_FRAME_A_PACKET = {"av1", "dnxhd", "ffv1", "h264", "hevc", "libdav1d", "mjpeg", "prores", "vp9"}
# containers whose stamps are those of decoding
UNSTAMPED = {"avi"}
USUAL_RATE = 25.0  # for a file without stamps that declares no rate


class Table(NamedTuple):
    """The presentation stamps of a file, as far as it was demuxed.

    ticks: int64[n], strictly increasing, in the stream's time base. keys: int64[k], frames at which decoding can start.
    """

    ticks: np.ndarray
    keys: np.ndarray


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
        if table is not None and shown and shown[0].pts == table.ticks[0]:
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
    previous_key = dropped = 0
    for count, packet in enumerate(packets(file)):
        tick, is_key = packet.pts, packet.is_keyframe
        if tick is None or packet.is_corrupt or (count == 0 and not is_key):
            return None
        if is_key:
            # whatever is shown before a keyframe is stored before the next one
            if last is not None and previous_key > last:
                break
            previous_key = count - dropped
        if shown is not None and not shown:
            shown += file.stream.decode(packet)[:1]
        if packet.is_discard:
            dropped += 1
            continue
        if is_key:
            keys.append(tick)
        ticks.append(tick)
    if shown is not None and not shown:
        shown += file.stream.decode(None)[:1]
    ordered = np.sort(np.array(ticks, np.int64))
    # a first keyframe that is not shown first has pictures before it that cannot be decoded
    if not ticks or (not dropped and ticks[0] != ordered[0]) or (np.diff(ordered) == 0).any():
        return None
    return Table(ordered, np.searchsorted(ordered, np.sort(np.array(keys, np.int64))))


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
