"""Reads the text of a compiled XLA program: the compiler's estimate of its cycles, and the Pallas kernels it calls.

Every fusion, copy and convolution has `estimated_cycles`. A loop's body is listed once and counts once per iteration
(JAX's loops count from 0 to a constant). Of a conditional, the longest branch counts.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-<>]+) \(.*\) -> .*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(?P<name>[\w.\-<>]+) = (?P<shape>.*?) (?P<opcode>[a-z][a-z\-]*)\(")
ESTIMATE = re.compile(r'"estimated_cycles":"(\d+)"')
SCOPED = re.compile(r'"used_scoped_memory_configs":\[\{"memory_space":"1","offset":"0","size":"(\d+)"')
OPERANDS = re.compile(r"operand_layout_constraints=\{(.*?)\}, \w+=")
SHAPE = re.compile(r"\b[a-z]+\d*\[([\d,]*)\]")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')

NONE = 2**50  # the compiler writes 2**60 for an operation that it has no estimate for


class Kernel(NamedTuple):
    """A call of a Pallas kernel, with the name of its files in the dump."""

    name: str
    operands: tuple[tuple[int, ...], ...]  # their shapes
    results: tuple[tuple[int, ...], ...]
    vmem_bytes: int

    @property
    def base(self) -> str:
        """The name without the number of the call."""
        return re.sub(r"(\.\d+)+$", "", self.name)

    def is_like(self, other: "Kernel") -> bool:
        """Whether another call is of the same kernel: in a gradient it is "jvp_NAME_" or "transpose_jvp_NAME__"."""
        ours, theirs = (re.sub("^(transpose_)?jvp_", "", kernel.base).rstrip("_") for kernel in (self, other))
        return (ours, *self[1:]) == (theirs, *other[1:])


@dataclass
class Cost:
    """The cost of a program: XLA's estimate by kind of operation, and the number of calls of each kernel."""

    estimates: Counter[str] = field(default_factory=Counter)
    kernels: Counter[Kernel] = field(default_factory=Counter)
    unknown: int = 0  # operations without an estimate

    @property
    def estimated_cycles(self) -> int:
        return sum(self.estimates.values())

    def add(self, other: "Cost", times: int = 1) -> None:
        self.unknown += other.unknown
        for kind, cycles in other.estimates.items():
            self.estimates[kind] += times * cycles
        for kernel, calls in other.kernels.items():
            self.kernels[kernel] += times * calls


def cost(text: str) -> Cost:
    """Returns the cost of a compiled program from its text. Raises ValueError if the length of a loop is unknown."""
    lines, entry = computations(text)
    done: dict[str, Cost] = {}

    def of(name: str) -> Cost:
        if name not in done:
            done[name] = Cost()
            for line in lines[name]:
                _add_instruction(done[name], line)
        return done[name]

    def _add_instruction(total: Cost, line: str) -> None:
        found = INSTRUCTION.match(line)
        if not found:
            return
        opcode = found["opcode"]
        for cycles in map(int, ESTIMATE.findall(line)):
            if cycles < NONE:
                total.estimates[_kind(opcode, found["name"], line)] += cycles
            else:
                total.unknown += 1
        if opcode == "custom-call" and 'custom_call_target="tpu_custom_call"' in line:
            operands, scoped = OPERANDS.search(line), SCOPED.search(line)
            kernel = Kernel(
                found["name"],
                _shapes(operands[1] if operands else ""),
                _shapes(found["shape"]),
                int(scoped[1]) if scoped else 0,
            )
            total.kernels[kernel] += 1
        elif opcode == "while":
            total.add(of(attribute(line, "body")), trips(line, lines[attribute(line, "condition")]))
        elif opcode == "conditional":
            names = re.findall(r"%([\w.\-<>]+)", line.partition("branch_computations={")[2].partition("}")[0])
            names = names or [attribute(line, branch) for branch in ("true_computation", "false_computation")]
            total.add(max((of(name) for name in names), key=lambda one: (len(one.kernels), one.estimated_cycles)))
        elif opcode in ("call", "async-start"):
            total.add(of(attribute(line, "to_apply" if opcode == "call" else "calls")))

    return of(entry)


def computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Returns the lines of every computation by name, and the name of the entry."""
    found_lines: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        found = COMPUTATION.match(line)
        if found:
            lines = found_lines[found["name"]] = []
            entry = found["name"] if found["entry"] else entry
        else:
            lines.append(line)
    if not entry:
        raise ValueError("the compiled program has no entry: its text is not in the known format")
    return found_lines, entry


def _shapes(text: str) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(size) for size in sizes.split(",") if size) for sizes in SHAPE.findall(text))


def _kind(opcode: str, name: str, line: str) -> str:
    """Returns "matmul", "copy" (of layout, order or dtype) or "other"."""
    if opcode == "convolution" or "convolution" in name or "kind=kOutput" in line:
        return "matmul"
    return "copy" if opcode.startswith(("copy", "transpose")) or name.startswith(("copy", "transpose")) else "other"


def attribute(line: str, name: str) -> str:
    found = re.search(rf"\b{name}=%?([\w.\-<>]+)", line)
    if not found:
        raise ValueError(f"no {name} in the instruction {line.strip()[:80]!r}")
    return found[1]


def trips(line: str, condition: list[str]) -> int:
    """Returns the trip count of a loop."""
    known = TRIPS.search(line)
    if known:
        return int(known[1])
    constants = {int(value) for one in condition for value in re.findall(r"s32\[\]\S* constant\((\d+)\)", one)}
    if len(constants) != 1 or not any("direction=LT" in one for one in condition):
        raise ValueError("the length of a loop is not to be found in the compiled program")
    return constants.pop()
