"""Examines an implementation: every property on cases that hypothesis draws from a seed, and one verdict for each."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Flaky

from vivit.conformance.implementation import Departure, Implementation, Unsupported
from vivit.conformance.plan import Plan
from vivit.conformance.properties import Property, properties

PASSED, FAILED, UNSUPPORTED = "passed", "failed", "unsupported"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One row of the report.

    outcome: "passed", "failed", or "unsupported" if no case ran; "absent" if the implementation lacks the function.
    cases, unsupported: how many ran, and how many were not supported. reason: why it failed or did not run.
    case: the smallest that failed. worst: the index of the worst element; actual, expected, error, bound: there.
    """

    function: str
    name: str
    dtype: str
    outcome: str
    cases: int = 0
    unsupported: int = 0
    reason: str = ""
    case: str | None = None
    worst: tuple[int, ...] | None = None
    actual: float | None = None
    expected: float | None = None
    error: float | None = None
    bound: float | None = None

    def __str__(self) -> str:
        what = f"{self.function}, {self.name}, {self.dtype}: {self.outcome}"
        case = f" with {self.case}" if self.case else ""
        return f"{what}{case}: {self.reason}" if self.reason else what


def examine(implementation: Implementation, plan: Plan, chosen: Iterable[Property] | None = None) -> Iterator[Verdict]:
    """Yields the verdict of every property, or of those chosen, in order."""
    for each in properties(implementation.dtypes[0]) if chosen is None else chosen:
        yield examine_property(implementation, each, plan)


def examine_property(implementation: Implementation, each: Property, plan: Plan) -> Verdict:
    """Returns the verdict of one property. A failure is shrunk to the smallest case that fails."""
    row: dict[str, Any] = dict(function=each.function, name=each.name, dtype=each.dtype)
    if each.function not in implementation.functions:
        return Verdict(**row, outcome="absent", reason=f"{implementation.name} has no {each.function}")
    if each.dtype not in implementation.dtypes:
        return Verdict(**row, outcome=UNSUPPORTED, reason=f"DTYPES lacks {each.dtype}")
    tally: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    failing: list[Any] = []

    def trial(case: Any) -> None:
        try:
            each.check(implementation, each.function, case)
        except Unsupported as reason:
            tally[UNSUPPORTED] += 1
            reasons[str(reason)] += 1
        except Departure:
            failing.append(case)  # hypothesis runs the smallest last
            raise
        else:
            tally["ran"] += 1

    options = settings(
        max_examples=min(plan.examples, each.most),
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[*HealthCheck],  # pyright: ignore[reportArgumentType]  # its metaclass hides the type
    )
    run = hypothesis.seed(plan.seed)(options(given(each.draw(plan.any_sizes))(trial)))
    try:
        run()
    except Departure as departure:
        return _failure(row, tally, failing[-1], departure)
    except Flaky:
        reason = "the same arguments do not always give the same result"
        return Verdict(**row, outcome=FAILED, cases=tally["ran"] + 1, reason=reason, case=str(failing[-1]))
    counts: dict[str, Any] = dict(cases=tally["ran"], unsupported=tally[UNSUPPORTED])
    if not tally["ran"]:
        return Verdict(**row, outcome=UNSUPPORTED, **counts, reason=", ".join(reasons))
    return Verdict(**row, outcome=PASSED, **counts)


def _failure(row: dict[str, Any], tally: Counter[str], case: Any, departure: Departure) -> Verdict:
    found = departure.comparison
    numbers: dict[str, Any] = {}
    if found is not None:
        numbers = {name: getattr(found, name) for name in ("worst", "actual", "expected", "error", "bound")}
    counts = dict(cases=tally["ran"] + 1, unsupported=tally[UNSUPPORTED])
    return Verdict(**row, outcome=FAILED, **counts, reason=str(departure), case=str(case), **numbers)
