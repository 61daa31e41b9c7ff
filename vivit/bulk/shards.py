"""The folder of a run: a JSON record of what is computed, and a Parquet file for every shard of the source.

A shard is a fixed number of videos that follow each other. Its file appears when it is complete, under a name that its
number gives; a run goes on with the shards whose files are missing.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vivit.files.atomic import check_folder, write_file, write_text
from vivit.files.json_files import read_object
from vivit.files.paths import is_file

RECORD = "bulk.json"
ROW_GROUP = 32 * 2**20  # bytes of results that are kept in memory before they are written
METADATA = b"vivit"


class Counts(NamedTuple):
    """The numbers of videos of a shard, and of those without a result; the error of the first of them."""

    videos: int
    failed: int
    error: str | None


def open_run(folder: Path, record: dict[str, Any]) -> None:
    """Creates the folder of a run, or continues one. record: all that its results depend on, as JSON data.

    Raises ValueError if the folder has other files, or is of a run with another record, naming the differences.
    """
    path = folder / RECORD
    if not is_file(path):
        check_folder(folder, new=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(record, indent=1) + "\n")
        return
    old, now = read_object(path).values, json.loads(json.dumps(record))
    if changed := sorted(name for name in {*old, *now} if old.get(name) != now.get(name)):
        raise ValueError(f"{path} is of a run with other {', '.join(changed)}: name another folder")


def read_record(folder: str | Path) -> dict[str, Any]:
    """Returns the record of a run. Raises ValueError if the folder is of no run."""
    path = Path(folder) / RECORD
    if not is_file(path):
        raise ValueError(f"{folder} has no {RECORD}: it must be the folder of a run of vivit bulk")
    fields = read_object(path)
    for name in ("command", "model"):
        fields.text(name)
    fields.count("shards")
    return fields.values


def shard_path(folder: str | Path, number: int, shards: int) -> Path:
    """Returns the path of a shard of a run. shards: their number."""
    width = max(5, len(str(shards)))
    return Path(folder) / f"shard-{number:0{width}}-of-{shards:0{width}}.parquet"


def write_shard(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> Counts:
    """Writes the tables of the videos of a shard, atomically. The same tables give the same bytes."""
    videos, failed, first = 0, 0, None

    def write(temporary: Path) -> None:
        nonlocal videos, failed, first
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            waiting: list[pa.Table] = []
            for table in tables:
                videos += 1
                if (error := table["error"][0].as_py()) is not None:
                    failed, first = failed + 1, first or error
                waiting.append(table)
                if sum(one.nbytes for one in waiting) >= ROW_GROUP:
                    writer.write_table(pa.concat_tables(waiting).combine_chunks())
                    waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting).combine_chunks())
            counts = json.dumps(Counts(videos, failed, first)._asdict())
            writer.add_key_value_metadata({METADATA: counts.encode()})

    write_file(path, write)
    return Counts(videos, failed, first)


def read_counts(path: Path) -> Counts:
    """Returns the counts of a finished shard. Raises ValueError if its file is damaged."""
    try:
        return Counts(**json.loads(pq.read_metadata(path).metadata[METADATA]))
    except (pa.ArrowException, KeyError, TypeError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a shard: remove it to compute it again: {error}") from None
