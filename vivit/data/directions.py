"""Which labels look like directions, and whether that goes with flipping clips from left to right.

Words are all it looks at, and only English ones: no warning is no proof that flips do no harm.
"""

import re
from collections.abc import Iterable

from vivit.data.augmentation import Augmentation
from vivit.reference.values import quoted

# what a mirror changes: up and down, near and far stay what they are
_DIRECTION = re.compile(
    r"(left|right)(wards?|most|hand|handed|side)?|(anti|counter)?clockwise|c?cw", re.IGNORECASE | re.ASCII
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # also those of turn_left, TurnLeft and PAN-LEFT


def directions(labels: Iterable[str]) -> list[str]:
    """Those of the labels that name a side or a sense of rotation, such as "Pushing something from left to right"."""
    return [label for label in labels if any(map(_DIRECTION.fullmatch, _WORD.findall(label)))]


def check_flips(options: Augmentation, labels: Iterable[str]) -> str | None:
    """One line of warning if clips are flipped though labels look like directions; None if there is nothing to say."""
    labels = list(labels)
    found = directions(labels)
    if not options.flip or not found:
        return None
    return (
        f"flip is {options.flip}, but {len(found)} of {len(labels)} labels look like directions, such as "
        f"{quoted(found[0])}: "
        "a flipped clip would keep the label of the other direction, so flip should be 0"
    )
