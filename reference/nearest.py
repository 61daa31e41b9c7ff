"""What somebody who wrote an unknown name may have meant, for the message that refuses it."""

import difflib
from collections.abc import Iterable

ALIKE = 0.65  # difflib's measure, of which 1 is the same
LONGEST = 200  # characters that are compared


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """ "did you mean 'x'? ", with the known name that is most similar, or "" if none is. Case is no difference."""
    if not isinstance(name, str):
        return ""
    by_folded = {other.casefold(): other for other in known}
    near = difflib.get_close_matches(name[:LONGEST].casefold(), by_folded, 1, ALIKE)
    return f"did you mean {by_folded[near[0]]!r}? " if near else ""
