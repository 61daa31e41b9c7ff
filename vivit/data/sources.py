"""What there is to learn from: video files with their labels, from a folder per class or from tables.

Files are listed, not opened: one that cannot be read is reported when it is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vivit.data.splitting import SPLITS, check_fractions, stratified
from vivit.reference.values import quoted

SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}

Names = Sequence[str] | str | Path  # the labels of one head: given, or a file with one a line


@dataclass(frozen=True)
class Example:
    """One labelled stretch of a video.

    labels: for every head the numbers of its labels. start, end: in seconds since the first frame; None: all of it.
    """

    path: str
    labels: tuple[tuple[int, ...], ...]
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Dataset:
    """Examples and what their labels are called.

    heads: such as ("verb", "noun"). names: of the labels, for every head. multi_label: any number of labels a head.
    """

    examples: tuple[Example, ...]
    heads: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    multi_label: bool = False

    @property
    def classes(self) -> tuple[int, ...]:
        """Labels of every head, as `Config.classes` has them."""
        return tuple(len(names) for names in self.names)


def label_vector(dataset: Dataset, example: Example) -> np.ndarray:
    """float32[v]: 1 at the example's labels, head after head as in the logits."""
    vector = np.zeros(sum(dataset.classes), np.float32)
    offset = 0
    for labels, count in zip(example.labels, dataset.classes, strict=True):
        vector[[offset + label for label in labels]] = 1
        offset += count
    return vector


def read_folder(
    root: str | Path, *, names: Names | None = None, fractions: Sequence[float] = (0.8, 0.1, 0.1)
) -> dict[str, Dataset]:
    """Datasets by split, from root/<split>/<class>/… or root/<class>/…; every file in a class's folder is a video.

    If all folders in root are called train, validation (or val) and test, they are the splits. Otherwise they are the
    classes, and the files of each are divided into splits by the hashes of their paths (splitting.stratified).
    names: the classes in order; None: the names of the folders, sorted. fractions: of train, validation and test.
    Raises ValueError if there is no class, a folder is none of the names, or a fraction is negative.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder: it must hold one folder a class")
    folders = _folders(root)
    splits = {SPLIT_FOLDERS[folder.name]: folder for folder in folders if folder.name in SPLIT_FOLDERS}
    found: list[tuple[str, str, str]] = []  # split, class, path
    if folders and len(splits) == len(folders):
        for split, folder in splits.items():
            found += [(split, kind, str(file)) for kind, file in _files(folder)]
    else:
        check_fractions(fractions)
        kinds = {file.relative_to(root).as_posix(): kind for kind, file in _files(root)}
        split_of = stratified({name: (kind,) for name, kind in kinds.items()}, fractions)
        found += [(split_of[name], kind, str(root / name)) for name, kind in kinds.items()]
    if not found:
        raise ValueError(
            f"{root} holds no files in folders: it must hold one folder a class, or one a split with those"
        )
    known = given_names(names) if names is not None else tuple(sorted({kind for _, kind, _ in found}))
    number = {name: index for index, name in enumerate(known)}
    strangers = sorted({kind for _, kind, _ in found} - set(known))
    if strangers:
        raise ValueError(
            f"{root} has the folders {', '.join(strangers[:5])}: they must be among the {len(known)} names"
        )
    return {
        split: Dataset(
            tuple(Example(path, ((number[kind],),)) for where, kind, path in found if where == split),
            ("label",),
            (known,),
        )
        for split in SPLITS
        if any(where == split for where, _, _ in found)
    }


def given_names(names: Names) -> tuple[str, ...]:
    """The labels of one head in order, from a sequence or from a file with one a line.

    Raises ValueError if there is none or one is there twice.
    """
    where = "names"
    if isinstance(names, (str, Path)):
        where = str(names)
        if not Path(names).is_file():
            raise ValueError(f"{names} is not a file: it must hold one label a line")
        names = [line.strip() for line in Path(names).read_text(encoding="utf-8").splitlines() if line.strip()]
    names = tuple(names)
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice or not names:
        raise ValueError(
            f"{where} has {f'{quoted(twice[0])} twice' if twice else 'no label'}: it must name every label once"
        )
    return names


def _folders(root: Path) -> list[Path]:
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _files(root: Path) -> list[tuple[str, Path]]:
    """Pairs of a class and a file in its folder or below, hidden ones left out, sorted."""
    return [
        (folder.name, file)
        for folder in _folders(root)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)
    ]
