"""Labelled videos by split from whatever a user names: a folder of classes, a table, or a folder with a table a split.

What they mean stands in sources.py and tables.py; here it is found out which of them it is.
"""

from collections.abc import Sequence
from pathlib import Path

from vivit.data.sources import SPLIT_FOLDERS, Dataset, read_folder
from vivit.data.tables import read_table
from vivit.paths import as_path, is_file, is_folder
from vivit.reference.values import quoted

SUFFIXES = (".csv", ".jsonl")
ALL = "all"  # beside the splits: every example


def read_data(path: str | Path, *, heads: Sequence[str] | None = None, multi_label: bool = False) -> dict[str, Dataset]:
    """Datasets by split.

    path: a folder with a folder a class (as read_folder takes it), a table (CSV or JSONL, as read_table takes it), or a
    folder with the tables train.csv, validation.csv (or val.csv) and test.csv, some of them, or .jsonl.
    heads, multi_label: of tables. Raises ValueError, naming what it must be.
    """
    path = as_path(path)
    if is_file(path):
        return read_table(path, heads=heads, multi_label=multi_label)
    if not is_folder(path):
        raise ValueError(f"{path} is not there: it must be a folder with one folder a class, or a table, CSV or JSONL")
    tables: dict[str, Path] = {}
    for name, split in SPLIT_FOLDERS.items():
        for file in (path / f"{name}{suffix}" for suffix in SUFFIXES):
            if is_file(file) and split in tables:
                raise ValueError(f"{path} has {tables[split].name} and {file.name}: it must have one table a split")
            if is_file(file):
                tables[split] = file
    if tables:
        return read_table(tables, heads=heads, multi_label=multi_label)
    if heads or multi_label:
        raise ValueError(f"{path} is a folder of classes: heads and multi_label are for tables")
    return read_folder(path)


def choose(datasets: dict[str, Dataset], split: str) -> Dataset:
    """The dataset of one split, or of all of them together ("all"). Raises ValueError if there is no such split."""
    if split == ALL:
        parts = list(datasets.values())
        examples = tuple(example for part in parts for example in part.examples)
        return Dataset(examples, parts[0].heads, parts[0].names, parts[0].multi_label)
    if split not in datasets:
        found = ", ".join(f"{name} ({len(dataset.examples)})" for name, dataset in datasets.items())
        raise ValueError(f"split is {quoted(split)}: it must be one of those that the data has, {found}, or {ALL}")
    return datasets[split]
