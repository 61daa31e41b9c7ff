"""The TPUs that programs are compiled for without having one: their figures, and the environment the compiler needs.

Figures are for one core. Matrix units, their side and VMEM are those of JAX's own table of TPUs; the clock is the
public one, with which they give the public peak. Bytes a second are what XLA's own cost model charges for a large
elementwise operation (448 bytes a cycle on v3, 451 on v4, 441 on v5e, 757 on v6e, found by compiling one), not the
larger figure of the data sheet: kernels and XLA are then charged alike.
"""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One core of a TPU."""

    name: str
    topology: str  # the smallest that the compiler accepts
    gigahertz: float
    matrix_units: int
    side: int  # of a matrix unit: multiply-adds a cycle are rows_per_cycle x side²
    rows_per_cycle: int = 1
    gigabytes_per_second: int
    vmem_megabytes: int  # MiB
    bfloat16_operands: bool = True  # can the matrix unit take bfloat16 from a Pallas kernel

    @property
    def multiply_adds_per_cycle(self) -> int:
        return self.matrix_units * self.rows_per_cycle * self.side**2

    @property
    def bytes_per_cycle(self) -> float:
        return self.gigabytes_per_second / self.gigahertz

    def milliseconds(self, cycles: float) -> float:
        return cycles / self.gigahertz / 1e6


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v3",
            topology="v3:2x2",
            gigahertz=0.94,
            matrix_units=2,
            side=128,
            gigabytes_per_second=412,
            vmem_megabytes=16,
            bfloat16_operands=False,
        ),
        Chip(
            name="v4",
            topology="v4:2x2x1",
            gigahertz=1.05,
            matrix_units=4,
            side=128,
            gigabytes_per_second=473,
            vmem_megabytes=16,
        ),
        Chip(
            name="v5e",
            topology="v5e:2x2",
            gigahertz=1.5,
            matrix_units=4,
            side=128,
            gigabytes_per_second=660,
            vmem_megabytes=128,
        ),
        Chip(
            name="v6e",
            topology="v6e:2x2",
            gigahertz=1.75,
            matrix_units=2,
            side=256,
            rows_per_cycle=2,  # what the public peak of 918 TFLOP/s needs with two units at this clock
            gigabytes_per_second=1324,
            vmem_megabytes=128,
        ),
    )
}


def environment(dump: Path) -> dict[str, str]:
    """What must be set before JAX starts in a process that compiles for a TPU; schedules of kernels go to `dump`."""
    flags = (
        f"--xla_jf_dump_to={dump}",
        "--xla_jf_dump_llo_text=true",
        "--xla_jf_dump_llo_pass_label_regex=final_.*",  # every pass of every fusion takes minutes to write
    )
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "LIBTPU_INIT_ARGS": " ".join(flags),
        "TPU_SKIP_MDS_QUERY": "1",  # do not ask a cloud for a machine description
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is run on the device that the lock file protects
    }
