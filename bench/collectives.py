"""Reads the text of a compiled XLA program: the data that devices exchange, with each loop's count."""

import math
import re
from collections import Counter
from typing import NamedTuple

from bench.hlo import INSTRUCTION, attribute, computations, trips

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]")
_CALLS = {"fusion": "calls", "call": "to_apply", "async-start": "calls"}


class Traffic(NamedTuple):
    """The collectives of one kind on one device: their number, and the bytes of the unsharded arrays."""

    times: Counter[str]
    bytes: Counter[str]


def collectives(text: str) -> Traffic:
    """Returns the collectives of a compiled program. Raises ValueError if the length of a loop is unknown."""
    lines, entry = computations(text)
    done: dict[str, Traffic] = {}

    def of(name: str) -> Traffic:
        if name not in done:
            done[name] = Traffic(Counter(), Counter())
            for line in lines[name]:
                add(done[name], line)
        return done[name]

    def add(total: Traffic, line: str) -> None:
        found = INSTRUCTION.match(line)
        if not found:
            return
        opcode = found["opcode"]
        kind = opcode.removesuffix("-start")
        if kind in KINDS:
            total.times[kind] += 1
            total.bytes[kind] += _bytes(kind, opcode, found["shape"], line)
        elif opcode == "while":
            times = trips(line, lines[attribute(line, "condition")])
            inner = of(attribute(line, "body"))
            for kind in inner.times:
                total.times[kind] += times * inner.times[kind]
                total.bytes[kind] += times * inner.bytes[kind]
        elif opcode in _CALLS:
            inner = of(attribute(line, _CALLS[opcode]))
            total.times.update(inner.times)
            total.bytes.update(inner.bytes)

    return of(entry)


def _bytes(kind: str, opcode: str, shape: str, line: str) -> int:
    """Returns the bytes of the unsharded array; for an asynchronous tuple, of the larger of operand and result."""
    sizes = [_size(dtype) * math.prod(int(n) for n in dims.split(",") if n) for dtype, dims in _ARRAY.findall(shape)]
    if opcode.endswith("-start") and kind != "all-reduce":
        return max(sizes)
    return sum(sizes) * (_group(line) if kind == "reduce-scatter" else 1)


def _size(dtype: str) -> int:
    return 1 if dtype == "pred" else max(1, int(re.sub(r"\D", "", dtype)) // 8)


def _group(line: str) -> int:
    """Returns the number of devices in a group."""
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]", line)
    if iota:
        return int(iota[1])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    return len(listed[1].split(",")) if listed else 1
