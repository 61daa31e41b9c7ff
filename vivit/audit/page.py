"""The report of an audit as a page for people: one HTML document that loads nothing.

How it looks is vivit/explanation/audit.html's question.
"""

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from vivit.explanation.template import render
from vivit.labels import unnamed


class Row(NamedTuple):
    """One line of a table. fails: it is marked."""

    cells: tuple[str, ...]
    fails: bool


class Table(NamedTuple):
    """A table of the page."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Row]


def page(report: dict[str, Any]) -> str:
    """The document of a report of vivit/audit/report.py. Names and labels are escaped."""
    of_checkpoint = "checkpoint" in report
    return render(
        "audit.html",
        styles=("page.css",),
        subject=PurePath(report["checkpoint"]).name if of_checkpoint else "every variant",
        passed=report["passed"],
        verdict=_verdict(report),
        faults=list(departures(report)),
        tables=list(_checkpoint_tables(report) if of_checkpoint else _variant_tables(report)),
        facts=dict(_facts(report)),
        verify=of_checkpoint,
    )


def departures(report: dict[str, Any]) -> Iterator[str]:
    """Yields a sentence for everything that departs from the reference."""
    if "checkpoint" not in report:
        for row in report["rows"]:
            if not row["passed"]:
                yield f"{row['variant']}, {row['dtype']}: first departs at {row['departs']}"
        return
    seen = set()
    for row in report["rows"]:
        if not row["passed"] and (row["by"], row["dtype"]) not in seen:
            seen.add((row["by"], row["dtype"]))
            yield f"{_by(row)}{row['dtype']}: first departs at {row['stage']}: {row['worst']}"
    for decision in report["decisions"]:
        if not decision["agrees"]:
            lead = f"leads by {decision['lead']:.3g} there"
            yield f"head {decision['head'] + 1}: production has another class than the reference, which {lead}"
    if report["against"] is not None:
        yield from other_departures(report["against"])


def other_departures(other: dict[str, Any]) -> Iterator[str]:
    """Yields where another implementation departs, and why."""
    rows = {row["stage"]: row for row in other["rows"]}
    for stage in other["departs"]:
        yield f"{other['name']}: first departs at {stage}: {rows[stage]['worst']}"
        if stage == "pixels":
            yield f"{other['name']}: cause: {other['pixel_cause'] or UNKNOWN}"
        elif not other["causes"]:
            yield f"{other['name']}: cause: {UNKNOWN}"
    for cause in other["causes"]:
        confirmed = (
            f"with it the reference agrees at {cause['agree']} of {cause['stages']} stages from {cause['stage']} on"
        )
        yield f"{other['name']}: cause: {cause['fault']} ({confirmed})"


UNKNOWN = "none of the known mistakes"


def _by(row: dict[str, Any]) -> str:
    return "" if row["by"] == "production" else f"{row['by']}, "


def _verdict(report: dict[str, Any]) -> str:
    passed = sum(row["passed"] for row in report["rows"])
    said = f"{passed} of {len(report['rows'])} comparisons are within their bounds"
    if report.get("decisions"):
        said += f", {sum(one['agrees'] for one in report['decisions'])} of {len(report['decisions'])} heads agree"
    other = report.get("against")
    if other is not None:
        said += f"; {other['name']}: {sum(row['passed'] for row in other['rows'])} of {len(other['rows'])} stages"
    return said


def _figure(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2e}"


def _stage_row(row: dict[str, Any]) -> Row:
    shape = "×".join(map(str, row["shape"]))
    return Row((row["stage"], shape, *_figures(row)), not row["passed"])


def _figures(row: dict[str, Any]) -> tuple[str, str, str]:
    return _figure(row["error"]), _figure(row["bound"]), "pass" if row["passed"] else "FAIL"


def _checkpoint_tables(report: dict[str, Any]) -> Iterator[Table]:
    columns = ("stage", "shape", "error", "bound", "verdict")
    for by, dtype in dict.fromkeys((row["by"], row["dtype"]) for row in report["rows"]):
        rows = [_stage_row(row) for row in report["rows"] if (row["by"], row["dtype"]) == (by, dtype)]
        name = f"Pallas kernels, {report['kernels']}" if by == "kernels" else "Production"
        yield Table(f"{name}, {dtype}", columns, rows)
    if report["decisions"]:
        names = ("head", "reference", *report["decisions"][0]["production"], "verdict")
        yield Table(
            "The class with the largest logit, of each head", names, [_head(one) for one in report["decisions"]]
        )
    other = report["against"]
    if other is not None:
        yield Table(f"{other['name']}, float32", columns, [_stage_row(row) for row in other["rows"]])


def _head(one: dict[str, Any]) -> Row:
    best = (one["reference"], *one["production"].values())
    said = (f"{unnamed(each['number']) if each['label'] is None else each['label']}" for each in best)
    return Row((str(one["head"] + 1), *said, "agree" if one["agrees"] else "FAIL"), not one["agrees"])


def _variant_tables(report: dict[str, Any]) -> Iterator[Table]:
    columns = ("variant", "dtype", "error", "bound", "verdict")
    rows = [
        Row(
            (
                row["variant"],
                row["dtype"],
                _figure(row["error"]),
                _figure(row["bound"]),
                "pass" if row["passed"] else "FAIL",
            ),
            not row["passed"],
        )
        for row in report["rows"]
    ]
    yield Table("Every variant with random weights", columns, rows)


def _facts(report: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    yield "SHA-256", list(report["sha256"].items())
    vivit = report["vivit"]
    changed = ", with changes" if vivit["modified"] else ""
    facts = {
        "video": PurePath(report["video"]).name,
        "vivit": f"{vivit['version']}, commit {vivit['commit'] or 'unknown'}{changed}",
    }
    if "installed" in report:
        facts["installed files, SHA-256"] = report["installed"]
    if "device" in report:
        facts |= {"device": f"{report['device']['platform']}, {report['device']['kind']}", "kernels": report["kernels"]}
        facts |= {"clip": "×".join(map(str, report["clip"]["shape"])), "date": report["date"]}
        facts |= report["software"]
    yield "Inputs and environment", list(facts.items())
    if "config" in report:
        yield "Config", list(report["config"].items())
        yield "Preprocessing", list(report["preprocessing"].items())
