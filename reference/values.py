"""Checks of single values, and the text of a value in an error message, shortened to a maximum length."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

MAX_CHARACTERS = 200  # characters of one value in a message
MAX_COUNT = 2**31 - 1  # the largest count of anything: XLA and FFmpeg use 32-bit integers


def quoted(value: object) -> str:
    """Returns repr(value), with the middle omitted if it is long."""
    if isinstance(value, int) and value.bit_length() > 1024:  # Python limits the digits that it converts
        return f"an integer of some {int(value.bit_length() * math.log10(2)):,} digits"
    try:
        return shortened(repr(value))
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that is too large to be shown"


def shortened(text: str) -> str:
    """Returns at most MAX_CHARACTERS characters of a text: its beginning and its end."""
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2 - 1
    return f"{text[:half]}…{text[-half:]}"


def one_line(text: str) -> str:
    """Returns a message on one line, with every word (such as a path) shortened to MAX_CHARACTERS characters."""
    lines = (line.strip() for line in text.strip().splitlines())
    return re.sub(r"\S+", lambda word: shortened(word[0]), " ".join(lines))


@contextmanager
def short_errors() -> Iterator[None]:
    """Shortens the message of any ValueError raised in the block to one line, including those of other libraries."""
    try:
        yield
    except ValueError as error:
        text = one_line(str(error))
        if type(error) is ValueError and text != str(error):
            raise ValueError(text) from None
        raise


def is_number(value: object) -> bool:
    """Returns True for a finite real number that a float can hold, except bool."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_count(value: object, least: int = 1) -> bool:
    """Returns True for an integer from `least` to MAX_COUNT, except bool."""
    return type(value) is int and least <= value <= MAX_COUNT


def check_count(name: str, value: object) -> None:
    """Raises ValueError, naming the argument, unless the value is an integer from 1 to MAX_COUNT."""
    if not is_count(value):
        raise ValueError(f"{name} is {quoted(value)}: it must be at least 1, and at most {MAX_COUNT}")
