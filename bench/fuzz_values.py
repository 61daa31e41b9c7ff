"""JSON with one or several faults for fuzz.py: wrong types, extreme numbers, duplicate keys, deep nesting."""

import json
from typing import Any

import numpy as np

from bench.fuzz_videos import damaged

DEEP = "\0deep\0"  # stands for lists within lists, which Python itself cannot write
# 999 and no 1000: a clip of so many frames, which the tubelets divide, would be honest work
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 8, 24, 999, 10**6, 10**9, 2**31, 2**63, 10**18, 10**300, 10**5000),
    *(0.5, -0.5, 1e-300, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", "x", "8", "é\ud800", "a\nb", "\0", "/", "..", "x" * 300, "x" * 5000, DEEP),
    *([], [1], [1, 2], [0, 0, 0], [None], ["x"], [[1]], [1e308] * 3, [2**31] * 3, [1] * 1000),
    *({}, {"a": 1}, {"0": "x"}, {"height": -1, "width": "x"}, {"shortest_edge": 10**6}),
)


def wrong_json(value: Any, generator: np.random.Generator) -> bytes:
    """Returns the text of a JSON value with one to three faults, or with damaged bytes."""
    if generator.random() < 0.15:
        return damaged(json.dumps(value).encode(), generator)
    for _ in range(int(generator.integers(1, 4))):
        value = _changed(value, generator)
    text = _written(value)
    depth = int(10 ** generator.uniform(1, 5))
    text = text.replace(json.dumps(DEEP), "[" * depth + "]" * depth)
    kind = generator.random()
    if kind < 0.05 and isinstance(value, dict) and value:
        name = list(value)[int(generator.integers(len(value)))]
        text = f"{{{json.dumps(name)}: {_written(any_value(generator)).replace(json.dumps(DEEP), '1')}, {text[1:]}"
    elif kind < 0.07:
        text = text[: int(generator.integers(len(text) + 1))]
    return text.encode("utf-8", "surrogatepass")


def any_value(generator: np.random.Generator) -> Any:
    return VALUES[int(generator.integers(len(VALUES)))]


def any_text(generator: np.random.Generator) -> str:
    """Returns a faulty value as text."""
    value = any_value(generator)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10**1000:
        return "1" + "0" * 5000
    return value if isinstance(value, str) else repr(value)


def _changed(value: Any, generator: np.random.Generator) -> Any:
    """Returns a copy with one entry, at any depth, changed, removed or added."""
    inside = isinstance(value, (dict, list)) and len(value) and generator.random() < 0.9
    if not inside:
        return any_value(generator)
    if isinstance(value, list):
        place = int(generator.integers(len(value)))
        return [*value[:place], _changed(value[place], generator), *value[place + 1 :]]
    name = list(value)[int(generator.integers(len(value)))]
    kind = generator.random()
    if kind < 0.1:
        return {key: one for key, one in value.items() if key != name}
    if kind < 0.2:
        return value | {any_text(generator) if generator.random() < 0.5 else name + "x": value[name]}
    return value | {name: _changed(value[name], generator)}


def _written(value: Any) -> str:
    """Returns json.dumps(value), also for integers of any length."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(name))}: {_written(one)}" for name, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10**1000:
        return "1" + "0" * 5000
    return json.dumps(value)
