"""Reads untrusted JSON files and checks the types of their fields.

Each error is one line with the file, the field, its value and the requirement. Config, Preprocessing and Recipe check
the values of their own fields.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from vivit.reference.values import MAX_COUNT, is_count, is_number, quoted, shortened

MAX_BYTES = 2**24  # the index of a sharded model has about 100 kB
MAX_DEPTH = 64  # nested lists and objects
_REQUIRED: Any = object()

Made = TypeVar("Made")


class Fields:
    """The fields of a JSON object, and its source: "config.json", or "config.json: preprocessing" for a nested object.

    Every getter returns `default` for a missing field; without a default the field is required. The value null is
    allowed only if the default is None.
    """

    def __init__(self, values: dict[str, Any], source: str) -> None:
        self.values, self.source = values, source

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str, required: str, fits: Callable[[Any], bool], default: Any = _REQUIRED) -> Any:
        """Returns the value of a field.

        Raises ValueError if `fits` rejects it. required: the requirement, for the error.
        """
        value = self.values.get(name, default)
        if value is _REQUIRED:
            raise ValueError(f"{self.source}: {name} is missing: it must be {required}")
        if value is not default and not fits(value):
            raise self.wrong(name, required)
        return value

    def wrong(self, name: str, required: str) -> ValueError:
        """Returns the error for a field whose value does not meet a requirement."""
        return ValueError(f"{self.source}: {name} is {quoted(self.values.get(name))}: it must be {required}")

    def text(self, name: str, default: Any = _REQUIRED) -> str:
        """Returns a string."""
        return self.get(name, "a text", lambda value: isinstance(value, str), default)

    def choice(self, name: str, choices: Iterable[Any], default: Any = _REQUIRED) -> Any:
        """Returns one of the choices; 1 is not True."""
        choices = tuple(choices)
        listed = " or ".join(map(str, choices)) if len(choices) < 3 else f"one of {', '.join(map(str, choices))}"
        return self.get(
            name, listed, lambda value: any(type(value) is type(one) and value == one for one in choices), default
        )

    def flag(self, name: str, default: Any = _REQUIRED) -> bool:
        """Returns a bool."""
        return self.get(name, "true or false", lambda value: isinstance(value, bool), default)

    def count(self, name: str, default: Any = _REQUIRED, *, least: int = 1) -> int:
        """Returns an integer from `least` to MAX_COUNT."""
        return self.get(name, f"an integer, {least} to {MAX_COUNT}", lambda value: is_count(value, least), default)

    def number(self, name: str, default: Any = _REQUIRED) -> float:
        """Returns a finite number."""
        return self.get(name, "a finite number", is_number, default)

    def numbers(self, name: str, length: int, default: Any = _REQUIRED) -> list[float]:
        """Returns a list of `length` finite numbers."""
        return self.get(name, f"{length} finite numbers", lambda value: _is_list(value, is_number, length), default)

    def counts(self, name: str, length: int | None = None, default: Any = _REQUIRED) -> list[int]:
        """Returns a list of `length` positive integers; None: of any length."""
        required = f"{'' if length is None else f'{length} '}positive integers"
        return self.get(name, required, lambda value: _is_list(value, is_count, length), default)

    def texts(self, name: str, default: Any = _REQUIRED) -> list[str]:
        """Returns a list of strings."""
        return self.get(
            name, "a list of texts", lambda value: _is_list(value, lambda one: isinstance(one, str)), default
        )

    def object(self, name: str, default: Any = _REQUIRED) -> "Fields":
        """Returns a nested object."""
        value = self.get(name, "a JSON object", lambda value: isinstance(value, dict), default)
        return Fields(value, f"{self.source}: {name}") if isinstance(value, dict) else value

    def check_names(self, known: Iterable[str], of: str) -> None:
        """Raises ValueError for fields with other names. of: the type that has no such field."""
        if unknown := sorted(self.values.keys() - set(known)):
            raise ValueError(f"{self.source} has {shortened(', '.join(unknown))}: {of} has no such field")

    def build(self, make: Callable[..., Made]) -> Made:
        """Returns the dataclass with these fields.

        Unknown and missing fields raise ValueError; the dataclass checks the values.
        """
        known = fields(make)  # pyright: ignore[reportArgumentType]
        name = getattr(make, "__name__", "it")
        self.check_names([field.name for field in known], name)
        for field in known:
            if field.name not in self.values and field.default is MISSING and field.default_factory is MISSING:
                raise ValueError(f"{self.source}: {field.name} is missing: {name} requires it")
        return self.call(make, **self.values)

    def call(self, make: Callable[..., Made], **values: Any) -> Made:
        """Returns make(**values), and adds the file's name to its ValueError."""
        try:
            return make(**values)
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}") from None


def read_object(path: str | Path, max_bytes: int | None = None) -> Fields:
    """Returns the object in a JSON file.

    Raises ValueError, naming the file, if it is not an object, too large or too deep.
    """
    path = Path(path)
    size, max_bytes = path.stat().st_size, MAX_BYTES if max_bytes is None else max_bytes
    if size > max_bytes:
        raise ValueError(f"{path} has {size:,} bytes: it must have at most {max_bytes:,}")
    try:
        return parse_object(path.read_text("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None


def parse_object(text: str, source: str) -> Fields:
    """Returns the object in a JSON text. source: the file, for errors. Raises ValueError as read_object does."""
    value = parse_json(text, source)
    if not isinstance(value, dict):
        raise ValueError(f"{source} holds {_TYPE_NAMES.get(type(value), 'a number')}: it must be a JSON object")
    return Fields(value, source)


def parse_json(text: str, source: str) -> Any:
    """Returns the value of a JSON text.

    Raises ValueError if it is not JSON, nested too deeply, or has a duplicate field.
    """
    try:
        return decode_json(text)
    except ValueError as error:
        raise ValueError(f"{source} cannot be read as JSON: {error}") from None


def decode_json(text: str) -> Any:
    """As parse_json, but its errors do not name the source."""
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        value = None
        deep = True
    else:
        deep = text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH)
    if deep:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    return value


_TYPE_NAMES = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {quoted(twice)} twice: a field must occur once")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_fields)  # created once: tables have a million lines


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
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
