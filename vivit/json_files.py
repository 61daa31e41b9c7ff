"""JSON out of files that nobody trusts, and its fields with the types that they must have.

What is wrong is one line that names the file, the field, the value and what it must be. Of a field itself, what Config,
Preprocessing and Recipe require of theirs is said there.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from vivit.reference.values import MOST, is_count, is_number, quoted, shortened

LARGEST = 2**24  # bytes; the index of a sharded model has some 100 kB
DEEPEST = 64  # lists and objects within each other
_REQUIRED: Any = object()

Made = TypeVar("Made")


class Fields:
    """A JSON object and where it stands: "config.json", or "config.json: preprocessing" of an object within.

    Every getter takes what stands in the place of a field that is missing; without that the field is required. None
    stands only where None is given so.
    """

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str, required: str, fits: Callable[[Any], bool], otherwise: Any = _REQUIRED) -> Any:
        """The value of a field that fits. required: what it must be, for the error."""
        value = self.values.get(name, otherwise)
        if value is _REQUIRED:
            raise ValueError(f"{self.where}: {name} is missing: it must be {required}")
        if value is not otherwise and not fits(value):
            raise self.wrong(name, required)
        return value

    def wrong(self, name: str, required: str) -> ValueError:
        """The error for a field of another value than it must have."""
        return ValueError(f"{self.where}: {name} is {quoted(self.values.get(name))}: it must be {required}")

    def text(self, name: str, otherwise: Any = _REQUIRED) -> str:
        return self.get(name, "a text", lambda value: isinstance(value, str), otherwise)

    def choice(self, name: str, choices: Iterable[Any], otherwise: Any = _REQUIRED) -> Any:
        """One of these; 1 is not True."""
        choices = tuple(choices)
        listed = " or ".join(map(str, choices)) if len(choices) < 3 else f"one of {', '.join(map(str, choices))}"
        return self.get(
            name, listed, lambda value: any(type(value) is type(one) and value == one for one in choices), otherwise
        )

    def flag(self, name: str, otherwise: Any = _REQUIRED) -> bool:
        return self.get(name, "true or false", lambda value: isinstance(value, bool), otherwise)

    def count(self, name: str, otherwise: Any = _REQUIRED, *, least: int = 1) -> int:
        return self.get(name, f"an integer, {least} to {MOST}", lambda value: is_count(value, least), otherwise)

    def number(self, name: str, otherwise: Any = _REQUIRED) -> float:
        return self.get(name, "a finite number", is_number, otherwise)

    def numbers(self, name: str, length: int, otherwise: Any = _REQUIRED) -> list[float]:
        """So many finite numbers."""
        return self.get(name, f"{length} finite numbers", lambda value: _is_list(value, is_number, length), otherwise)

    def counts(self, name: str, length: int | None = None, otherwise: Any = _REQUIRED) -> list[int]:
        """So many positive integers; None: any number of them."""
        required = f"{'' if length is None else f'{length} '}positive integers"
        return self.get(name, required, lambda value: _is_list(value, is_count, length), otherwise)

    def texts(self, name: str, otherwise: Any = _REQUIRED) -> list[str]:
        return self.get(
            name, "a list of texts", lambda value: _is_list(value, lambda one: isinstance(one, str)), otherwise
        )

    def object(self, name: str, otherwise: Any = _REQUIRED) -> "Fields":
        """An object within this one."""
        value = self.get(name, "a JSON object", lambda value: isinstance(value, dict), otherwise)
        return Fields(value, f"{self.where}: {name}") if isinstance(value, dict) else value

    def check_names(self, known: Iterable[str], of: str) -> None:
        """Raises ValueError if there is a field of another name. of: what has no such field."""
        if unknown := sorted(self.values.keys() - set(known)):
            raise ValueError(f"{self.where} has {shortened(', '.join(unknown))}: {of} has no such field")

    def made(self, kind: Callable[..., Made]) -> Made:
        """The dataclass of which these are the fields; it checks their values itself."""
        known = fields(kind)  # pyright: ignore[reportArgumentType]
        name = getattr(kind, "__name__", "it")
        self.check_names([field.name for field in known], name)
        for field in known:
            if field.name not in self.values and field.default is MISSING and field.default_factory is MISSING:
                raise ValueError(f"{self.where}: {field.name} is missing: {name} requires it")
        return self.checked(kind, **self.values)

    def checked(self, kind: Callable[..., Made], **values: Any) -> Made:
        """kind(**values); its error gets the file's name."""
        try:
            return kind(**values)
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from None


def read_object(path: str | Path, largest: int | None = None) -> Fields:
    """The object in a JSON file. Raises ValueError, naming the file, if it is not one or is absurdly large or deep."""
    path = Path(path)
    size, largest = path.stat().st_size, LARGEST if largest is None else largest
    if size > largest:
        raise ValueError(f"{path} has {size:,} bytes: it must have at most {largest:,}")
    try:
        return as_object(path.read_text("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None


def as_object(text: str, where: str) -> Fields:
    """The object that a text is, in JSON. where: the file that it is from. Raises as read_object."""
    value = parsed(text, where)
    if not isinstance(value, dict):
        raise ValueError(f"{where} holds {_KINDS.get(type(value), 'a number')}: it must be a JSON object")
    return Fields(value, where)


def parsed(text: str, where: str) -> Any:
    """The value that a text is, in JSON. Raises ValueError if it is not, is too deep, or names a field twice."""
    try:
        return decoded(text)
    except ValueError as error:
        raise ValueError(f"{where} cannot be read as JSON: {error}") from None


def decoded(text: str) -> Any:
    """As parsed, where the caller says what the text is from."""
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        value = None
        deep = True
    else:
        deep = text.count("[") + text.count("{") > DEEPEST and _deeper(value, DEEPEST)
    if deep:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    return value


_KINDS = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {quoted(twice)} twice: a field must be there once")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_once)  # made once: tables have a million lines


def _deeper(value: Any, deepest: int) -> bool:
    level = [value]
    for _ in range(deepest):
        if not level:
            break
        level = [
            part
            for one in level
            if isinstance(one, (dict, list))
            for part in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(one, (dict, list)) for one in level)


def _is_list(value: Any, fits: Callable[[Any], bool], length: int | None = None) -> bool:
    return isinstance(value, list) and length in (None, len(value)) and all(map(fits, value))
