"""Which split a video is in: by a hash of its path within its class, so that every split has every class."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

SPLITS = ("train", "validation", "test")


def check_fractions(fractions: Sequence[float]) -> None:
    """Raises ValueError unless there are three fractions, none negative, that are 1 together."""
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions is {tuple(fractions)}: it must be three of train, validation and test, 1 together")


def stratified(labels: Mapping[str, Collection[Any]], fractions: Sequence[float]) -> dict[str, str]:
    """The split of each path, from the different labels of its video: texts, or what has an order as they have.

    Each video counts for the rarest of its labels. The videos of a label, in the order of a hash of their paths, are
    divided in the proportions of the fractions, but so that each split gets one at least while there are enough, train
    first. So a video changes splits only if others of its label come or go, and few do.
    """
    count = Counter(label for own in labels.values() for label in own)
    groups: dict[Any, list[str]] = defaultdict(list)
    for path, own in labels.items():
        groups[min(own, key=lambda label: (count[label], label)) if len(own) > 1 else next(iter(own), None)].append(
            path
        )
    found = {}
    for paths in groups.values():
        paths.sort(key=_hash)
        first = 0
        for split, share in zip(SPLITS, _shares(len(paths), fractions), strict=True):
            found.update(dict.fromkeys(paths[first : first + share], split))
            first += share
    return found


def _hash(path: str) -> bytes:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()


def _shares(count: int, fractions: Sequence[float]) -> list[int]:
    """How many of each split: one at least of those that are wanted, the rest by the largest remainder."""
    wanted = [place for place, fraction in enumerate(fractions) if fraction > 0]
    shares = [int(place in wanted[:count]) for place in range(len(fractions))]
    for _ in range(count - sum(shares)):
        lacking = [fraction * count - share for fraction, share in zip(fractions, shares, strict=True)]
        shares[lacking.index(max(lacking))] += 1
    return shares
