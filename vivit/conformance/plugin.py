"""The pytest plugin: `pytest -p vivit.conformance.plugin --pyargs vivit.conformance --implementation my.module`.

--hypothesis-seed=N is the seed of everything drawn, 0 by default. --hypothesis-profile=exhaustive draws other examples
each run, more of them and of any sizes. The head of the report states the seed.
"""

import random
from typing import Any

import pytest

from vivit.conformance.implementation import Implementation, load
from vivit.conformance.plan import EXAMPLES, EXHAUSTIVE, Plan

PLAN = pytest.StashKey[Plan]()
IMPLEMENTATION = pytest.StashKey[Implementation]()
_RAN: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --implementation."""
    group = parser.getgroup("vivit.conformance")
    group.addoption("--implementation", metavar="MODULE", help="my.module, my.module:an_object or path/to/file.py")


def pytest_configure(config: pytest.Config) -> None:
    """Chooses the seed."""
    config.stash[PLAN] = plan(config)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Imports the implementation. A missing or unusable one is a usage error, before anything is collected."""
    name = session.config.getoption("--implementation")
    if name is None:
        raise pytest.UsageError("--implementation is missing: name a module, such as --implementation my.module")
    try:
        session.config.stash[IMPLEMENTATION] = load(name)
    except (ValueError, ModuleNotFoundError) as error:
        raise pytest.UsageError(str(error)) from None


def plan(config: pytest.Config) -> Plan:
    """Returns the plan of hypothesis's options."""
    exhaustive = config.getoption("--hypothesis-profile") == EXHAUSTIVE
    chosen = config.getoption("--hypothesis-seed")
    drawn = chosen == "random" or (chosen is None and exhaustive)
    seed = random.SystemRandom().randrange(2**32) if drawn else int(chosen or 0)
    return Plan(seed=seed, examples=EXAMPLES, any_sizes=True) if exhaustive else Plan(seed=seed)


def pytest_report_header(config: pytest.Config) -> str:
    """States what is examined, and the seed."""
    return f"conformance: {config.getoption('--implementation')}, seed {config.stash[PLAN].seed}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Notes that a test ran."""
    if report.when == "call" and not report.skipped:
        _RAN.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fails a run in which nothing ran: every property was absent or unsupported."""
    if (
        exitstatus == pytest.ExitCode.OK
        and session.testscollected
        and not session.config.option.collectonly
        and not _RAN
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says so."""
    if not _RAN:
        terminalreporter.write_line("nothing ran: every property is absent or unsupported")
