"""Reads the compiler's dump of one Pallas kernel: its very long instruction words ("bundles") and the units they use.

A bundle takes one cycle, `vdelay n` takes n more. `>` marks nesting: depth 0 runs once, depth 1 is the loop over the
grid, deeper ones are the kernel's loops, which count from 0 to a constant. Branches (`pl.when`) count as taken. The
short loops in which the pipeline copies partial blocks at an edge count once, because their length depends on the step.
Waits for memory are not included.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

BUNDLE = re.compile(r"\s*(?:0x[0-9a-f]+|0)\s+(?P<label>[A-Z]*):\s*(?P<depth>(?:> ?)*)\{")
DELAY = re.compile(r"\bvdelay (\d+)")
PUSH = re.compile(r"\bvmatmul\.(?P<form>[\w.]*)mxu(?P<unit>\d)")
EXIT = re.compile(r"\bscmp\.ge\.s32\.totalorder %\w+, (\d+) /\* loop exit test")
REMAINDER = 100  # bundles of the longest loop that may copy the rest of a block
ROWS = {"f32": 8, "bf16": 16}  # of the left operand, in one push


@dataclass
class Part:
    """The bundles of one loop, including those of inner loops."""

    cycles: int = 0
    trips: int | None = None  # how often its loop runs, as far as the program tells
    rows: dict[str, int] = field(default_factory=dict)  # pushed into each matrix unit
    busy: dict[str, int] = field(default_factory=dict)  # slots filled, by unit

    def add(self, inner: "Part") -> None:
        """Adds a loop inside this one. Raises ValueError if its length is unknown."""
        trips = 1 if inner.trips is None and inner.cycles <= REMAINDER else inner.trips
        if trips is None:
            raise ValueError("the kernel has a loop inside a grid step whose length is not in the dump")
        self.cycles += trips * inner.cycles
        for own, theirs in ((self.rows, inner.rows), (self.busy, inner.busy)):
            for name, count in theirs.items():
                own[name] = own.get(name, 0) + trips * count


@dataclass(frozen=True)
class Program:
    """A kernel's program: the bundles that run once, those that run in each grid step, and the slots of a bundle."""

    once: Part
    step: Part
    slots: dict[str, int]

    def cycles(self, steps: int) -> int:
        return self.once.cycles + steps * self.step.cycles

    def rows(self, steps: int) -> int:
        """Rows pushed into the busiest matrix unit."""
        units = {*self.once.rows, *self.step.rows}
        return max((self.once.rows.get(unit, 0) + steps * self.step.rows.get(unit, 0) for unit in units), default=0)

    def all_rows(self, steps: int) -> int:
        """Rows pushed into all matrix units together."""
        return sum(self.once.rows.values()) + steps * sum(self.step.rows.values())

    def busy(self, steps: int) -> dict[str, float]:
        """Cycles of each unit if all its slots were filled."""
        return {
            unit: (self.once.busy.get(unit, 0) + steps * self.step.busy.get(unit, 0)) / slots
            for unit, slots in self.slots.items()
        }


def read(bundles: Path, utilisation: Path) -> Program:
    """Returns the program of a kernel from its two files. Raises ValueError if they cannot be parsed."""
    return parse(bundles.read_text().splitlines(), utilisation.read_text().splitlines())


def parse(bundles: Iterable[str], utilisation: Iterable[str]) -> Program:
    """Returns the program from the lines of the two files."""
    names, slots, busy = _utilisation(utilisation)
    nest = [Part(), Part()]  # from the outermost loop to the one that is being read; the grid's is always there
    bundle = 0
    for line, label, depth in _nested(bundles):
        while len(nest) > max(depth + 1, 2) or (label == "LB" and len(nest) == depth + 1 > 2):
            inner = nest.pop()
            nest[-1].add(inner)
        nest += [Part() for _ in range(depth + 1 - len(nest))]
        part = nest[depth]
        part.cycles += 1 + sum(int(cycles) for cycles in DELAY.findall(line))
        ends = EXIT.search(line)
        if ends:
            part.trips = int(ends[1])
        for push in PUSH.finditer(line):
            form = "bf16" if "bf16" in push["form"] else "f32"
            part.rows[push["unit"]] = part.rows.get(push["unit"], 0) + ROWS[form]
        if bundle < len(busy):
            for name, filled in zip(names, busy[bundle], strict=True):
                part.busy[name] = part.busy.get(name, 0) + filled
        bundle += 1
    while len(nest) > 2:
        inner = nest.pop()
        nest[-1].add(inner)
    if not bundle:
        raise ValueError("no bundles in the compiler's dump: its format is not the one that is known here")
    if abs(len(busy) - bundle) > 2:
        raise ValueError(
            f"{bundle} bundles, but the utilisation of {len(busy)}: the dump's format is not the known one"
        )
    return Program(nest[0], nest[1], dict(zip(names, slots, strict=True)))


def _nested(bundles: Iterable[str]) -> list[tuple[str, str, int]]:
    """(line, label, depth) of every bundle, those inside a loop at least as deep as the loop.

    The marks alone are not enough: a bundle in a loop's body that also holds something of the loop around is marked
    with that one's depth. A loop goes from its label to the last bundle of its depth before another label.
    """
    found = [(line, match) for line in bundles if (match := BUNDLE.match(line))]
    labels = [match["label"] for _, match in found]
    depths = [match["depth"].count(">") for _, match in found]
    for first, (label, depth) in enumerate(zip(labels, list(depths), strict=True)):
        if label != "LB":
            continue
        last = first
        for i in range(first + 1, len(found)):
            if labels[i] and (depths[i] < depth or (labels[i] == "LB" and depths[i] == depth)):
                break
            last = i if depths[i] >= depth else last
        depths[first : last + 1] = [max(depth, each) for each in depths[first : last + 1]]
    return [(line, label, depth) for (line, _), label, depth in zip(found, labels, depths, strict=True)]


def _utilisation(lines: Iterable[str]) -> tuple[list[str], list[int], list[list[int]]]:
    """Returns the names of the units, their slots per bundle, and the filled slots of every bundle."""
    names: list[str] = []
    numbers = []
    for line in lines:
        if line.startswith("MXU"):
            names = [name.strip() for name in line.split(",")]
        elif line.strip() and all(word.isdigit() for word in line.split()):
            numbers.append([int(word) for word in line.split()])
    if not names or not numbers or any(len(row) != len(names) for row in numbers):
        raise ValueError("the compiler's utilisation table is not in the known format")
    return names, numbers[0], numbers[1:]
