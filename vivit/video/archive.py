"""Videos inside uncompressed tar files, such as WebDataset's. Their names are fsspec's: tar://member::archive.

The members of an archive are listed once per process; a member is read from its place, without those before it.
"""

import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

from vivit.files.paths import is_file, unreadable
from vivit.video.container import FileState, file_state

NAME = re.compile(r"tar://(?P<member>.*?)::(?P<archive>.+)", re.DOTALL)


class Place(NamedTuple):
    """Where the bytes of a member are in its archive."""

    offset: int
    size: int


class Listing(NamedTuple):
    """members: the places of the regular files by name, in order. damage: why not all of them are listed, or ""."""

    members: dict[str, Place]
    damage: str


def member_name(archive: str | Path, member: str) -> str:
    """Returns the name of a video in an archive."""
    return f"tar://{member}::{archive}"


def list_archive(archive: str | Path) -> Listing:
    """Lists the files in an archive. A damaged or missing one gives the members before the damage, and a reason."""
    return _listed(str(archive), file_state(archive))


@lru_cache(2)  # archives; a worker reads one after the other
def _listed(archive: str, state: FileState | None) -> Listing:
    """Lists an archive in this state."""
    members: dict[str, Place] = {}
    try:
        if not is_file(archive):
            raise ValueError(f"{archive} is not a file: it must be a tar file")
        with open(archive, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  # it would keep every member
                if member.isreg() and not member.issparse():
                    members[member.name] = Place(member.offset_data, member.size)
            _check_end(file, tar.offset)
    except (tarfile.TarError, EOFError) as error:
        return Listing(members, f"{archive} cannot be read as an uncompressed tar file: {error}")
    except OSError as error:
        return Listing(members, str(unreadable(archive, error)))
    except ValueError as error:
        return Listing(members, str(error))
    return Listing(members, "")


def _check_end(file: IO[bytes], offset: int) -> None:
    """Raises TarError unless the archive ends here; `next` takes a damaged header for the end."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"there is no header at byte {offset:,}")


@contextmanager
def open_member(name: str) -> Iterator[IO[bytes]]:
    """Opens a member for reading. name: as member_name. Raises ValueError, naming it, if it cannot be read."""
    found = NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{name} is no name of a video in a tar file: it must be tar://member::archive")
    listing = list_archive(found["archive"])
    place = listing.members.get(found["member"])
    if place is None:
        raise ValueError(listing.damage or f"{found['archive']} has no file {found['member']}")
    try:
        with open(found["archive"], "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            member = tarfile.TarInfo(found["member"])
            member.offset_data, member.size = place
            stream = tar.extractfile(member)
            assert stream is not None  # it is a regular file
            yield stream
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{name} cannot be read: {error}") from None
    except OSError as error:
        raise unreadable(name, error) from None
