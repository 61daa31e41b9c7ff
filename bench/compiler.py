"""Compiles a function for a TPU without the device and reads the schedule: cycles, and the units that use them.

A program's cycles are XLA's estimate for its operations, plus for each Pallas kernel the largest of three numbers: the
bundles of the compiler's schedule times the steps of the grid; the rows pushed into the busiest matrix unit (schedules
for v4 and v5e push them up to 1.3 times faster than a matrix unit accepts them); the bytes moved at XLA's assumed
bandwidth. These are static schedules, not timings.

The process must be started with chips.environment. `check` verifies that the dump is read correctly.
"""

import glob
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental import topologies
from jax.experimental.layout import Format, Layout

from bench import bundles, hlo, pallas_calls
from bench.chips import Chip

UNITS = {  # columns of the dump, by the words for them; the matrix unit and memory are counted otherwise
    "VPU": ("VALU",),
    "EUP": ("EUP",),
    "XLU": ("XLU",),
    "load": ("VLOAD", "VLOAD:FILL"),
    "store": ("VSTORE", "VSTORE:SPILL"),
}
CHECK_LIMITS = (1.0, 1.3)  # cycles of the known kernel, as a multiple of what its matrix units need
CHECK_ROWS, CHECK_SIZE = 512, 768  # rows of a step, channels in and out of the known kernel


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """All calls of one Pallas kernel in a program, with their total cycles."""

    name: str
    calls: int
    steps: int
    schedule_cycles: float  # bundles x steps
    matrix_cycles: float  # rows pushed, at the matrix unit's rate
    memory_cycles: float  # bytes moved, at the bandwidth
    memory_exact: bool  # False: a lower bound
    multiply_adds: float  # that the pushes are worth, those on padding included
    busy: dict[str, float]  # cycles in which each unit's slots are all filled
    vmem_bytes: int

    @property
    def cycles(self) -> float:
        return max(self.schedule_cycles, self.matrix_cycles, self.memory_cycles)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A compiled program."""

    cycles: float
    unknown: int  # operations that XLA has no estimate for; they are not in the cycles
    estimates: dict[str, int]  # XLA's cycles by kind of operation
    kernels: list[dict]  # Kernel, as plain values
    busy: dict[str, float]  # cycles of each unit in the kernels; "copies" and "other" of XLA's part
    temporary_bytes: int
    held_bytes: int  # arguments and results; what is donated counts once
    vmem_bytes: int
    compile_seconds: float

    @property
    def limiting(self) -> tuple[str, float]:
        """The unit with the largest fraction of busy cycles, and that fraction."""
        unit = max(self.busy, key=lambda name: self.busy[name])
        return unit, self.busy[unit] / self.cycles


class Compiler:
    """The compiler for one chip, in this process."""

    def __init__(self, chip: Chip, dump: Path):
        self.chip, self.dump = chip, dump
        topology = topologies.get_topology_desc(platform="tpu", topology_name=chip.topology)
        self.mesh = jax.sharding.Mesh(np.array(topology.devices[:1]), ("device",))
        self.sharding = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())

    def abstract(self, shape: Sequence[int], dtype: Any) -> jax.ShapeDtypeStruct:
        """Returns an abstract argument of this shape on the chip."""
        return jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype), sharding=self.sharding)

    def compile(self, function: Callable[..., Any], arguments: tuple, layout: str) -> tuple[Any, Any, float]:
        """Returns (traced, compiled, seconds). A function that is jitted already keeps its options."""
        jitted: Any = function if hasattr(function, "trace") else jax.jit(function)
        if layout == "auto":
            arguments = jax.tree.map(lambda one: jax.ShapeDtypeStruct(one.shape, one.dtype), arguments)
            preferred = Format(Layout.AUTO, self.sharding)
            jitted = jax.jit(function, in_shardings=preferred, out_shardings=preferred)
        for file in self.dump.iterdir():
            file.unlink()
        start = time.perf_counter()
        with jax.set_mesh(self.mesh):
            traced = jitted.trace(*arguments)
            compiled = traced.lower().compile()
        return traced, compiled, time.perf_counter() - start

    def schedule(self, function: Callable[..., Any], *arguments: Any, layout: str = "default") -> Schedule:
        """Returns the schedule of function(*arguments). arguments: abstract.

        layout: "default", XLA's for arguments and results, or "auto", the one that the program prefers.
        Raises ValueError where something is not understood.
        """
        traced, compiled, seconds = self.compile(function, arguments, layout)
        cost = hlo.cost(compiled.as_text())
        memory = compiled.memory_analysis()
        known = list(pallas_calls.calls(traced.jaxpr.jaxpr))
        kernels = [self._kernel(called, times, known, list(cost.kernels)) for called, times in cost.kernels.items()]
        busy: dict[str, float] = {"XLA " + kind: cycles for kind, cycles in cost.estimates.items()}
        for kernel in kernels:
            for unit, cycles in kernel.busy.items():
                busy[unit] = busy.get(unit, 0.0) + cycles
        return Schedule(
            cycles=cost.estimated_cycles + sum(kernel.cycles for kernel in kernels),
            unknown=cost.unknown,
            estimates=dict(cost.estimates),
            kernels=[
                asdict(kernel) | {"base": called.base, "cycles": kernel.cycles}
                for called, kernel in zip(cost.kernels, kernels, strict=True)
            ],
            busy=busy,
            temporary_bytes=memory.temp_size_in_bytes,
            held_bytes=memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
            vmem_bytes=max((kernel.vmem_bytes for kernel in kernels), default=0),
            compile_seconds=seconds,
        )

    def _kernel(
        self, called: hlo.Kernel, times: int, known: list[pallas_calls.Call], others: list[hlo.Kernel]
    ) -> Kernel:
        call = _traced(called, known)
        alike = [called, *(other for other in others if other.is_like(called))]
        program = bundles.read(self._file(alike, "final_bundles"), self._file(alike, "final_hlo-static-*"))
        chip, steps = self.chip, call.steps
        if program.step.trips not in (None, *range(steps, steps + 3)):  # the pipeline's first fetch and last write
            raise ValueError(
                f"kernel {called.name} has {steps} grid steps, its program loops {program.step.trips} times"
            )
        matrix = times * program.rows(steps) / chip.rows_per_cycle
        memory = times * call.bytes / chip.bytes_per_cycle
        slots = program.busy(steps)
        busy = {unit: times * max(slots.get(name, 0.0) for name in names) for unit, names in UNITS.items()}
        return Kernel(
            name=called.name,
            calls=times,
            steps=steps,
            schedule_cycles=times * program.cycles(steps),
            matrix_cycles=matrix,
            memory_cycles=memory,
            memory_exact=call.exact,
            multiply_adds=times * program.all_rows(steps) * chip.side**2,
            busy={"MXU": matrix, "HBM": memory, **busy},
            vmem_bytes=called.vmem_bytes,
        )

    def _file(self, alike: list[hlo.Kernel], label: str) -> Path:
        """Returns the dump of the first of these kernels that has one; the compiler may dump equal kernels once."""
        for kernel in alike:
            for file in self.dump.glob(f"*-{glob.escape(kernel.name)}-[0-9]*-{label}.txt"):
                if "schedule-analysis" not in file.name:
                    return file
        raise ValueError(f"the compiler's dump has no {label} of kernel {alike[0].name}")


def _traced(called: hlo.Kernel, known: list[pallas_calls.Call]) -> pallas_calls.Call:
    """Returns the traced call of a compiled one, with the same operands, results and name."""
    base = called.base
    same = [call for call in known if (call.operands, call.results) == (called.operands, called.results)]
    named = [call for call in same if call.name and call.name in base]  # "jvp_NAME_" in a gradient
    same = [call for call in named if call.name == max((one.name for one in named), key=len)] or same
    if not same:
        raise ValueError(f"kernel {called.name} is not among the traced ones: {', '.join(call.name for call in known)}")
    if len({(call.steps, call.bytes) for call in same}) > 1:
        raise ValueError(f"several different kernels named {base} have the same operands and results: name them apart")
    return same[0]


def check(compiler: Compiler) -> str:
    """Checks the parser on a matmul kernel of known length; returns one line. Raises ValueError if it is wrong."""
    chip = compiler.chip
    dtype = "bfloat16" if chip.bfloat16_operands else "float32"
    few, many = (
        compiler.schedule(partial(_matmul, steps=steps), *_operands(compiler, steps, dtype)) for steps in (4, 8)
    )
    size, rows, kernel = CHECK_SIZE, 8 * CHECK_ROWS, many.kernels[0]
    expected = rows * size**2
    limit = expected / chip.multiply_adds_per_cycle
    ratio = max(kernel["schedule_cycles"], kernel["matrix_cycles"]) / limit
    growth = many.kernels[0]["schedule_cycles"] / few.kernels[0]["schedule_cycles"]
    faults = []
    if not math.isclose(kernel["multiply_adds"], expected):
        faults.append(f"{kernel['multiply_adds']:.0f} multiply-adds were counted")
    if not CHECK_LIMITS[0] <= ratio <= CHECK_LIMITS[1]:
        faults.append(f"its cycles are {ratio:.3f} times the matrix units' limit")
    if not math.isclose(growth, 2, rel_tol=0.02):
        faults.append(f"twice the grid is {growth:.3f} times the cycles")
    if faults:
        raise ValueError(
            f"the compiler's dump for {chip.name} is not understood: for a matmul of {expected} multiply-adds "
            + ", and ".join(faults)
        )
    bundle_ratio = kernel["schedule_cycles"] / limit
    return (
        f"{chip.name}: a {rows}x{size}x{size} {dtype} matmul kernel is read as {expected} multiply-adds (exact), "
        f"{ratio:.2f} times the matrix units' limit (bundles alone {bundle_ratio:.2f}); "
        f"twice the grid takes {growth:.3f} times as long"
    )


def _operands(compiler: Compiler, steps: int, dtype: str) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    size = CHECK_SIZE
    return compiler.abstract((steps * CHECK_ROWS, size), dtype), compiler.abstract((size, size), dtype)


def _matmul(left: jax.Array, right: jax.Array, *, steps: int) -> jax.Array:
    """A matmul kernel whose length is known: left [steps·rows size] times right [size size]."""
    rows, size = CHECK_ROWS, CHECK_SIZE

    def kernel(left_ref, right_ref, out_ref):
        out_ref[...] = jnp.dot(left_ref[...], right_ref[...], preferred_element_type=jnp.float32)

    return pl.pallas_call(
        kernel,
        name="known_length",
        grid=(steps,),
        in_specs=[pl.BlockSpec((rows, size), lambda i: (i, 0)), pl.BlockSpec((size, size), lambda i: (0, 0))],
        out_specs=pl.BlockSpec((rows, size), lambda i: (i, 0)),
        out_shape=jax.ShapeDtypeStruct((steps * rows, size), jnp.float32),
    )(left, right)
