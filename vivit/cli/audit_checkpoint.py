"""`vivit audit --checkpoint`: prints the verdict of vivit/audit/checkpoint.py, and hashes, as text or JSON."""

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vivit.cli import outputs
from vivit.cli.arguments import limits, load_model
from vivit.cli.console import console, say, show
from vivit.cli.table import FAIL, Table
from vivit.files.atomic import check_folder, write_text
from vivit.files.paths import printable
from vivit.labels import unnamed

if TYPE_CHECKING:
    from vivit.audit.checkpoint import CheckpointAudit, HeadComparison, Prediction, StageComparison
    from vivit.audit.complete import Against


def run(options: argparse.Namespace, inputs: Sequence[str | Path]) -> int:
    """Returns the exit code 0 if every stage passes and every head has the reference's class, else 1.

    inputs: files that are read.
    """
    from vivit.audit.complete import complete_audit  # here, so that `vivit info` need not load JAX
    from vivit.audit.dossier import write_dossier
    from vivit.audit.page import page
    from vivit.audit.report import checkpoint_report
    from vivit.audit.signing import check_key
    from vivit.video.clip import demo_video

    started = time.perf_counter()
    if options.dossier is not None:
        check_folder(options.dossier, inputs=inputs, new=True)
    if options.sign is not None:
        check_key(options.sign)
    model, _ = load_model(options)
    path = demo_video() if options.video is None else options.video
    clip = model.read(path)
    with steps_progress() as progress:
        audit = complete_audit(
            model, clip, against=against(options, path), kernels=options.dossier is not None, progress=progress
        )
    report = checkpoint_report(
        audit.verdict,
        audit.other,
        model=model,
        checkpoint=str(options.checkpoint),
        video=path,
        clip=clip,
        seconds=time.perf_counter() - started,
    )
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    if options.output is not None:
        is_page = options.output.suffix.lower() == ".html"
        write_text(options.output, page(report) if is_page else text, inputs=inputs)
    if options.dossier is not None:
        write_dossier(options.dossier, report, clip, audit.replay, options.sign)
    if options.json:
        print(text, end="")
    else:
        _print(audit.verdict, report, verbose=options.verbose)
        if options.dossier is not None:
            outputs.report_written(options.dossier, f"wrote {options.dossier}")
    return 0 if report["passed"] else 1


def against(options: argparse.Namespace, video: str | Path) -> "Against | None":
    """Returns the implementation of --against. Raises ValueError if it cannot have a model of another size."""
    from vivit.audit.complete import Against
    from vivit.audit.others import TRANSFORMERS

    if options.against is None:
        return None
    sizes = {name: getattr(options, name) for name in ("frames", "height", "width")}
    original = None
    if any(sizes.values()):
        if options.against == TRANSFORMERS:
            raise ValueError("--frames, --height and --width resize our model alone: omit them with transformers")
        original, _ = load_model(argparse.Namespace(**vars(options) | dict.fromkeys(sizes)))
    return Against(
        what=options.against,
        checkpoint=options.checkpoint,
        video=video,
        limits=limits(options),
        original=original,
    )


@contextmanager
def steps_progress() -> "Iterator[Callable[[str], object]]":
    """Yields a function that shows the name of the next step of an audit on standard error."""
    from vivit.audit.complete import STEPS

    columns = (TextColumn("auditing: {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=STEPS, completed=-1)
        yield lambda step: progress.update(task, advance=1, description=step)


def _print(verdict: "CheckpointAudit", report: dict[str, Any], *, verbose: bool) -> None:
    from vivit.audit.page import departures  # here, so that `vivit info` need not load JAX

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
    hashed = {f"hashed of {', '.join(names)}": text for text, names in _by_value(report["hashed"]).items()}
    details = {
        **{f"{name}, sha256": value for name, value in report["sha256"].items()},
        **(hashed if verbose else {}),
        "vivit": f"{vivit['version']}, commit {vivit['commit'] or 'unknown: not run from a git checkout'}{changed}",
        "device": f"{report['device']['platform']}, {report['device']['kind']}",
        "software": ", ".join(f"{name} {version}" for name, version in report["software"].items()),
    }
    for name, value in details.items():
        say(f"{name}: {value}", out, soft_wrap=True)
    if report["against"] is not None:
        _print_other(report["against"], out, verbose=verbose)
    for line in departures(report):
        say(printable(f"FAIL {line}"), out, soft_wrap=True)
    say(_outcome(verdict, report["seconds"]), out)
    if report["against"] is not None:
        how = "agrees with" if report["against"]["passed"] else "departs from"
        say(printable(f"{report['against']['name']} {how} the reference."), out)


MEANINGS = (
    "error: largest difference from the reference. bound: twice the baseline's error in that dtype, which is itself "
    "limited, plus the rounding error of the largest value. logits: those of the complete model."
)


def _print_other(other: dict[str, Any], out: Console, *, verbose: bool) -> None:
    """Prints how many stages of another implementation pass, those that depart, and what it did not give."""
    columns = ("stage", "shape", "error", "bound", "")
    shown = [
        (
            row["stage"],
            " ".join(map(str, row["shape"])),
            _figure(row["error"]),
            _figure(row["bound"]),
            "pass" if row["passed"] else FAIL,
        )
        for row in other["rows"]
        if verbose or row["stage"] in other["departs"]
    ]
    title = printable(
        f"{other['name']}: {sum(row['passed'] for row in other['rows'])} of {len(other['rows'])} stages pass"
    )
    if shown:
        show(Table(columns, shown, title=title), out)
    else:
        say(title, out)
    if verbose and other["not_given"]:
        say(f"not given by it: {', '.join(other['not_given'])}", out)


def _figure(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}"


def _outcome(verdict: "CheckpointAudit", seconds: float) -> str:
    """Returns a sentence with the result."""
    passed = sum(row.passed for row in verdict.rows)
    agree = sum(decision.agrees for decision in verdict.decisions)
    heads = f", {agree} of {len(verdict.decisions)} heads agree" if verdict.decisions else ""
    how = "agrees with" if verdict.passed else "departs from"
    return f"The checkpoint {how} the reference: {passed} of {len(verdict.rows)} stages pass{heads}; {seconds:.0f} s."


def _by_value(texts: dict[str, str]) -> dict[str, list[str]]:
    """Returns the names of each text."""
    return {text: [name for name, other in texts.items() if other == text] for text in texts.values()}


def _summary(rows: "tuple[StageComparison, ...]") -> Table:
    """Returns one line per dtype: how many stages pass, and the stage with the largest error relative to its bound."""
    lines = []
    for by, dtype in dict.fromkeys((row.by, row.dtype) for row in rows):
        stages = [row for row in rows if (row.by, row.dtype) == (by, dtype)]
        worst = max(stages, key=lambda row: math.inf if math.isnan(row.error) else row.error / row.bound)
        passed = sum(row.passed for row in stages)
        verdict = "pass" if passed == len(stages) else FAIL
        part = f"{100 * worst.error / worst.bound:.0f} %"
        lines.append(
            (
                dtype if by == "production" else f"{dtype}, {by}",
                worst.stage,
                f"{passed} of {len(stages)}",
                part,
                verdict,
            )
        )
    return Table(("dtype", "nearest to its bound", "stages pass", "of bound", ""), lines, texts=2)


def _stages(rows: "tuple[StageComparison, ...]") -> Table:
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


def _classes(decisions: "tuple[HeadComparison, ...]") -> Table:
    columns = ("head", "reference", *decisions[0].production, "")
    shown = [
        (
            str(decision.head + 1),
            *(_class_text(best) for best in (decision.reference, *decision.production.values())),
            "agree" if decision.agrees else FAIL,
        )
        for decision in decisions
    ]
    return Table(columns, shown, texts=len(columns) - 1, title="The class with the largest logit, of each head")


def _class_text(best: "Prediction") -> str:
    name = unnamed(best.number) if best.label is None else best.label
    return printable(f"{name} ({best.logit:.4f})")


def _covered(covered: dict[str, str]) -> list[str]:
    """Returns one line for each type of stage that is not compared on its own, with its layers combined."""
    counts: dict[tuple[str, str], int] = {}
    for pair in covered.items():
        pattern = tuple(re.sub(r"/\d+/", "/*/", name) for name in pair)
        counts[pattern[0], pattern[1]] = counts.get((pattern[0], pattern[1]), 0) + 1
    return [
        f"{name}: {count} stages too large to store, compared through {through} instead"
        for (name, through), count in counts.items()
    ]
