"""A real browser for tests of pages: the system's headless Chromium, and a record of everything that a page did.

Chromium is never downloaded. Without it the tests are skipped, or fail if VIVIT_NEEDS_CHROMIUM is set.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
NEEDED = "VIVIT_NEEDS_CHROMIUM"
FLAGS = (
    "--headless",
    "--no-sandbox",  # containers have no user namespaces, and what is opened is our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 20_000  # milliseconds for one action: the machine may be busy


@dataclass(frozen=True)
class Visit:
    """An open page (playwright's Page), its console messages, its errors, and the addresses that it requested.

    console: (kind, text), kind such as "log", "warning", "error".
    """

    page: object
    console: list[tuple[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[object]:
    """A running browser (playwright's Browser). Without one, skips the test or, with VIVIT_NEEDS_CHROMIUM, fails it."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    needed = os.environ.get(NEEDED) == "1"
    if found is None:
        (pytest.fail if needed else pytest.skip)(
            "no Chromium is installed: get it with apt-get install --no-install-recommends chromium"
        )
    if not needed:
        pytest.importorskip("playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS), timeout=3 * PATIENCE)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser, path: Path, **settings) -> Iterator[Visit]:
    """Opens the file in a new context. settings: of playwright's new_context, such as viewport."""
    context = browser.new_context(**settings)
    context.set_default_timeout(PATIENCE)
    visited = Visit(context.new_page())
    page = visited.page
    page.on("console", lambda message: visited.console.append((message.type, message.text)))
    page.on("pageerror", lambda error: visited.errors.append(str(error)))
    context.on("request", lambda request: visited.requests.append(request.url))
    try:
        page.goto(path.absolute().as_uri())
        yield visited
    finally:
        context.close()
