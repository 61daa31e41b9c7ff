"""What a video file holds: when each frame is shown, how large it is, and whether a keyframe can be sought.

Declared lengths are never trusted. Frames are counted by demuxing alone where one packet is one frame; elsewhere the
file is decoded once from start to end.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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


def probe(path: str | Path, *, limits: Limits | None = None, threads: int = 0) -> Video:
    """Counts and times the frames of a file, without decoding more than one of them if its stamps allow that.

    Raises ValueError, in one line that names the file, if it cannot be read as a video or has no frame.
    """
    with opened(path, limits=limits, threads=threads) as file:
        table = stamp_table(file)
    with opened(path, limits=limits, threads=threads) as file:
        ticks: list[int | None] = []
        size = (0, 0)
        for frame in frames(file):
            if not ticks:
                size = upright_size(frame)
                if table is not None and frame.pts != table.ticks[0]:
                    table = None
            ticks.append(frame.pts)
            if table is not None:
                break
        if not ticks:
            raise ValueError(f"{path} has 0 frames: it must have at least one")
        stamps = _stamps(file, ticks if table is None else table.ticks.tolist())
        rate = (len(stamps) - 1) / float(stamps[-1]) if len(stamps) > 1 else _declared_rate(file)
    height, width = size
    return Video(path=str(path), stamps=stamps, height=height, width=width, rate=rate, table=table)


def stamp_table(file: Opened, last: int | None = None) -> Table | None:
    """One pass over the packets of a file that was just opened, decoding none.

    last: stop where nothing that follows can be shown before this frame; None: read to the end.
    Returns None where stamps do not tell which frame is which: then only decoding from the start does.
    """
    if UNSTAMPED & set(file.container.format.name.split(",")):
        return None
    if file.stream.codec_context.name not in ONE_FRAME_A_PACKET:
        return None
    ticks: list[int] = []
    keys: list[int] = []
    previous_key = dropped = 0
    for count, packet in enumerate(packets(file)):
        if packet.pts is None or packet.is_corrupt or (count == 0 and not packet.is_keyframe):
            return None
        if packet.is_keyframe:
            # whatever is shown before a keyframe is stored before the next one
            if last is not None and previous_key > last:
                break
            previous_key = count - dropped
        if packet.is_discard:
            dropped += 1
            continue
        if packet.is_keyframe:
            keys.append(packet.pts)
        ticks.append(packet.pts)
    # a first keyframe that is not shown first has pictures before it that cannot be decoded
    if not ticks or (not dropped and ticks[0] != min(ticks)) or len(set(ticks)) < len(ticks):
        return None
    shown = np.sort(np.array(ticks, np.int64))
    return Table(shown, np.searchsorted(shown, np.sort(np.array(keys, np.int64))))


def _stamps(file: Opened, ticks: list[int | None]) -> np.ndarray:
    """float64[n]: seconds since the first frame; counted at the declared rate where stamps are missing or fall back."""
    base = file.stream.time_base
    known = [tick for tick in ticks if tick is not None]
    if base and len(known) == len(ticks):
        stamps = np.array(known, np.float64)
        stamps = (stamps - stamps[0]) * float(base)
        if (np.diff(stamps) > 0).all():
            return stamps
    return np.arange(len(ticks)) / _declared_rate(file)


def _declared_rate(file: Opened) -> float:
    rate = file.stream.average_rate or file.stream.guessed_rate
    return float(rate) if rate and rate > 0 else USUAL_RATE
