"""Labelled videos from tables: CSV or JSONL with a path, one or several labels, and optional seconds and splits."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vivit.data.sources import SPLIT_FOLDERS, SPLITS, Dataset, Example, Names, check_fractions, given_names, split_of

RESERVED = ("path", "start", "end", "split")  # every other column is a head
SEPARATOR = "|"  # between the labels of one cell of a CSV
FAULTS_NAMED = 5


class _Row(NamedTuple):
    where: str  # file and line
    split: str
    path: str
    labels: dict[str, tuple[str, ...]]  # by head
    start: float | None
    end: float | None


def read_table(
    table: str | Path | Mapping[str, str | Path],
    *,
    root: str | Path | None = None,
    heads: Sequence[str] | None = None,
    names: Mapping[str, Names] | None = None,
    multi_label: bool = False,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> dict[str, Dataset]:
    """Datasets by split, from one table (CSV with a header, or JSONL) or from one for every split.

    The columns are path, one for every head ("label", or "verb" and "noun", …), and optionally start and end in
    seconds and split. Without split, all stretches of one video fall into one split by the hash of its path.
    root: what paths are relative to; None: the folder of the table. heads: the columns to use, in this order; None:
    all that are not reserved, as they come. names: the labels of a head, given; otherwise those found, sorted.
    multi_label: any number of labels a head, in a list or separated by "|".
    Raises ValueError that names the lines and what is wrong in them, the first five of them.
    """
    tables = table if isinstance(table, Mapping) else {"": table}
    check_fractions(fractions)
    rows: list[_Row] = []
    faults: list[str] = []
    for split, file in tables.items():
        if split and split not in SPLITS:
            raise ValueError(f"a table's split is {split!r}: it must be one of {', '.join(SPLITS)}")
        records = _records(Path(file), faults)
        heads = tuple(heads or (column for column in (records[0][1] if records else {}) if column not in RESERVED))
        if records and not heads:
            raise ValueError(f"{file} has no label column: it must have one beside {', '.join(RESERVED)}")
        base = Path(file).parent if root is None else Path(root)
        for where, record in records:
            try:
                rows.append(_row(where, record, split, base, heads, multi_label, fractions))
            except ValueError as error:
                faults.append(f"{where}: {error}")
    known = _names(rows, tuple(heads or ()), names or {}, faults)
    if faults:
        more = f"; and {len(faults) - FAULTS_NAMED} more" if len(faults) > FAULTS_NAMED else ""
        raise ValueError("; ".join(faults[:FAULTS_NAMED]) + more)
    if not rows:
        raise ValueError(f"{', '.join(map(str, tables.values()))} has no line: it must have one for every example")
    number = {head: {name: index for index, name in enumerate(labels)} for head, labels in known.items()}
    datasets: dict[str, list[Example]] = {}
    for row in rows:
        labels = tuple(tuple(sorted(number[head][name] for name in row.labels[head])) for head in known)
        datasets.setdefault(row.split, []).append(Example(row.path, labels, row.start, row.end))
    return {
        split: Dataset(tuple(datasets[split]), tuple(known), tuple(known.values()), multi_label)
        for split in SPLITS
        if split in datasets
    }


def _records(file: Path, faults: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Pairs of "file line n" and the columns of that line."""
    if not file.is_file():
        raise ValueError(f"{file} is not a file: it must be a table, CSV or JSONL")
    records: list[tuple[str, dict[str, Any]]] = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix.lower() in (".jsonl", ".ndjson", ".json"):
                for line, text in enumerate(lines, 1):
                    if text.strip():
                        _json_record(f"{file} line {line}", text, records, faults)
                return records
            reader = csv.DictReader(lines, strict=True)
            for record in reader:
                where = f"{file} line {reader.line_num}"
                if None in record or None in record.values():
                    faults.append(f"{where}: it must have {len(reader.fieldnames or ())} columns as the header has")
                else:
                    records.append((where, dict(record)))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as a table: {error}") from None
    return records


def _json_record(where: str, text: str, records: list[tuple[str, dict[str, Any]]], faults: list[str]) -> None:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        faults.append(f"{where}: it must be a JSON object: {error}")
        return
    if isinstance(record, dict):
        records.append((where, record))
    else:
        faults.append(f"{where}: it must be a JSON object")


def _row(
    where: str,
    record: dict[str, Any],
    split: str,
    base: Path,
    heads: Sequence[str],
    multi_label: bool,
    fractions: Sequence[float],
) -> _Row:
    path = record.get("path")
    if not isinstance(path, str) or not path:
        raise ValueError(f"path is {path!r}: it must name a video")
    named = record.get("split")
    if not split and named:
        if named not in SPLIT_FOLDERS:
            raise ValueError(f"split is {named!r}: it must be one of {', '.join(SPLITS)}")
        split = SPLIT_FOLDERS[named]
    start, end = (_seconds(field, record.get(field)) for field in ("start", "end"))
    if end is not None and end <= (start or 0):
        raise ValueError(f"end is {end}: it must be after start, {start or 0}")
    labels = {head: _labels(head, record.get(head), multi_label) for head in heads}
    return _Row(where, split or split_of(path, fractions), str(base / path), labels, start, end)


def _seconds(field: str, value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{field} is {value!r}: it must be seconds, 0 or more")
    return seconds


def _labels(head: str, value: Any, multi_label: bool) -> tuple[str, ...]:
    if multi_label and isinstance(value, str):
        value = [part.strip() for part in value.split(SEPARATOR) if part.strip()]
    labels = value if isinstance(value, list) else [] if value in (None, "") else [value]
    labels = tuple(str(label) if isinstance(label, int) else label for label in labels)
    if any(not isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
        raise ValueError(f"{head} is {value!r}: it must be a label, or a list of different ones")
    if not multi_label and len(labels) != 1:
        raise ValueError(f"{head} is {value!r}: it must be exactly one label, unless multi_label is set")
    return labels


def _names(
    rows: list[_Row], heads: Sequence[str], given: Mapping[str, Names], faults: list[str]
) -> dict[str, tuple[str, ...]]:
    """The labels of every head, given or found; labels that are not among the given ones are faults."""
    strangers = sorted(set(given) - set(heads))
    if strangers and rows:
        raise ValueError(f"names has {strangers[0]!r}: it must be one of the heads {', '.join(heads)}")
    known: dict[str, tuple[str, ...]] = {}
    for head in heads:
        if head not in given:
            known[head] = tuple(sorted({label for row in rows for label in row.labels[head]}))
            continue
        known[head] = given_names(given[head])
        allowed = set(known[head])
        for row in rows:
            faults += [
                f"{row.where}: {head} is {label!r}: it must be one of the {len(allowed)} given"
                for label in row.labels[head]
                if label not in allowed
            ]
    return known
