"""Labelled videos for training and evaluation, from a folder per class; the Dataset type that tables.py shares.

Files are listed, not opened: an unreadable file is reported when it is loaded. Videos are assigned to splits by a hash
of their path, separately for each class, so that every split has every class.
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vivit.files.paths import as_path, entries, is_file, is_folder, printable
from vivit.reference.values import quoted
from vivit.video.inputs import Listing, videos_below

SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}

_log = logging.getLogger("vivit.data")

Names = Sequence[str] | str | Path  # the labels of one head, or a file with one label per line


@dataclass(frozen=True)
class Example:
    """A labelled video, or a segment of one.

    labels: for every head, the indices of its labels. start, end: in seconds since the first frame; None: the video's.
    """

    path: str
    labels: tuple[tuple[int, ...], ...]
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Dataset:
    """Examples and the names of their labels.

    heads: such as ("verb", "noun"). names: the label names of every head. multi_label: an example can have any number
    of labels per head.
    """

    examples: tuple[Example, ...]
    heads: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    multi_label: bool = False

    @property
    def classes(self) -> tuple[int, ...]:
        """The number of labels of every head, as in `Config.classes`."""
        return tuple(len(names) for names in self.names)


def label_vector(dataset: Dataset, example: Example) -> np.ndarray:
    """Returns float32[v] with 1 at the example's labels; heads are concatenated as in the logits."""
    vector = np.zeros(sum(dataset.classes), np.float32)
    offset = 0
    for labels, count in zip(example.labels, dataset.classes, strict=True):
        vector[[offset + label for label in labels]] = 1
        offset += count
    return vector


def read_folder(
    root: str | Path, *, names: Names | None = None, fractions: Sequence[float] = (0.8, 0.1, 0.1)
) -> dict[str, Dataset]:
    """Returns datasets by split from root/<split>/<class>/… or root/<class>/…. Leaves out files without a video suffix.

    If all folders with videos are named train, validation (or val) or test, they are the splits. Otherwise they are the
    classes, and the videos of each class are split by the hashes of their paths (`stratified`). Folders without videos,
    such as a training run's, are ignored. A warning gives the number of files left out.
    names: the classes in order; None: the sorted folder names. fractions: of train, validation and test.
    Raises ValueError if there is no class, a folder cannot be read, a folder is not among the names, or a fraction is
    negative.
    """
    root = as_path(root)
    if not is_folder(root):
        raise ValueError(f"{root} is not a folder: it must contain one folder per class")
    listed = _with_videos(root)
    if listed and all(folder.name in SPLIT_FOLDERS for folder in listed):
        labelled = [
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
        labelled = [(split_of[name], kind, str(root / name)) for name, kind in kinds.items()]
    if not labelled:
        raise ValueError(
            f"{root} has no videos in folders: it must contain one folder per class, or one per split with those inside"
        )
    used = {path for _, _, path in labelled}
    everything = [path for inside in listed.values() for path in (*inside.videos, *inside.others)]
    _warn_left_out(root, [path for path in everything if str(path) not in used])
    known = label_names(names) if names is not None else tuple(sorted({kind for _, kind, _ in labelled}))
    number = {name: index for index, name in enumerate(known)}
    unknown = sorted({kind for _, kind, _ in labelled} - set(known))
    if unknown:
        raise ValueError(f"{root} has the folders {', '.join(unknown[:5])}: they must be among the {len(known)} names")
    return {
        split: Dataset(
            tuple(Example(path, ((number[kind],),)) for where, kind, path in labelled if where == split),
            ("label",),
            (known,),
        )
        for split in SPLITS
        if any(where == split for where, _, _ in labelled)
    }


def label_names(names: Names) -> tuple[str, ...]:
    """Returns the labels of one head in order, from a sequence or from a file with one label per line.

    Raises ValueError if there is no label or a label is repeated.
    """
    where = "names"
    if isinstance(names, (str, Path)):
        where = str(names)
        if not is_file(names):
            raise ValueError(f"{names} is not a file: it must contain one label per line")
        names = [line.strip() for line in Path(names).read_text(encoding="utf-8").splitlines() if line.strip()]
    names = tuple(names)
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated or not names:
        raise ValueError(
            f"{where} has {f'{quoted(repeated[0])} twice' if repeated else 'no label'}: it must name every label once"
        )
    return names


def _with_videos(root: Path) -> dict[Path, Listing]:
    """Returns the folders that contain a video at any depth, with their listings, sorted. Ignores hidden folders."""
    listings = {folder: videos_below(folder) for folder in entries(root) if is_folder(folder)}
    return {folder: inside for folder, inside in listings.items() if inside.videos}


def _warn_left_out(root: Path, files: list[Path]) -> None:
    if files:
        count = "a file is" if len(files) == 1 else f"{len(files):,} files are"
        why = "no video by its name, or in no class's folder"
        _log.warning("%s: %s left out, such as %s: %s", root, count, printable(str(files[0].relative_to(root))), why)


SPLITS = ("train", "validation", "test")


def check_fractions(fractions: Sequence[float]) -> None:
    """Raises ValueError unless there are three fractions, none negative, with sum 1."""
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions is {tuple(fractions)}: it must be three, with sum 1")


def stratified(labels: Mapping[str, Collection[Any]], fractions: Sequence[float]) -> dict[str, str]:
    """Assigns each path to a split, stratified by label. labels: the different labels of each path, sortable.

    A video with several labels is stratified by the rarest. The videos of a label are ordered by a hash of their paths
    and divided in the proportions of the fractions; every split gets at least one while there are enough, train first.
    When videos of a label are added or removed, few others of that label change splits.
    """
    count = Counter(label for own in labels.values() for label in own)
    groups: dict[Any, list[str]] = defaultdict(list)
    for path, own in labels.items():
        groups[min(own, key=lambda label: (count[label], label)) if len(own) > 1 else next(iter(own), None)].append(
            path
        )
    split_of = {}
    for paths in groups.values():
        paths.sort(key=_hash)
        first = 0
        for split, share in zip(SPLITS, _shares(len(paths), fractions), strict=True):
            split_of.update(dict.fromkeys(paths[first : first + share], split))
            first += share
    return split_of


def _hash(path: str) -> bytes:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()


def _shares(count: int, fractions: Sequence[float]) -> list[int]:
    """Returns the number of items per split: at least one for nonzero fractions, the rest by largest remainder."""
    nonzero = [index for index, fraction in enumerate(fractions) if fraction > 0]
    shares = [int(index in nonzero[:count]) for index in range(len(fractions))]
    for _ in range(count - sum(shares)):
        deficits = [fraction * count - share for fraction, share in zip(fractions, shares, strict=True)]
        shares[deficits.index(max(deficits))] += 1
    return shares
