"""Arrays under the names that a format's table knows, without forgetting what the file calls them."""

import re
from typing import NamedTuple

from vivit.checkpoints.files import Arrays

Rules = tuple[tuple[str, str], ...]  # (pattern, replacement), applied one after the other


class Renamed(NamedTuple):
    """Arrays by the names that we look for, and by those names the names in the file."""

    arrays: Arrays
    called: dict[str, str]


def renamed(given: Arrays | Renamed, rules: Rules = ()) -> Renamed:
    """The same arrays, each name rewritten by every rule. Raises ValueError if two names become one."""
    source = given if isinstance(given, Renamed) else Renamed(given, {name: name for name in given})
    found = Renamed({}, {})
    for name, array in source.arrays.items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in found.arrays:
            raise ValueError(f"{source.called[name]} and {found.called[new]} stand for the same: only one may be there")
        found.arrays[new], found.called[new] = array, source.called[name]
    return found


def under(arrays: Arrays, root: str) -> Renamed:
    """The arrays whose names begin with `root`, by what follows it."""
    chosen = {name: array for name, array in arrays.items() if name.startswith(root)}
    return renamed(chosen, ((f"^{re.escape(root)}", ""),))
