"""What there is to learn from: video files with their labels, from a folder per class or from tables.

Files are listed, not opened: one that cannot be read is reported when it is loaded.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vivit.data.listing import Listing, videos_below
from vivit.data.splitting import SPLITS, check_fractions, stratified
from vivit.paths import as_path, entries, is_file, is_folder
from vivit.printable import printable
from vivit.reference.values import quoted

SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}

_log = logging.getLogger("vivit.data")

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
    """Datasets by split, from root/<split>/<class>/… or root/<class>/…; what is no video by its name is left out.

    Folders without a video, such as one that a training run lives in, are neither. If all others in root are called
    train, validation (or val) and test, they are the splits. Otherwise they are the classes, and the videos of each are
    divided into splits by the hashes of their paths (splitting.stratified). How many files were left out is a warning.
    names: the classes in order; None: the names of the folders, sorted. fractions: of train, validation and test.
    Raises ValueError if there is no class, a folder cannot be read or is none of the names, or a fraction is negative.
    """
    root = as_path(root)
    if not is_folder(root):
        raise ValueError(f"{root} is not a folder: it must hold one folder a class")
    listed = _with_videos(root)
    if listed and all(folder.name in SPLIT_FOLDERS for folder in listed):
        found = [
            (SPLIT_FOLDERS[split.name], folder.name, str(video))
            for split in listed
            for folder, inside in _with_videos(split).items()
            for video in inside.videos
        ]
    else:
        check_fractions(fractions)
        kinds = {
            video.relative_to(root).as_posix(): folder.name
            for folder, inside in listed.items()
            for video in inside.videos
        }
        split_of = stratified({name: (kind,) for name, kind in kinds.items()}, fractions)
        found = [(split_of[name], kind, str(root / name)) for name, kind in kinds.items()]
    if not found:
        raise ValueError(
            f"{root} holds no videos in folders: it must hold one folder a class, or one a split with those"
        )
    used = {path for _, _, path in found}
    everything = [path for inside in listed.values() for path in (*inside.videos, *inside.others)]
    _say_left_out(root, [path for path in everything if str(path) not in used])
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
        if not is_file(names):
            raise ValueError(f"{names} is not a file: it must hold one label a line")
        names = [line.strip() for line in Path(names).read_text(encoding="utf-8").splitlines() if line.strip()]
    names = tuple(names)
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice or not names:
        raise ValueError(
            f"{where} has {f'{quoted(twice[0])} twice' if twice else 'no label'}: it must name every label once"
        )
    return names


def _with_videos(root: Path) -> dict[Path, Listing]:
    """The folders that have a video in them or below, and what they hold; hidden ones left out, sorted."""
    found = {folder: videos_below(folder) for folder in entries(root) if is_folder(folder)}
    return {folder: inside for folder, inside in found.items() if inside.videos}


def _say_left_out(root: Path, files: list[Path]) -> None:
    if files:
        count = "a file is" if len(files) == 1 else f"{len(files):,} files are"
        why = "no video by its name, or in no class's folder"
        _log.warning("%s: %s left out, such as %s: %s", root, count, printable(str(files[0].relative_to(root))), why)
