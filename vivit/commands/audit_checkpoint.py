"""`vivit audit --checkpoint`: the verdict of vivit/audit_checkpoint.py and what a signature needs, as text and JSON."""

import argparse
import json
import math
import re
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from vivit.commands.chosen import loaded
from vivit.commands.shown import RIGHT, console
from vivit.labels import unnamed
from vivit.writing import write_text

if TYPE_CHECKING:
    from vivit.audit_checkpoint import Best, Decision, Row, Verdict

FORMAT, VERSION = "vivit audit of a checkpoint", 1


def run(options: argparse.Namespace) -> int:
    """0 if every stage passes and every head has the reference's class, else 1."""
    import jax  # here, so that `vivit info` need not load it

    from vivit.audit_checkpoint import STEPS, audit_checkpoint
    from vivit.digests import HASHED, digest_of_file, digest_of_json, digest_of_params, digest_of_pixels
    from vivit.reference.params import parameters
    from vivit.versions import source, versions
    from vivit.video import demo_video

    begun = time.perf_counter()
    model, _ = loaded(options)
    path = options.video or demo_video()
    clip = model.read(path)
    columns = (TextColumn("auditing: {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=STEPS, completed=-1)
        verdict = audit_checkpoint(
            model, clip, progress=lambda what: progress.update(task, advance=1, description=what)
        )
    device = jax.devices()[0]
    stated = {
        "config": asdict(model.config.canonical),
        "labels": model.labels,
        "preprocessing": asdict(model.preprocessing),
    }
    hashes = {
        "weights": digest_of_params(model.params),
        "video": digest_of_file(path),
        "pixels": digest_of_pixels(clip),
        **{name: digest_of_json(value) for name, value in stated.items()},
    }
    report = {
        "format": FORMAT,
        "version": VERSION,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "passed": verdict.passed,
        "checkpoint": str(options.checkpoint),
        "weights": {"sha256": hashes["weights"], "parameters": parameters(model.config)},
        **stated,
        "video": str(path),
        "clip": {
            "shape": clip.shape,
            "start": 0,
            "stride": model.preprocessing.stride,
            "sha256": hashes["pixels"],
        },
        "sha256": hashes,
        "hashed": HASHED,
        "vivit": source(),
        "software": versions(),
        "device": {"platform": device.platform, "kind": device.device_kind},
        "rows": [_plain(asdict(row)) for row in verdict.rows],
        "covered": verdict.covered,
        "decisions": [_decision(decision) for decision in verdict.decisions],
        "seconds": round(time.perf_counter() - begun, 1),
    }
    _print(verdict, report)
    if options.json is not None:
        write_text(options.json, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return 0 if verdict.passed else 1


def _decision(decision: "Decision") -> dict[str, Any]:
    return {
        "head": decision.head,
        "agrees": decision.agrees,
        "lead": decision.lead,
        "reference": decision.reference._asdict(),
        "production": {dtype: _plain(best._asdict()) for dtype, best in decision.production.items()},
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """With null for a number that is not finite, which JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _print(verdict: "Verdict", report: dict[str, Any]) -> None:
    out = console()
    clip, config = report["clip"], report["config"]
    frames, height, width, _ = clip["shape"]
    size = f"{frames} frames of {height}x{width}"
    title = f"{report['checkpoint']} ({config['model']}) against the float64 reference: {report['video']}, {size}"
    out.print(title, markup=False, highlight=False, soft_wrap=True)
    out.print(_stages(verdict.rows))
    out.print(
        "error: largest difference from the reference. bound: twice the plain formulation's in that dtype, which is\n"
        "capped itself, plus the rounding of the largest value. logits: of the whole model, as it is run.",
        markup=False,
    )
    for line in _covered(verdict.covered):
        out.print(line, markup=False, highlight=False)
    if verdict.decisions:
        out.print(_classes(verdict.decisions))
    else:
        out.print("the model has no head: its logits are its features")
    vivit = report["vivit"]
    changed = ", with changes" if vivit["modified"] else ""
    said = {
        **{f"{name}, sha256": value for name, value in report["sha256"].items()},
        **{f"hashed of {', '.join(names)}": what for what, names in _by_value(report["hashed"]).items()},
        "vivit": f"{vivit['version']}, commit {vivit['commit'] or 'unknown: not run from a git checkout'}{changed}",
        "device": f"{report['device']['platform']}, {report['device']['kind']}",
        "software": ", ".join(f"{name} {version}" for name, version in report["software"].items()),
    }
    for name, value in said.items():
        out.print(f"{name}: {value}", markup=False, highlight=False, soft_wrap=True)
    for row in verdict.departures:
        out.print(f"FAIL {row.dtype}: first departs at {row.stage}: {row.worst}", markup=False, soft_wrap=True)
    for decision in verdict.decisions:
        if not decision.agrees:
            lead = f"leads by {decision.lead:.3g} there"
            out.print(f"FAIL head {decision.head}: production has another class than the reference, which {lead}")
    passed = sum(row.passed for row in verdict.rows)
    agree = sum(decision.agrees for decision in verdict.decisions)
    heads = f", {agree} of {len(verdict.decisions)} heads agree" if verdict.decisions else ""
    out.print(f"{passed} of {len(verdict.rows)} pass{heads}; {report['seconds']:.0f} s")


def _by_value(texts: dict[str, str]) -> dict[str, list[str]]:
    """The names under which each text stands."""
    return {text: [name for name, other in texts.items() if other == text] for text in texts.values()}


def _stages(rows: "tuple[Row, ...]") -> Table:
    table = Table()
    table.add_column("stage", no_wrap=True)
    for name in ("shape", "dtype", "error", "bound", ""):
        table.add_column(name, **RIGHT)
    for row in rows:
        shape = " ".join(map(str, row.shape))
        verdict = "pass" if row.passed else "[bold red]FAIL"
        table.add_row(row.stage, shape, row.dtype, f"{row.error:.1e}", f"{row.bound:.1e}", verdict)
    return table


def _classes(decisions: "tuple[Decision, ...]") -> Table:
    table = Table(title="The class with the largest logit, of each head")
    table.add_column("head")
    for name in ("reference", *decisions[0].production, ""):
        table.add_column(name)
    for decision in decisions:
        bests = (decision.reference, *decision.production.values())
        verdict = "agree" if decision.agrees else "[bold red]FAIL"
        table.add_row(str(decision.head), *(_shown(best) for best in bests), verdict)
    return table


def _shown(best: "Best") -> str:
    name = unnamed(best.number) if best.label is None else best.label
    return escape(f"{name} ({best.logit:.4f})")


def _covered(covered: dict[str, str]) -> list[str]:
    """A line for each kind of stage that is not compared by itself, its layers put together."""
    kinds: dict[tuple[str, str], int] = {}
    for pair in covered.items():
        kind = tuple(re.sub(r"/\d+/", "/*/", name) for name in pair)
        kinds[kind[0], kind[1]] = kinds.get((kind[0], kind[1]), 0) + 1
    return [
        f"{name}: {count} stages too large to be held, not compared by themselves but through {through}"
        for (name, through), count in kinds.items()
    ]
