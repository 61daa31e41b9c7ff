"""The tests of an implementation from elsewhere, one for each property: vivit.conformance.plugin names it."""

import pytest

from vivit.conformance.examine import FAILED, PASSED, examine_property
from vivit.conformance.implementation import Implementation
from vivit.conformance.plugin import IMPLEMENTATION, PLAN
from vivit.conformance.properties import Property, properties


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Makes one test of each property."""
    implementation = metafunc.config.stash.get(IMPLEMENTATION, None)
    if implementation is None:
        raise pytest.UsageError("the plugin is missing: pytest needs -p vivit.conformance.plugin")
    rows = [(implementation, each) for each in properties(implementation.dtypes[0])]
    ids = [f"{each.function}-{each.name}-{each.dtype}".replace(" ", "_") for _, each in rows]
    metafunc.parametrize(("implementation", "each"), rows, ids=ids)


def test_conformance(implementation: Implementation, each: Property, pytestconfig: pytest.Config) -> None:
    verdict = examine_property(implementation, each, pytestconfig.stash[PLAN])
    if verdict.outcome == FAILED:
        pytest.fail(str(verdict), pytrace=False)
    if verdict.outcome != PASSED:
        pytest.skip(verdict.reason)
