"""Lists the videos of a source in a fixed order: a folder, a list, a Parquet table or tar files. Opens no video.

Names are kept in one Arrow array, so that a million take some hundred megabytes less than as Python's texts.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vivit.files.paths import as_path, files_below, is_file, is_folder
from vivit.reference.nearest import did_you_mean
from vivit.reference.values import quoted
from vivit.video.archive import NAME, list_archive, member_name
from vivit.video.inputs import SUFFIX

ARCHIVE, LIST, TABLE = ".tar", ".txt", ".parquet"
COLUMN = "video"


def read_source(source: str | Path, *, column: str = COLUMN) -> pa.LargeStringArray:
    """Returns the names of the videos of a source, in its order: absolute paths, or names as in video/archive.py.

    source: a folder (its videos at any depth, sorted), a list of paths (.txt, one a line), a Parquet table or a folder
    of its files (.parquet), or a tar file. Tar files in a folder, a list or a table stand for their videos. Relative
    paths are relative to the folder of the list or table. A tar file that is damaged or missing also gives a name, with
    no member, so that its error is not lost. column: of the paths in a table.
    Raises ValueError if there is no video, one is named twice, or the source is none of these.
    """
    path = Path(os.path.abspath(as_path(source)))
    suffix = path.suffix.lower()
    if suffix == TABLE and (is_file(path) or is_folder(path)):
        paths = _of_table(path, column)
    elif is_folder(path):
        paths = (str(file) for file in files_below(path) if SUFFIX.fullmatch(file.suffix) or _is_archive(str(file)))
    elif is_file(path) and suffix == LIST:
        paths = _of_list(path)
    elif is_file(path) and suffix == ARCHIVE:
        paths = iter([str(path)])
    else:
        kinds = f"a folder, a list of paths ({LIST}), a Parquet table ({TABLE}) or a tar file ({ARCHIVE})"
        raise ValueError(f"{source} is no source of videos: it must be {kinds}")
    try:
        names = pa.array((name for listed in paths for name in _expanded(listed)), pa.large_string())
    except UnicodeEncodeError as error:
        raise ValueError(f"{source} has the name {quoted(error.object)}: names must be UTF-8") from None
    if not len(names):
        raise ValueError(f"{source} has no videos: it must have at least one")
    if len(names.unique()) < len(names):
        counts = pc.value_counts(names)  # pyright: ignore[reportAttributeAccessIssue]
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")[0].as_py()  # pyright: ignore
        raise ValueError(f"{source} names {quoted(twice)} twice: every video must be named once")
    return names


def hash_of_names(names: pa.LargeStringArray) -> str:
    """Returns the SHA-256 of names in their order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.as_py().encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _of_list(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for line in lines:
                if line.strip():
                    yield _absolute(line.rstrip("\r\n"), path.parent)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} cannot be read as a list of paths: {error}") from None


def _of_table(path: Path, column: str) -> Iterator[str]:
    try:
        table = pq.ParquetDataset(path)
        if column not in table.schema.names:
            hint = did_you_mean(column, table.schema.names)
            raise ValueError(f"column is {quoted(column)}: {hint}it must be one of {', '.join(table.schema.names)}")
        values = table.read(columns=[column]).column(0)
        kind = values.type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) or values.null_count:
            found = f"{values.null_count:,} nulls" if values.null_count else f"values of type {kind}"
            raise ValueError(f"column {column} has {found}: it must have a path in every row")
    except (pa.ArrowInvalid, ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    folder = path.parent
    return (_absolute(value.as_py(), folder) for value in values)


def _absolute(name: str, folder: Path) -> str:
    return name if NAME.fullmatch(name) else os.path.abspath(folder / name)


def _is_archive(path: str) -> bool:
    return path.lower().endswith(ARCHIVE)


def _expanded(path: str) -> Iterator[str]:
    """Yields the path, or the videos of a tar file."""
    if not _is_archive(path) or NAME.fullmatch(path):
        yield path
        return
    listing = list_archive(path)
    yield from (member_name(path, name) for name in listing.members if SUFFIX.fullmatch(Path(name).suffix))
    if listing.damage:
        yield member_name(path, "")
