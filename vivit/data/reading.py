"""Reads labelled videos from a path: a folder of classes, a table, or a folder with one table per split.

This file determines which of them the path is; sources.py and tables.py read it.
"""

from collections.abc import Sequence
from pathlib import Path

from vivit.data.sources import SPLIT_FOLDERS, Dataset, read_folder
from vivit.data.tables import read_table
from vivit.files.paths import as_path, is_file, is_folder
from vivit.reference.values import quoted

SUFFIXES = (".csv", ".jsonl")
ALL = "all"  # in place of a split: every example


def read_data(path: str | Path, *, heads: Sequence[str] | None = None, multi_label: bool = False) -> dict[str, Dataset]:
    """Returns datasets by split.

    path: a folder with one folder per class (see read_folder), a table (CSV or JSONL, see read_table), or a folder with
    one or more of the tables train.csv, validation.csv (or val.csv) and test.csv, or the same as .jsonl.
    heads, multi_label: options of tables. Raises ValueError, naming the path and what it must be.
    """
    path = as_path(path)
    if is_file(path):
        return read_table(path, heads=heads, multi_label=multi_label)
    if not is_folder(path):
        raise ValueError(f"{path} does not exist: it must be a folder with one folder per class, or a table")
    tables: dict[str, Path] = {}
    for name, split in SPLIT_FOLDERS.items():
        for file in (path / f"{name}{suffix}" for suffix in SUFFIXES):
            if is_file(file) and split in tables:
                raise ValueError(f"{path} has {tables[split].name} and {file.name}: it must have one table per split")
            if is_file(file):
                tables[split] = file
    if tables:
        return read_table(tables, heads=heads, multi_label=multi_label)
    if heads or multi_label:
        raise ValueError(f"{path} is a folder of classes: heads and multi_label are for tables")
    return read_folder(path)


def select_split(datasets: dict[str, Dataset], split: str) -> Dataset:
    """Returns the dataset of one split, or of all splits ("all"). Raises ValueError if the data has no such split."""
    if split == ALL:
        parts = list(datasets.values())
        examples = tuple(example for part in parts for example in part.examples)
        return Dataset(examples, parts[0].heads, parts[0].names, parts[0].multi_label)
    if split not in datasets:
        existing = ", ".join(f"{name} ({len(dataset.examples)})" for name, dataset in datasets.items())
        raise ValueError(f"split is {quoted(split)}: it must be one of the data's splits, {existing}, or {ALL}")
    return datasets[split]
