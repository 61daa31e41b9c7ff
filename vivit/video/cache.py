"""Caches decoded frames on disk as uint8, so that a video is decoded once.

An entry is one file: a checksum of every frame, then the frames, so that single frames can be read and verified. Files
are written atomically: to a temporary name, then renamed. A damaged entry is decoded again.
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

from vivit.files.atomic import remove_stale_folders, working_folder
from vivit.video.frame import Placement
from vivit.video.index import Video

FORMAT = 3  # part of every key: increase it when the layout of entries or the scaling changes
SUFFIX = ".frames"
_SIZES = struct.Struct("<III")  # frames, height, width
_SUM = struct.Struct("<I")

_log = logging.getLogger("vivit.data")


class Cache:
    """A folder of decoded frames of at most `limit` bytes. The least recently used entries are removed first.

    largest: bytes of the largest entry, which is decoded in one go; larger videos are not cached. Threads and processes
    may share the folder. Each process counts its own writes only, so several processes together may exceed the limit.
    Raises ValueError if limit or largest is not positive.
    """

    def __init__(self, folder: str | Path, *, limit: int = 10**11, largest: int = 2**29) -> None:
        for name, value in (("limit", limit), ("largest", largest)):
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be a positive number of bytes")
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale_folders(self.folder)
        self.limit, self.largest = limit, largest
        self._lock = threading.Lock()
        self._held = self.size()

    def size(self) -> int:
        """Returns the bytes of all entries."""
        return sum(size for _, size, _ in _entries(self.folder))

    def make_room(self, size: int) -> None:
        """Removes least recently used entries until another entry of this size fits."""
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
    """Returns the frames `wanted` of a video, uint8[f height width 3]; decodes them only if they are not cached.

    stored: int64[n], increasing, the frames of an entry; it contains wanted. decode: function from frame numbers to
    their pixels, placed according to `placement`. undamaged: decode raises an error for damaged frames; separate
    entries are used then. An entry that would be too large is not written.
    """
    size = len(stored) * placement.tall * placement.wide * 3
    if size > min(cache.limit, cache.largest):
        return decode(wanted)
    path = cache.folder / f"{_key(video, stored, placement, undamaged)}{SUFFIX}"
    rows = np.searchsorted(stored, wanted)
    cached = _read(path, rows)
    if cached is not None:
        return cached
    frames = decode(stored)
    try:
        _write(cache, path, frames)
    except OSError as error:
        _log.warning("the cache %s cannot be written, decoding continues without it: %s", cache.folder, error)
    return frames[rows]


def _key(video: Video, stored: np.ndarray, placement: Placement, undamaged: bool) -> str:
    """Returns a hash of everything that the pixels depend on, including the file's size and modification time."""
    status = os.stat(video.path)
    facts = [FORMAT, os.path.abspath(video.path), status.st_size, status.st_mtime_ns, undamaged, *placement]
    return hashlib.sha256(json.dumps(facts).encode() + np.asarray(stored, "<i8").tobytes()).hexdigest()


def _write(cache: Cache, path: Path, frames: np.ndarray) -> None:
    frames = np.ascontiguousarray(frames)
    sums = np.array([zlib.crc32(frame) for frame in frames], "<u4").tobytes()
    head = _SIZES.pack(*frames.shape[:3]) + sums
    cache.make_room(frames.nbytes)
    with working_folder(cache.folder, sweep=False) as folder:  # done when the cache was opened
        temporary = folder / path.name
        with temporary.open("wb") as file:
            file.write(head + _SUM.pack(zlib.crc32(head)))
            file.write(frames.data)
        os.replace(temporary, path)


def _read(path: Path, rows: np.ndarray) -> np.ndarray | None:
    """Returns the frames at these rows, or None if there is no valid entry."""
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
            for index, row in enumerate(rows.tolist()):
                file.seek(begin + row * frame_size)
                file.readinto(frames[index].data)
                if zlib.crc32(frames[index]) != expected[row]:
                    raise ValueError(f"its frame {row} is damaged")
        os.utime(path)
        return frames
    except FileNotFoundError:
        return None
    except (OSError, ValueError, struct.error) as error:
        _log.warning("the cache entry %s is decoded again: %s", path, error)
        return None


def _entries(folder: Path) -> list[tuple[float, int, Path]]:
    """Returns (last use, bytes, path) of every entry."""
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
