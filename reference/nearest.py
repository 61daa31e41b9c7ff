"""Suggests the known name that is most similar to an unknown one, for error messages."""

import difflib
from collections.abc import Iterable

CUTOFF = 0.65  # difflib's similarity ratio, from 0 to 1 (identical)
MAX_CHARACTERS = 200  # characters compared


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Returns "did you mean 'x'? " with the most similar known name, or "" if none is similar. Ignores case."""
    if not isinstance(name, str):
        return ""
    by_folded = {other.casefold(): other for other in known}
    near = difflib.get_close_matches(name[:MAX_CHARACTERS].casefold(), by_folded, 1, CUTOFF)
    return f"did you mean {by_folded[near[0]]!r}? " if near else ""
