"""`vivit audit --checkpoint`: the verdict of vivit/audit_checkpoint.py and what a signature needs, as text and JSON."""

import argparse
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vivit.commands.chosen import loaded
from vivit.commands.shown import console, say, show
from vivit.commands.table import FAIL, Table
from vivit.labels import unnamed
from vivit.printable import printable
from vivit.writing import write_text

if TYPE_CHECKING:
    from vivit.audit_checkpoint import Best, Decision, Row, Verdict

FORMAT, VERSION = "vivit audit of a checkpoint", 1


def run(options: argparse.Namespace, inputs: Sequence[str | Path]) -> int:
    """0 if every stage passes and every head has the reference's class, else 1. inputs: files that are read."""
    import jax  # here, so that `vivit info` need not load it

    from vivit.audit_checkpoint import STEPS, audit_checkpoint
    from vivit.digests import HASHED, digest_of_file, digest_of_json, digest_of_params, digest_of_pixels
    from vivit.reference.params import parameters
    from vivit.versions import source, versions
    from vivit.video import demo_video

    begun = time.perf_counter()
    model, _ = loaded(options)
    path = demo_video() if options.video is None else options.video
    clip = model.read(path)
    columns = (TextColumn("auditing: {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
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
        "rows": [finite(asdict(row)) for row in verdict.rows],
        "covered": verdict.covered,
        "decisions": [_decision(decision) for decision in verdict.decisions],
        "seconds": round(time.perf_counter() - begun, 1),
    }
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    if options.output is not None:
        write_text(options.output, text, inputs=inputs)
    if options.json:
        print(text, end="")
    else:
        _print(verdict, report, verbose=options.verbose)
    return 0 if verdict.passed else 1


def _decision(decision: "Decision") -> dict[str, Any]:
    return {
        "head": decision.head,
        "agrees": decision.agrees,
        "lead": decision.lead,
        "reference": decision.reference._asdict(),
        "production": {dtype: finite(best._asdict()) for dtype, best in decision.production.items()},
    }


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """With null for a number that is not finite, which JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _print(verdict: "Verdict", report: dict[str, Any], *, verbose: bool) -> None:
    out = console()
    clip, config = report["clip"], report["config"]
    frames, height, width, _ = clip["shape"]
    size = f"{frames} frames of {height}x{width}"
    title = f"{report['checkpoint']} ({config['model']}) against the float64 reference: {report['video']}, {size}"
    say(printable(title), out, soft_wrap=True)
    show(_stages(verdict.rows) if verbose else _summary(verdict.rows), out)
    if verbose:
        say(MEANINGS, out)
        for line in _covered(verdict.covered):
            say(line, out)
    if verdict.decisions:
        show(_classes(verdict.decisions), out)
    else:
        say("the model has no head: its logits are its features", out)
    vivit = report["vivit"]
    changed = ", with changes" if vivit["modified"] else ""
    hashed = {f"hashed of {', '.join(names)}": what for what, names in _by_value(report["hashed"]).items()}
    said = {
        **{f"{name}, sha256": value for name, value in report["sha256"].items()},
        **(hashed if verbose else {}),
        "vivit": f"{vivit['version']}, commit {vivit['commit'] or 'unknown: not run from a git checkout'}{changed}",
        "device": f"{report['device']['platform']}, {report['device']['kind']}",
        "software": ", ".join(f"{name} {version}" for name, version in report["software"].items()),
    }
    for name, value in said.items():
        say(f"{name}: {value}", out, soft_wrap=True)
    for row in verdict.departures:
        say(f"FAIL {row.dtype}: first departs at {row.stage}: {row.worst}", out, soft_wrap=True)
    for decision in verdict.decisions:
        if not decision.agrees:
            lead = f"leads by {decision.lead:.3g} there"
            say(f"FAIL head {decision.head + 1}: production has another class than the reference, which {lead}", out)
    say(_outcome(verdict, report["seconds"]), out)


MEANINGS = (
    "error: largest difference from the reference. bound: twice the plain formulation's in that dtype, which is capped "
    "itself, plus the rounding of the largest value. logits: of the whole model, as it is run."
)


def _outcome(verdict: "Verdict", seconds: float) -> str:
    """A sentence that says how it went."""
    passed = sum(row.passed for row in verdict.rows)
    agree = sum(decision.agrees for decision in verdict.decisions)
    heads = f", {agree} of {len(verdict.decisions)} heads agree" if verdict.decisions else ""
    how = "agrees with" if verdict.passed else "departs from"
    return f"The checkpoint {how} the reference: {passed} of {len(verdict.rows)} stages pass{heads}; {seconds:.0f} s."


def _by_value(texts: dict[str, str]) -> dict[str, list[str]]:
    """The names under which each text stands."""
    return {text: [name for name, other in texts.items() if other == text] for text in texts.values()}


def _summary(rows: "tuple[Row, ...]") -> Table:
    """A line a dtype: how many stages pass, and the one that is nearest to its bound, or farthest beyond."""
    shown = []
    for dtype in dict.fromkeys(row.dtype for row in rows):
        stages = [row for row in rows if row.dtype == dtype]
        worst = max(stages, key=lambda row: math.inf if math.isnan(row.error) else row.error / row.bound)
        passed = sum(row.passed for row in stages)
        verdict = "pass" if passed == len(stages) else FAIL
        part = f"{100 * worst.error / worst.bound:.0f} %"
        shown.append((dtype, worst.stage, f"{passed} of {len(stages)}", part, verdict))
    return Table(("dtype", "nearest to its bound", "stages pass", "of bound", ""), shown, texts=2)


def _stages(rows: "tuple[Row, ...]") -> Table:
    shown = [
        (
            row.stage,
            " ".join(map(str, row.shape)),
            row.dtype,
            f"{row.error:.1e}",
            f"{row.bound:.1e}",
            "pass" if row.passed else FAIL,
        )
        for row in rows
    ]
    return Table(("stage", "shape", "dtype", "error", "bound", ""), shown)


def _classes(decisions: "tuple[Decision, ...]") -> Table:
    columns = ("head", "reference", *decisions[0].production, "")
    shown = [
        (
            str(decision.head + 1),
            *(_shown(best) for best in (decision.reference, *decision.production.values())),
            "agree" if decision.agrees else FAIL,
        )
        for decision in decisions
    ]
    return Table(columns, shown, texts=len(columns) - 1, title="The class with the largest logit, of each head")


def _shown(best: "Best") -> str:
    name = unnamed(best.number) if best.label is None else best.label
    return printable(f"{name} ({best.logit:.4f})")


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
