"""The TPUs that programs can be compiled for without a device: their specifications, and the compiler's environment.

Specifications are per core. Matrix units, their side, HBM and VMEM are from JAX's table of TPUs. The clock is the
published one; with the matrix units it gives the published peak. Bandwidth is what XLA's cost model assumes for a large
elementwise operation (448 bytes a cycle on v3, 451 on v4, 441 on v5e, 757 on v6e, found by compiling one) instead of
the data sheet's larger figure, so that kernels and XLA are compared at the same bandwidth.
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
    hbm_gigabytes: int  # GiB of the device
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
            hbm_gigabytes=16,
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
            hbm_gigabytes=32,
            vmem_megabytes=16,
        ),
        Chip(
            name="v5e",
            topology="v5e:2x2",
            gigahertz=1.5,
            matrix_units=4,
            side=128,
            gigabytes_per_second=660,
            hbm_gigabytes=16,
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
            hbm_gigabytes=32,
            vmem_megabytes=128,
        ),
    )
}


_KINDS = {"v3": "v3", "v4": "v4", "v5 lite": "v5e", "v5e": "v5e", "v6 lite": "v6e", "v6e": "v6e"}


def chip_of(device_kind: str) -> Chip | None:
    """The chip of a device that JAX calls so ("TPU v5 lite"); None: it is none of CHIPS."""
    return next((CHIPS[name] for kind, name in _KINDS.items() if kind in device_kind.lower()), None)


def environment(dump: Path) -> dict[str, str]:
    """Returns the environment of a process that compiles for a TPU; set it before JAX starts. dump: of schedules."""
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
