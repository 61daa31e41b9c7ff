"""What a value must be, and how one that is not stands in an error: shortened, whatever it is."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 200  # characters of one value in a message
MOST = 2**31 - 1  # of anything that is counted: what XLA and FFmpeg count with


def quoted(value: object) -> str:
    """A value as Python writes it, its middle left out if it is long."""
    if isinstance(value, int) and value.bit_length() > 1024:  # Python refuses to write the longest
        return f"an integer of some {int(value.bit_length() * math.log10(2)):,} digits"
    try:
        return shortened(repr(value))
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that is too large to be shown"


def shortened(text: str) -> str:
    """At most LONGEST characters of a text: its beginning and its end."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2 - 1
    return f"{text[:half]}…{text[-half:]}"


def one_line(text: str) -> str:
    """A message on one line, in which no word, such as a path, is longer than a value may be."""
    lines = (line.strip() for line in text.strip().splitlines())
    return re.sub(r"\S+", lambda word: shortened(word[0]), " ".join(lines))


@contextmanager
def short_errors() -> Iterator[None]:
    """What a ValueError says inside becomes such a message, whatever library's words are in it."""
    try:
        yield
    except ValueError as error:
        text = one_line(str(error))
        if type(error) is ValueError and text != str(error):
            raise ValueError(text) from None
        raise


def is_number(value: object) -> bool:
    """Whether this is a finite real number that a float can hold, and no bool."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_count(value: object, least: int = 1) -> bool:
    """Whether this is an integer from `least` to MOST, and no bool."""
    return type(value) is int and least <= value <= MOST
