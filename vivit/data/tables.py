"""Labelled videos from tables: CSV or JSONL with a path, one or several labels, and optional times and splits."""

import csv
import gc
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vivit.data.sources import SPLIT_FOLDERS, SPLITS, Dataset, Example, Names, check_fractions, label_names, stratified
from vivit.files.json_files import decode_json
from vivit.files.paths import is_file, unreadable
from vivit.reference.nearest import did_you_mean
from vivit.reference.values import quoted

RESERVED = ("path", "start", "end", "split")  # every other column is a head
SEPARATOR = "|"  # between the labels of one cell of a CSV
FAULTS_NAMED = 5


class _Row(NamedTuple):
    """One line of a table."""

    location: tuple[Path, int]  # file and line number
    split: str  # "": assigned by the hash of its name
    name: str  # the path as written in the table
    path: str
    labels: tuple[tuple[str, ...], ...]  # of every head
    start: float | None
    end: float | None


class _TableOptions(NamedTuple):
    """How to read the rows of one table. labels: a cache of parsed labels by the contents of their cells."""

    split: str
    base: Path
    prefix: str  # base with a final separator
    heads: tuple[str, ...]
    multi_label: bool
    labels: dict[tuple, tuple[tuple[str, ...], ...]]


def read_table(
    table: str | Path | Mapping[str, str | Path],
    *,
    root: str | Path | None = None,
    heads: Sequence[str] | None = None,
    names: Mapping[str, Names] | None = None,
    multi_label: bool = False,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> dict[str, Dataset]:
    """Returns datasets by split, from one table (CSV with a header, or JSONL) or from one table per split.

    Columns: path, one per head ("label", or "verb" and "noun", …), and optionally start and end in seconds and split.
    Without a split column, videos are split by the hashes of their paths (sources.stratified); all segments of a video
    are in the same split.
    root: the folder that paths are relative to; None: the table's folder. heads: the columns to use, in this order;
    None: all columns that are not reserved, in the table's order. names: the label names of a head; without it, the
    sorted labels of the table.
    multi_label: any number of labels per head, as a list or separated by "|".
    Raises ValueError that names the first five faulty lines and their faults.
    """
    tables = table if isinstance(table, Mapping) else {"": table}
    check_fractions(fractions)
    collects = gc.isenabled()
    gc.disable()  # the collector would scan millions of live objects repeatedly, which doubles the time
    try:
        return _datasets(tables, root, tuple(heads or ()), names or {}, multi_label, fractions)
    finally:
        if collects:
            gc.enable()


def _datasets(
    tables: Mapping[str, str | Path],
    root: str | Path | None,
    heads: tuple[str, ...],
    names: Mapping[str, Names],
    multi_label: bool,
    fractions: Sequence[float],
) -> dict[str, Dataset]:
    """As read_table. tables: by split, "" for one table of all splits."""
    rows: list[_Row] = []
    faults = _Faults()
    for split, file in tables.items():
        if split and split not in SPLITS:
            raise ValueError(f"a table's split is {quoted(split)}: it must be one of {', '.join(SPLITS)}")
        file = Path(file)
        base = file.parent if root is None else Path(root)
        options: _TableOptions | None = None
        for line, record in _records(file, faults):
            if options is None:
                heads = heads or tuple(column for column in record if column not in RESERVED)
                if not heads:
                    raise ValueError(f"{file} has no label column: it needs one besides {', '.join(RESERVED)}")
                options = _TableOptions(split, base, str(base / "_")[:-1], heads, multi_label, {})
            try:
                rows.append(_row((file, line), record, options))
            except ValueError as error:
                faults.add((file, line), str(error))
    known = _names(rows, heads, names, faults)
    faults.raise_if_any()
    if not rows:
        raise ValueError(f"{', '.join(map(str, tables.values()))} has no line: it must have one for every example")
    rows = _split(rows, fractions)
    number = [{name: index for index, name in enumerate(labels)} for labels in known.values()]
    numbered: dict[tuple[tuple[str, ...], ...], tuple[tuple[int, ...], ...]] = {}  # many rows share labels
    datasets: dict[str, list[Example]] = {}
    for row in rows:
        labels = numbered.get(row.labels)
        if labels is None:
            heads_labels = zip(row.labels, number, strict=True)
            labels = tuple(tuple(sorted(number_of[name] for name in names)) for names, number_of in heads_labels)
            numbered[row.labels] = labels
        datasets.setdefault(row.split, []).append(Example(row.path, labels, row.start, row.end))
    return {
        split: Dataset(tuple(datasets[split]), tuple(known), tuple(known.values()), multi_label)
        for split in SPLITS
        if split in datasets
    }


class _Faults:
    """Collects the faults of a table: counts all of them and keeps the first FAULTS_NAMED."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.count = 0

    def add(self, location: tuple[Path, int], fault: str) -> None:
        self.count += 1
        if self.count <= FAULTS_NAMED:
            where = f"{location[0]} line {location[1]}"
            self.first.append(f"{where}: {fault}")

    def raise_if_any(self) -> None:
        """Raises ValueError if there was a fault."""
        if self.count:
            more = f"; and {self.count - FAULTS_NAMED} more" if self.count > FAULTS_NAMED else ""
            raise ValueError("; ".join(self.first) + more)


def _records(file: Path, faults: _Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the number and the columns of every line."""
    if not is_file(file):
        raise ValueError(f"{file} is not a file: it must be a table, CSV or JSONL")
    is_json = file.suffix.lower() in (".jsonl", ".ndjson", ".json")
    errors = "strict" if is_json else "surrogateescape"  # a CSV holds the bytes of a file's name as they are
    try:
        with file.open(encoding="utf-8-sig", errors=errors, newline="") as lines:
            if is_json:
                yield from _json_records(file, lines, faults)
            else:
                yield from _csv_records(file, lines, faults)
    except OSError as error:
        raise unreadable(file, error) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as a table: {error}") from None


def _json_records(file: Path, lines: Iterable[str], faults: _Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(lines, 1):
        if text.strip():
            try:
                record = decode_json(text)
            except ValueError as error:
                faults.add((file, line), f"it must be a JSON object: {error}")
                continue
            if isinstance(record, dict):
                yield line, record
            else:
                faults.add((file, line), f"it is {quoted(record)}: it must be a JSON object")


def _csv_records(file: Path, lines: Iterable[str], faults: _Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(lines, strict=True)
    columns = next(reader, [])
    if any("\udc80" <= character <= "\udcff" for character in "".join(columns)):  # bytes that are not UTF-8
        raise ValueError(f"{file} cannot be read as a table: its header is not UTF-8")
    if len(set(columns)) < len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise ValueError(f"{file} has the column {quoted(twice)} twice: it must have every column once")
    for cells in reader:
        if len(cells) == len(columns):
            yield reader.line_num, dict(zip(columns, cells, strict=True))
        elif cells:
            faults.add((file, reader.line_num), f"it must have {len(columns)} columns like the header")


def _row(location: tuple[Path, int], record: dict[str, Any], options: _TableOptions) -> _Row:
    path = record.get("path")
    if not isinstance(path, str) or not path:
        raise ValueError(f"path is {quoted(path)}: it must name a video")
    split, named = options.split, record.get("split")
    if not split and named:
        if not isinstance(named, str) or named not in SPLIT_FOLDERS:
            raise ValueError(f"split is {quoted(named)}: it must be one of {', '.join(SPLITS)}")
        split = SPLIT_FOLDERS[named]
    start, end = _seconds("start", record.get("start")), _seconds("end", record.get("end"))
    if end is not None and end <= (start or 0):
        raise ValueError(f"end is {end}: it must be after start, {start or 0}")
    plain = path[0] not in "/." and "//" not in path and "/." not in path and path[-1] != "/"  # faster than pathlib
    whole = options.prefix + path if plain else str(options.base / path)
    return _Row(location, split, path, whole, _all_labels(record, options), start, end)


def _split(rows: list[_Row], fractions: Sequence[float]) -> list[_Row]:
    """Returns the rows with a split each. All segments of a video get the same split."""
    labels: dict[str, set[tuple[int, str]]] = {}
    for row in rows:
        if not row.split:
            own = labels.setdefault(row.name, set())
            own.update((head, label) for head, ones in enumerate(row.labels) for label in ones)
    split_of = stratified(labels, fractions)
    return [row if row.split else row._replace(split=split_of[row.name]) for row in rows]


def _all_labels(record: dict[str, Any], options: _TableOptions) -> tuple[tuple[str, ...], ...]:
    """Returns the labels of every head."""
    cells = tuple(map(record.get, options.heads))
    try:
        return options.labels[cells]
    except (KeyError, TypeError):  # a list is not hashable
        heads = zip(options.heads, cells, strict=True)
        labels = tuple(_labels(head, cell, options.multi_label) for head, cell in heads)
    if all(isinstance(cell, str) for cell in cells):  # only text: 1, 1.0 and True are equal as keys
        options.labels[cells] = labels
    return labels


def _seconds(field: str, value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{field} is {quoted(value)}: it must be a number of seconds, 0 or more")
    return seconds


def _labels(head: str, value: Any, multi_label: bool) -> tuple[str, ...]:
    if multi_label and isinstance(value, str):
        value = [part.strip() for part in value.split(SEPARATOR) if part.strip()]
    labels: Any = value if isinstance(value, list) else [] if value in (None, "") else [value]
    labels = tuple(
        str(label) if isinstance(label, int) and not isinstance(label, bool) and abs(label) < 2**63 else label
        for label in labels
    )
    if any(not isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
        raise ValueError(f"{head} is {quoted(value)}: it must be a label, or a list of different ones")
    if not multi_label and len(labels) != 1:
        raise ValueError(f"{head} is {quoted(value)}: it must be exactly one label, unless multi_label is set")
    return labels


def _names(
    rows: list[_Row], heads: Sequence[str], given: Mapping[str, Names], faults: _Faults
) -> dict[str, tuple[str, ...]]:
    """Returns the labels of every head: the given ones, or those of the rows. A label that is not given is a fault."""
    unknown = sorted(set(given) - set(heads))
    if unknown and rows:
        raise ValueError(f"names has {quoted(unknown[0])}: it must be one of the heads {', '.join(heads)}")
    known: dict[str, tuple[str, ...]] = {}
    for index, head in enumerate(heads):
        if head not in given:
            known[head] = tuple(sorted({label for row in rows for label in row.labels[index]}))
            continue
        known[head] = label_names(given[head])
        allowed = set(known[head])
        for row in rows:
            for label in row.labels[index]:
                if label not in allowed:
                    hint = did_you_mean(label, known[head])
                    faults.add(
                        row.location, f"{head} is {quoted(label)}: {hint}it must be one of the {len(allowed)} given"
                    )
    return known
