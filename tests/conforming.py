"""What the tests of conformance share: which properties compare with the oracle, and how one is examined."""

from vivit.conformance.examine import PASSED, examine_property
from vivit.conformance.plan import Plan
from vivit.conformance.properties import Property

AGAINST_ORACLE = ("equality with the oracle", "large scores", "masks", "rows without a key")


def label(each: Property) -> str:
    return f"{each.function}-{each.name}-{each.dtype}".replace(" ", "_")


def assert_passed(implementation, each: Property, chosen_plan: Plan) -> None:
    verdict = examine_property(implementation, each, chosen_plan)
    assert verdict.outcome == PASSED, str(verdict)
