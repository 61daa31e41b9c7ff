"""The site's own directives, and the built site in a real browser: whole, offline, light and dark, wide and narrow.

VIVIT_SITE names its folder, such as docs/_build/html after `make docs`; without it no built site is tested.
"""

import base64
import importlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from browser import chromium, visit

SITE = os.environ.get("VIVIT_SITE")
ROOT = Path(__file__).parent.parent
PHONE, WIDE = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
KINDS = (  # one page of each kind
    "README.html",
    "docs/index.html",
    "docs/lessons/05-four-masks.html",
    "docs/command-line.html",
    "docs/api/kernels.html",
    "source/kernels/spatial.py.html",
    "docs/pictures/clip.html",
    "docs/pictures/kernel.html",
)

CUT_OFF = """() => {
  const scrolled = (element) => {
    for (let parent = element.parentElement; parent.className !== "article-container"; parent = parent.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(parent).overflowX)) return true;
    return false;
  };
  return [...document.querySelectorAll(".article-container *")]
    .filter((element) => element.getBoundingClientRect().right > innerWidth + 1 && !scrolled(element))
    .map((element) => element.outerHTML.slice(0, 80));
}"""


def pages():
    folder = Path(SITE or ".")
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html")) if SITE else []


@pytest.fixture
def extension(monkeypatch):
    """A function from the name of one of docs/extensions to its module."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "extensions"))
    return importlib.import_module


@pytest.mark.fast
def test_docstrings_keep_their_lines_and_nothing_in_them_is_markup(extension):
    lines = [
        "softmax(Q Kᵀ) of *rows, a_ and `b`.",
        "",
        "qkv: float[b n 3c], where",
        "    it goes on. mask: b|n.",
        "scale: one number:",
        "",
        "With S a score, this holds",
        "    dS = W ∘ dW",
        "for all.",
        "",
        "* one",
        "  item",
        "* two",
    ]
    extension("docstrings")._convert(None, "function", "name", None, None, lines)
    assert lines == [
        r"softmax(Q Kᵀ) of \*rows, a\_ and ``b``.",
        "",
        r"| qkv: float[b n 3c], where it goes on. mask: b\|n.",
        "| scale: one number:",
        "",
        "| With S a score, this holds",
        "| dS = W ∘ dW",
        "| for all.",
        "",
        "* one item",
        "* two",
        "",
    ]


def test_a_source_is_found_by_its_name_and_one_that_is_gone_is_an_error_that_names_it(extension):
    pytest.importorskip("sphinx")
    locate = extension("sources").locate
    assert locate("vivit.reference.attention.attend", ROOT) == ("reference/attention.py", "attend")
    assert locate("vivit.kernels.softmax_av.KernelOptions.product", ROOT)[1] == "KernelOptions.product"
    with pytest.raises(LookupError, match=r"heads\.hats is gone: kernels/heads\.py defines no hats"):
        locate("vivit.kernels.heads.hats", ROOT)
    with pytest.raises(LookupError, match=r"vivit\.cells\.hats is gone: there is no such module"):
        locate("vivit.cells.hats", ROOT)


@pytest.fixture(scope="module")
def browser():
    if not SITE:
        pytest.skip("VIVIT_SITE names no site: run `make docs`, then set it")
    with chromium() as found:
        yield found


def test_every_page_loads_from_disk_and_asks_for_nothing_else(browser):
    assert {*KINDS, "index.html", "search.html"} <= {*pages()}
    for page in pages():
        with visit(browser, Path(SITE, page), viewport=WIDE) as visited:
            assert visited.errors == [], page
            assert [text for kind, text in visited.console if kind in ("error", "warning")] == [], page
            assert all(url.startswith(("file://", "data:")) for url in visited.requests), page


@pytest.mark.skipif(not SITE, reason="VIVIT_SITE names no site: run `make docs`, then set it")
def test_links_within_the_site_lead_to_pages_and_places_that_exist():
    ids = {page: {*re.findall(r'\bid="([^"]+)"', Path(SITE, page).read_text("utf-8"))} for page in pages()}
    for page in pages():
        for target in re.findall(r'<a\b[^>]*\bhref="([^"]+)"', Path(SITE, page).read_text("utf-8")):
            if target.startswith(("http:", "https:", "mailto:")) or target in ("#", ""):
                continue
            name, _, place = target.partition("#")
            path = Path(os.path.normpath(Path(page).parent / name)).as_posix() if name else page
            assert Path(SITE, path).is_file(), f"{page}: {target}"
            assert not place or path not in ids or place in ids[path], f"{page}: {target}"


@pytest.mark.parametrize("page", KINDS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_a_phone_and_follows_the_color_scheme(page, scheme, browser):
    with visit(browser, Path(SITE, page), viewport=PHONE, color_scheme=scheme) as visited:
        assert visited.page.evaluate(CUT_OFF) == []
        background = visited.page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
        assert brightness > 200 if scheme == "light" else brightness < 60


def test_a_search_from_disk_finds_a_lesson(browser):
    with visit(browser, Path(SITE, "search.html")) as visited:
        visited.page.locator("input[name=q]").first.fill("inflating")
        visited.page.keyboard.press("Enter")
        found = visited.page.locator("#search-results a", has_text="Inflating an image model")
        found.first.wait_for()
        assert visited.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_take_the_color_of_the_text_and_tell_what_they_show(scheme, browser):
    with visit(browser, Path(SITE, KINDS[2]), color_scheme=scheme) as visited:
        figures = visited.page.locator("figure.drawn svg")
        assert figures.count() >= 2
        for figure in figures.all():
            assert len(figure.get_attribute("aria-label")) > 20
        color = "element => getComputedStyle(element).fill"
        text = visited.page.evaluate("getComputedStyle(document.querySelector('article p')).color")
        assert figures.first.locator("text").first.evaluate(color) == text


def test_the_forms_of_an_equation_are_tabs_with_code_of_the_source_and_drawn_formulas(browser):
    with visit(browser, Path(SITE, "docs/lessons/04-attention-by-hand.html")) as visited:
        box = visited.page.locator(".sources").first
        assert box.locator("math").first.bounding_box()["height"] > 20
        for form, shown in (("NumPy", "softmax(scores, mask)"), ("JAX", "one_row"), ("Pallas", "exponentials")):
            box.locator("label", has_text=form).click()
            code = box.locator(".sd-tab-content:visible")
            assert shown in code.inner_text()


def test_answers_are_folded_until_asked_for(browser):
    with visit(browser, Path(SITE, KINDS[2])) as visited:
        folded = visited.page.locator("details:not(.hide)")
        assert folded.count() == 3
        answer = folded.first.locator("p").first
        assert not answer.is_visible()
        folded.first.locator("summary").click()
        assert answer.is_visible()


def embedded(name):
    """The data inside the page of a picture."""
    page = Path(SITE, "docs", "pictures", f"{name}.html").read_text("utf-8")
    return json.loads(re.search(rf'<script type="application/json" id="{name}-data">(.*?)</script>', page)[1])


@pytest.mark.parametrize(("model", "layer", "head"), [(0, 1, 2), (1, 1, 3), (1, 2, 0), (2, 2, 1), (3, 1, 1)])
@pytest.mark.parametrize("mode", ["row", "column"])
def test_the_page_of_a_clip_shows_the_numbers_that_were_recorded(model, layer, head, mode, browser):
    run = embedded("clip")
    (_, rows, columns), recorded = run["grid"], run["models"][model]["layers"][layer]
    places = rows * columns
    queries = recorded["shape"][-1]
    codes = np.frombuffer(base64.b64decode(recorded["codes"]), "<u2")
    weights = codes.reshape(len(recorded["heads"]), -1, queries, queries)[head] / run["steps"]  # [r q k]
    time, place = 2, 3 * columns + 5
    sequence, query = {
        "joint": (0, time * places + place),
        "space": (time, place),
        "time": (place, time),
        "frames": (0, time),
    }[recorded["kind"]]
    expected = weights[sequence, query] if mode == "row" else weights[sequence, :, query]
    with visit(browser, Path(SITE, "docs/pictures/clip.html"), viewport=WIDE) as visited:
        page = visited.page
        page.locator("input[name=clip-model]").nth(model).check()
        page.locator("#clip-layer").select_option(str(layer))
        page.locator("#clip-head").select_option(str(head))
        page.locator(f"input[name=clip-mode][value={mode}]").check()
        for name, value in (("time", time), ("row", 3), ("column", 5)):
            page.locator(f"#clip-{name}").fill(str(value))
        largest = page.locator("#clip-strongest li").first
        assert f"{expected.max():.4f}" in largest.inner_text()
        assert f"{expected.max():.4f}" in page.locator("#clip-said").inner_text()
        page.locator("#clip summary").click()
        cells = page.locator("#clip-numbers td").all_inner_texts()
        assert cells == [f"{value:.4f}" for value in expected]
        assert f"{expected.sum():.3f}" in page.locator("#clip-sum").inner_text()
        assert visited.errors == []


def test_the_page_of_a_clip_is_used_with_keys_or_by_clicking_on_a_frame(browser):
    with visit(browser, Path(SITE, "docs/pictures/clip.html"), viewport=PHONE) as visited:
        page = visited.page
        said = page.locator("#clip-said")
        assert "time 2, row 4, column 4" in said.inner_text()
        page.locator("#clip-time").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Tab")
        page.keyboard.press("Home")
        assert "time 3, row 1, column 4" in said.inner_text()
        page.locator("input[name=clip-model]").first.focus()
        page.keyboard.press("ArrowDown")
        assert said.inner_text().startswith("Model 2")
        assert "Black it cannot see" in said.inner_text()
        assert page.locator("#clip-costs .chosen th").inner_text() == "Model 2"
        frame = page.locator("#clip-frames canvas").last
        frame.click(position={"x": frame.bounding_box()["width"] - 2, "y": 2})
        assert "time 4, row 1, column 8" in said.inner_text()
        assert page.locator("#clip-frames canvas").nth(3).evaluate("one => one.toDataURL().length") > 1000


def test_the_page_of_a_kernel_walks_through_its_grid(browser):
    calls = embedded("kernel")["calls"]
    titles = [call["title"] for call in calls]
    with visit(browser, Path(SITE, "docs/pictures/kernel.html"), viewport=PHONE) as visited:
        page = visited.page
        said, next_step = page.locator("#kernel-said"), page.get_by_role("button", name="Next")
        assert page.locator("#kernel-call option").all_inner_texts() == titles
        page.locator("#kernel-call").select_option(label="All tokens: flash_forward")
        assert "Grid (1, 6, 14, 1), step (0, 0, 0, 0). Fetched: query_ref, key_ref, value_ref." in said.inner_text()
        next_step.press("Enter")
        assert said.inner_text().endswith("step (0, 0, 1, 0). Fetched: query_ref.")
        states = page.locator("#kernel-operands .state").all_inner_texts()
        assert states[:3] == ["fetched from HBM for this step", *["still there from the step before"] * 2]
        assert page.locator("#kernel-lanes span").all_inner_texts() == ["head 1: lanes 0–63", "head 2: lanes 64–127"]
        page.locator("#kernel-step").fill("14")
        assert "step (0, 1, 0, 0). Fetched: query_ref, key_ref, value_ref." in said.inner_text()
        assert page.locator("#kernel-lanes span").first.inner_text() == "head 3: lanes 0–63"
        page.locator("#kernel-call").select_option(label="Over time: temporal_forward")
        page.locator("#kernel-step").focus()
        page.keyboard.press("End")
        assert "4 of its 8 rows lie beyond the end" in page.locator("#kernel-operands").inner_text()
        assert next_step.is_disabled()
        page.get_by_role("button", name="Play").press("Enter")
        page.wait_for_function("document.getElementById('kernel-step').value === '1'")
        page.get_by_role("button", name="Pause").press("Enter")
        assert visited.errors == []


@pytest.mark.parametrize(
    "title", ["Over space: spatial_forward", "Model 4: spatial_backward", "All tokens: flash_backward"]
)
def test_the_page_of_a_kernel_counts_the_bytes_that_its_pipeline_moves(title, browser):
    calls = embedded("kernel")["calls"]
    number = [call["title"] for call in calls].index(title)
    moved = 0
    for one in calls[number]["operands"]:
        indices = np.array(one["indices"])
        moved += one["bytes"] * (0 if one["hbm"] else 1 + (indices[1:] != indices[:-1]).any(axis=1).sum())
    with visit(browser, Path(SITE, "docs/pictures/kernel.html")) as visited:
        visited.page.locator("#kernel-call").select_option(str(number))
        visited.page.locator("#kernel-step").fill(str(len(calls[number]["operands"][0]["indices"]) - 1))
        assert (
            f"Up to this step, {moved / 1e6:.2f} MB have moved."
            in visited.page.locator("#kernel-vmem-said").inner_text()
        )
