"""The tests' browser detects what a page does; otherwise a test that a page does nothing would prove nothing."""

import pytest
from browser import chromium, visit

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>x</title><p id="p">no script</p>
<img src="https://localhost:9/there.png" alt="">
<script>p.textContent = `script, ${innerWidth} wide`; console.warn("odd"); fetch("beside.json").catch(() => {});
setTimeout(() => { throw new Error("late"); })</script></html>"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def test_messages_errors_and_requests_of_a_page_are_recorded(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(PAGE, "utf-8")
    with visit(browser, path, viewport={"width": 321, "height": 400}) as visited:
        visited.page.wait_for_timeout(100)
        assert visited.page.inner_text("#p") == "script, 321 wide"
    assert ("warning", "odd") in visited.console
    assert visited.errors == ["late"]
    assert visited.requests[0] == path.as_uri()
    assert {(tmp_path / "beside.json").as_uri(), "https://localhost:9/there.png"} <= set(visited.requests)


def test_a_page_can_be_read_without_its_scripts(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(PAGE, "utf-8")
    with visit(browser, path, java_script_enabled=False) as visited:
        assert visited.page.inner_text("#p") == "no script"
    assert visited.errors == []


def test_a_browser_that_is_needed_and_missing_is_a_failure(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("VIVIT_NEEDS_CHROMIUM", "1")
    with pytest.raises(pytest.fail.Exception, match="no Chromium is installed"), chromium():
        pass
    monkeypatch.delenv("VIVIT_NEEDS_CHROMIUM")
    with pytest.raises(pytest.skip.Exception, match="no Chromium is installed"), chromium():
        pass
