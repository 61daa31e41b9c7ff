"""Plots of schedules, as PNG: a roofline for each chip, and bars for the four models. Needs the [plot] extra."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no display is needed
import matplotlib.pyplot as plt
import numpy as np

from bench import model_schedule
from bench.chips import CHIPS, Chip
from bench.schedule_table import useful
from bench.workloads import WORKLOADS

Results = dict[Any, dict | str]
MARKERS = dict(zip(WORKLOADS, "osD^", strict=True))
COLORS = {
    "core pallas": "tab:red",
    "core xla": "tab:blue",
    "core plain": "tab:gray",
    "core flash": "tab:green",
    "core splash": "tab:olive",
    "layer ours": "tab:purple",
    "layer plain": "tab:brown",
}
NOTE = "static schedules by the TPU's own compilers, not timings"


def rooflines(results: Results, folder: Path) -> Iterator[Path]:
    """Draws a figure per chip, with a panel per dtype: useful operations per second over operations per byte."""
    for name in dict.fromkeys(job.chip for job in results):
        dtypes = list(dict.fromkeys(job.dtype for job in results if job.chip == name))
        figure, panels = plt.subplots(
            1, len(dtypes), figsize=(1.2 + 6.4 * len(dtypes), 5.6), sharey=True, squeeze=False, layout="constrained"
        )
        for panel, dtype in zip(panels[0], dtypes, strict=True):
            _roofline(panel, CHIPS[name], {j: r for j, r in results.items() if (j.chip, j.dtype) == (name, dtype)})
            panel.set_title(f"{name}, {dtype}")
        panels[0][0].set_ylabel("useful TFLOP/s of one core")
        figure.suptitle(f"Attention of ViViT-B on TPU {name}: {NOTE}", fontsize=11)
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
        yield _save(figure, folder / f"roofline-{name}.png")


def _roofline(panel: Any, chip: Chip, results: Results) -> None:
    peak = 2 * chip.multiply_adds_per_cycle * chip.gigahertz / 1e3  # TFLOP/s
    intensity = np.geomspace(1, 4096, 200)
    memory = chip.gigabytes_per_second / 1e3 * intensity
    panel.loglog(intensity, np.minimum(memory, peak), color="black", label="limits of the chip")
    shortened = {128: "half", 256: "quarter"}[chip.side]
    part = 64 / chip.side
    panel.loglog(
        intensity, np.minimum(memory, peak * part), color="black", ls=":", label=f"heads of 64: {shortened} depth"
    )
    labels = set()
    for job, schedule in results.items():
        if isinstance(schedule, str):
            continue
        projections, heads, moved = useful(WORKLOADS[job.workload], job)
        operations = 2 * (projections + heads)
        rate = operations / chip.milliseconds(schedule["cycles"]) / 1e9  # TFLOP/s
        backward = job.direction != "forward"
        panel.scatter(
            operations / moved,
            rate,
            s=45,
            marker=MARKERS[job.workload],
            facecolor="none" if backward else COLORS[job.implementation],
            edgecolor=COLORS[job.implementation],
        )
        labels |= {job.implementation}
    for implementation in COLORS:
        if implementation in labels:
            panel.scatter([], [], color=COLORS[implementation], label=implementation)
    for workload, marker in MARKERS.items():
        panel.scatter([], [], marker=marker, facecolor="none", edgecolor="black", label=workload.replace("_", " "))
    panel.plot([], [], " ", label="filled: forward\nhollow: + backward")
    panel.set_xlabel("useful operations per byte that must be moved")
    panel.set_ylim(1e-2, 2 * peak)
    panel.grid(which="major", alpha=0.3)


def models(results: Results, folder: Path) -> Iterator[Path]:
    """Draws a figure per chip and direction: milliseconds per clip of the four models."""
    for name, direction in dict.fromkeys((job.chip, job.direction) for job in results):
        chosen = {j: r for j, r in results.items() if (j.chip, j.direction) == (name, direction)}
        yield _save(_bars(CHIPS[name], direction, chosen), folder / f"models-{name}-{direction.replace('+', '-')}.png")


def _bars(chip: Chip, direction: str, results: Results) -> Any:
    suffixes = list(dict.fromkeys(job.workload for job in results))
    bars: dict[str, list[float]] = {"XLA, plain graph": [], "this package": []}
    for suffix in suffixes:
        for label, implementation in zip(bars, ("plain", "ours"), strict=True):
            found = [r for j, r in results.items() if (j.workload, j.implementation) == (suffix, implementation)]
            schedule = found[0] if found and isinstance(found[0], dict) else {"cycles": float("nan")}
            bars[label].append(chip.milliseconds(schedule["cycles"]) / model_schedule.clips(suffix))
    if chip.name == "v3" and direction == "forward":
        bars["the paper, measured"] = [model_schedule.paper_milliseconds(suffix) for suffix in suffixes]
    bars = {label: heights for label, heights in bars.items() if not np.isnan(heights).all()}
    figure, panel = plt.subplots(figsize=(8, 4.6), layout="constrained")
    width = 0.8 / len(bars)
    for index, (label, heights) in enumerate(bars.items()):
        places = np.arange(len(suffixes)) + (index - (len(bars) - 1) / 2) * width
        drawn = panel.bar(places, heights, width, label=label, color=("tab:gray", "tab:red", "tab:blue")[index])
        panel.bar_label(drawn, fmt="%.1f", fontsize=8)
    numbers = {"": 1, "-fe": 2, "-fsa": 3, "-fdp": 4}
    panel.set_xticks(range(len(suffixes)), [f"model {numbers[suffix]}" for suffix in suffixes])
    panel.set_ylabel("ms a clip and core")
    panel.set_title(f"ViViT-B/16x2, {direction}, {chip.name} bfloat16: {NOTE}", fontsize=10)
    panel.legend()
    return figure


def _save(figure: Any, file: Path) -> Path:
    figure.savefig(file, dpi=120)
    plt.close(figure)
    return file
