"""The tables of `python -m bench schedule`, and the text that explains their numbers."""

from collections.abc import Sequence
from typing import Any

from bench import model_schedule
from bench.chips import CHIPS, Chip
from bench.workloads import WORKLOADS, Workload
from vivit.cli.table import Table

Results = dict[Any, dict | str]
FOOTER = """\
These are static schedules by the TPU's own compilers, not timings: nothing was run.
XLA's operations: the sum of the compiler's estimated_cycles (a loop's body times its length). Pallas kernels: the
largest of bundles of the schedule x grid steps, rows pushed into the busiest matrix unit at its rate, and bytes moved
by the blocks ÷ the bandwidth that XLA charges. Waits and overlap between operations are
in neither; branches count as taken; a unit is taken to start one operation a cycle. Cores take and give arrays in the
layout that each prefers, as between the operations of a model; layers in XLA's default layout (see --layout).
">": XLA has no estimate for some operation, which is not counted.
MXU: useful multiply-adds ÷ what the matrix units could do in that many cycles; in brackets with a head's {d} channels
filling only their part of the units. HBM: bytes that no formulation can avoid ÷ what the memory could move. Backward
counts twice the forward's multiply-adds. Limits: the unit that is busy longest, and its part of the cycles, among
the kernel's units; "XLA copy" and "XLA other" are XLA's copies and its operations that are neither copy nor matmul."""


def useful(workload: Workload, job: Any) -> tuple[int, int, int]:
    """(multiply-adds of the projections, of the heads, bytes) that an implementation of this workload must do."""
    backward = job.direction != "forward"
    times = 3 if backward else 1
    if job.implementation.startswith("core"):
        return 0, times * workload.core_multiply_adds, workload.core_bytes(job.dtype, backward=backward)
    return (
        times * workload.projection_multiply_adds,
        times * workload.core_multiply_adds,
        workload.layer_bytes(job.dtype, backward=backward),
    )


def fractions(job: Any, cycles: float) -> tuple[float, float, float]:
    """Returns the fractions of the limits: of the matrix units, of these with unpadded heads, and of memory."""
    chip, workload = CHIPS[job.chip], WORKLOADS[job.workload]
    projections, heads, moved = useful(workload, job)
    depth = min(1.0, workload.channels / workload.heads / chip.side)
    peak = chip.multiply_adds_per_cycle * cycles
    return (projections + heads) / peak, (projections + heads / depth) / peak, moved / chip.bytes_per_cycle / cycles


def tables(results: Results) -> list[Table]:
    """One table for each chip and dtype."""
    columns = ("workload", "implementation", "", "Mcycles", "ms", "÷ plain", "MXU (heads)", "HBM", "limits", "VMEM")
    found = []
    for chip, dtype in dict.fromkeys((job.chip, job.dtype) for job in results):
        rows = [
            (job.workload, *_cells(job, schedule, results))
            for job, schedule in results.items()
            if (job.chip, job.dtype) == (chip, dtype)
        ]
        title = f"{chip}, {dtype}: scheduled cycles (static schedule, not a timing)"
        found.append(Table((*columns, "temp MB"), rows, texts=3, title=title))
    return found


def notes(checks: Sequence[str]) -> list[str]:
    """Returns the text that explains `tables`."""
    d = {workload.channels // workload.heads for workload in WORKLOADS.values()}
    return [FOOTER.format(d=", ".join(map(str, sorted(d)))), *_checked(checks)]


def _cells(job: Any, schedule: dict | str, results: Results) -> tuple[str, ...]:
    arrow = "→" if job.direction == "forward" else "→←"
    if isinstance(schedule, str):
        return job.implementation, arrow, schedule
    cycles = schedule["cycles"]
    full, heads, memory = fractions(job, cycles)
    plain = results.get(job._replace(implementation=job.implementation.partition(" ")[0] + " plain"))
    unit = max(schedule["busy"], key=lambda name: schedule["busy"][name])
    return (
        job.implementation,
        arrow,
        f"{_more(schedule)}{cycles / 1e6:.2f}",
        f"{CHIPS[job.chip].milliseconds(cycles):.2f}",
        f"{cycles / plain['cycles']:.2f}" if isinstance(plain, dict) else "",
        f"{full:.0%} ({heads:.0%})",
        f"{memory:.0%}",
        f"{unit} {schedule['busy'][unit] / cycles:.0%}",
        f"{schedule['vmem_bytes'] / 2**20:.1f}" if schedule["vmem_bytes"] else "",
        f"{schedule['temporary_bytes'] / 1e6:.0f}",
    )


def _more(schedule: dict) -> str:
    """Returns a mark if the cycles are a lower bound."""
    return "> " if schedule["unknown"] else ""


def model_tables(results: Results) -> list[Table]:
    """Returns the tables of the four whole models, one per chip."""
    columns = (
        *("model", "implementation", "", "clips", "Mcycles", "of them kernels", "matmuls", "copies", "other"),
        *("÷ plain", "MXU", "ms a clip", "paper", "temp GB", "held GB", "of GB"),
    )
    found = []
    for chip in dict.fromkeys(job.chip for job in results):
        rows = [
            _model_cells(job, schedule, results, CHIPS[chip]) for job, schedule in results.items() if job.chip == chip
        ]
        title = f"ViViT-B/16x2 on {chip}, bfloat16 (static schedule, not a timing)"
        found.append(Table(columns, rows, texts=3, title=title))
    return found


def model_notes(checks: Sequence[str]) -> list[str]:
    """Returns the text that explains `model_tables`."""
    return [MODEL_FOOTER + FOOTER.partition("\nMXU")[0], *_checked(checks)]


MODEL_FOOTER = """\
plain, ours: unrolled; compiled with one and two layers (model 2: also two temporal layers) and extended in a straight
line to 12 (and 4), their temporaries too. scanned: the whole program with a loop over the layers, as vivit runs it;
none, fast, lean: the recipe's remat. →←: gradient of the mean cross entropy with respect to the parameters (float32
parameters), no optimiser. update: the whole update of vivit.training, with clipping and optimiser, its state donated.
Matmuls, copies, other: XLA's operations. MXU: the multiply-adds of the equations (thrice for →←) ÷ what the matrix
units could do in that many cycles. Paper: Arnab et al. 2021, table 2, milliseconds a clip on TPU-v3. A core of v3 is
half a chip. Held: arguments and results. Of: the memory of a core.
"""


def _model_cells(job: Any, schedule: dict | str, results: Results, chip: Chip) -> tuple[str, ...]:
    arrow = "→" if job.direction == "forward" else "→←"
    name = f"{('', '-fe', '-fsa', '-fdp').index(job.workload) + 1} {model_schedule.SIZE}{job.workload}"
    if isinstance(schedule, str):
        return name, job.implementation, arrow, schedule
    cycles, clips = schedule["cycles"], model_schedule.clips(job.workload)
    plain = results.get(job._replace(implementation="plain"))
    paper = model_schedule.paper_milliseconds(job.workload)
    return (
        name,
        job.implementation,
        arrow,
        str(clips),
        f"{_more(schedule)}{cycles / 1e6:.1f}",
        f"{schedule['kernel_cycles'] / 1e6:.1f}",
        *(f"{schedule['kinds'].get(kind, 0) / 1e6:.1f}" for kind in ("matmul", "copy", "other")),
        f"{cycles / plain['cycles']:.2f}" if isinstance(plain, dict) else "",
        f"{model_schedule.useful(job.workload, job.direction) / chip.multiply_adds_per_cycle / cycles:.0%}",
        f"{chip.milliseconds(cycles) / clips:.1f}",
        f"{paper}" if job.direction == "forward" and job.chip == "v3" else "",
        *(f"{schedule[name] / 1e9:.1f}" for name in ("temporary_bytes", "held_bytes")),
        f"{chip.hbm_gigabytes}",
    )


def _checked(checks: Sequence[str]) -> list[str]:
    return [f"Checked: {check}" for check in checks]
