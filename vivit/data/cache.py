"""Decoded frames kept on disk as uint8, so that a video is decoded once.

An entry is one file: a checksum of every frame, then the frames, so that some of them can be read and verified alone.
It appears whole or not at all (written under another name, then renamed). One that is damaged is made anew.
"""

import hashlib
import json
import logging
import os
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vivit.data.pictures import Placement
from vivit.data.probing import Video
from vivit.writing import remove_abandoned, working_folder

FORMAT = 3  # part of every key: entries of another layout, or scaled in another way, are never read
SUFFIX = ".frames"
_SIZES = struct.Struct("<III")  # frames, height, width
_SUM = struct.Struct("<I")

_log = logging.getLogger("vivit.data")


class Cache:
    """A folder of decoded frames that never holds more than `limit` bytes, those used longest ago leaving first.

    largest: bytes of one entry, which is decoded at once; a video of more is not kept. Threads and processes may share
    the folder; each counts what it writes, so the limit may be passed by what the other processes wrote meanwhile.
    Raises ValueError if limit or largest is not positive.
    """

    def __init__(self, folder: str | Path, *, limit: int = 10**11, largest: int = 2**29) -> None:
        for name, value in (("limit", limit), ("largest", largest)):
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be a positive number of bytes")
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self.folder)
        self.limit, self.largest = limit, largest
        self._lock = threading.Lock()
        self._held = self.size()

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(size for _, size, _ in _entries(self.folder))

    def make_room(self, size: int) -> None:
        """Removes what was used longest ago until another entry of this size fits."""
        with self._lock:
            if self._held + size > self.limit:
                entries = sorted(_entries(self.folder))
                self._held = sum(entry[1] for entry in entries)
                for _, held, path in entries:
                    if self._held + size <= self.limit:
                        break
                    path.unlink(missing_ok=True)
                    self._held -= held
            self._held += size


def cached_frames(
    cache: Cache,
    video: Video,
    stored: np.ndarray,
    wanted: np.ndarray,
    placement: Placement,
    decode: Callable[[np.ndarray], np.ndarray],
    *,
    undamaged: bool = False,
) -> np.ndarray:
    """uint8[f height width 3]: the frames `wanted` of a video, decoded only if no entry holds them.

    stored: int64[n], increasing, the frames that an entry holds, wanted among them. decode: from numbers of frames to
    their pixels, placed as `placement` says. undamaged: that it refuses damaged frames; no other entry will do then.
    Where an entry would be too large, there is none.
    """
    size = len(stored) * placement.tall * placement.wide * 3
    if size > min(cache.limit, cache.largest):
        return decode(wanted)
    path = cache.folder / f"{_key(video, stored, placement, undamaged)}{SUFFIX}"
    rows = np.searchsorted(stored, wanted)
    found = _read(path, rows)
    if found is not None:
        return found
    frames = decode(stored)
    try:
        _write(cache, path, frames)
    except OSError as error:
        _log.warning("the cache %s cannot be written, decoding goes on without: %s", cache.folder, error)
    return frames[rows]


def _key(video: Video, stored: np.ndarray, placement: Placement, undamaged: bool) -> str:
    """A hash of all that the pixels depend on; a file that was changed is another one."""
    status = os.stat(video.path)
    facts = [FORMAT, os.path.abspath(video.path), status.st_size, status.st_mtime_ns, undamaged, *placement]
    return hashlib.sha256(json.dumps(facts).encode() + np.asarray(stored, "<i8").tobytes()).hexdigest()


def _write(cache: Cache, path: Path, frames: np.ndarray) -> None:
    frames = np.ascontiguousarray(frames)
    sums = np.array([zlib.crc32(frame) for frame in frames], "<u4").tobytes()
    head = _SIZES.pack(*frames.shape[:3]) + sums
    cache.make_room(frames.nbytes)
    with working_folder(cache.folder, sweep=False) as folder:  # swept when the cache was opened
        temporary = folder / path.name
        with temporary.open("wb") as file:
            file.write(head + _SUM.pack(zlib.crc32(head)))
            file.write(frames.data)
        os.replace(temporary, path)


def _read(path: Path, rows: np.ndarray) -> np.ndarray | None:
    """The frames at these rows, or None if there is no sound entry."""
    try:
        with path.open("rb") as file:
            sizes = file.read(_SIZES.size)
            count, height, width = _SIZES.unpack(sizes)
            begin, frame_size = _SIZES.size + 4 * count + _SUM.size, height * width * 3
            if begin + count * frame_size != os.fstat(file.fileno()).st_size:
                raise ValueError("its length is wrong")
            sums = file.read(4 * count)
            if _SUM.unpack(file.read(_SUM.size)) != (zlib.crc32(sizes + sums),) or max(rows) >= count:
                raise ValueError("its header is damaged")
            expected = np.frombuffer(sums, "<u4")
            frames = np.empty((len(rows), height, width, 3), np.uint8)
            for place, row in enumerate(rows.tolist()):
                file.seek(begin + row * frame_size)
                file.readinto(frames[place].data)
                if zlib.crc32(frames[place]) != expected[row]:
                    raise ValueError(f"its frame {row} is damaged")
        os.utime(path)
        return frames
    except FileNotFoundError:
        return None
    except (OSError, ValueError, struct.error) as error:
        _log.warning("the cache entry %s is made anew: %s", path, error)
        return None


def _entries(folder: Path) -> list[tuple[float, int, Path]]:
    """(last use, bytes, path) of every entry."""
    entries = []
    with os.scandir(folder) as listing:
        for entry in listing:
            if entry.name.endswith(SUFFIX):
                try:
                    status = entry.stat()
                except FileNotFoundError:  # another process removed it
                    continue
                entries.append((status.st_mtime, status.st_size, Path(entry.path)))
    return entries
