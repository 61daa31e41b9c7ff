"""The page in a real browser: it shows the given numbers, and loads and runs nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from browser import PATIENCE, chromium, visit
from explanation_samples import COLUMNS, HEADS, MODELS, ROWS, T, sample

from vivit.explanation.data import Target
from vivit.explanation.images import LIGHT
from vivit.explanation.page import framed, page
from vivit.files.atomic import write_text
from vivit.inference.classification import Score

NEAR = (2 + 0.6) / 255  # of the most: two are the rounding of what is blended
# the colors at the centres of a grid of cells, [[r, g, b], …], read from a copy, or the page would be told of slowness
CENTRES = """([selector, rows, columns]) => {
  const shown = document.querySelector(selector);
  const copy = new OffscreenCanvas(shown.width, shown.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(shown, 0, 0);
  return Array.from({ length: rows * columns }, (_, cell) => {
    const [row, column] = [Math.floor(cell / columns), cell % columns];
    const [x, y] = [(column + 0.5) * shown.width / columns, (row + 0.5) * shown.height / rows];
    return [...copy.getImageData(Math.floor(x), Math.floor(y), 1, 1).data].slice(0, 3);
  });
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def opened(browser, tmp_path):
    """A function that opens an explanation's page and waits for its script; closed after the test."""
    visits = []

    def opened(explanation, *, ready=True, **settings):
        path = tmp_path / f"{len(visits)}.html"
        write_text(path, page(explanation))
        visits.append(visit(browser, path, **settings))
        visited = visits[-1].__enter__()
        if ready:
            visited.page.wait_for_selector("#look:not([hidden])")
        return visited

    yield opened
    for one in visits:
        one.__exit__(None, None, None)


def colors(shown, selector, rows, columns):
    return np.array(shown.evaluate(CENTRES, [selector, rows, columns]), float).reshape(rows, columns, 3)


def orange(found):
    """How much of the color is in pixels, 0 to 1: no grey has any."""
    return (found[..., 0] - found[..., 2]) / 255


def fractions(shown, selector, rows, columns):
    """What a canvas shows of a map, 0 to 1 of its most, at full opacity."""
    return orange(colors(shown, selector, rows, columns))


def even(shape, part=0.02):
    """float32: 1, but for so much."""
    return np.random.default_rng(0).uniform(1 - part, 1, shape).astype(np.float32)


def with_mean(maps):
    return np.concatenate([maps.mean(axis=0, keepdims=True), maps])


@pytest.mark.parametrize("model", MODELS)
def test_every_attention_and_head_can_be_chosen_and_shows_its_numbers(model, opened):
    explanation = sample(model)
    shown = opened(explanation).page
    shown.fill("#opacity", "100")
    for number, maps in enumerate(explanation.attention):
        shown.select_option("#layer", str(number))
        assert shown.locator("#head option").count() == len(maps.heads) + 1
        if maps.space is None:
            assert "no map over space" in shown.inner_text("#said")
            continue
        for head, values in enumerate(with_mean(maps.space)):
            shown.select_option("#head", str(head))
            time = (number + head) % T  # every one comes up
            shown.fill("#time", str(4 * time + head % 4))
            wanted = (values[time] / values.max()).reshape(ROWS, COLUMNS)
            assert np.abs(fractions(shown, "#picture", ROWS, COLUMNS) - wanted).max() < NEAR
            tile = f"#heads button:nth-child({head + 1})"
            assert np.abs(fractions(shown, f"{tile} canvas", ROWS, COLUMNS) - wanted).max() < NEAR
            assert shown.get_attribute(tile, "aria-pressed") == "true"
            most, said = shown.inner_text("#peak").split(", ")
            assert float(most) == pytest.approx(values.max(), rel=0.05)
            assert said == "the most in the clip"
            assert "share of" in shown.inner_text("#unit")


@pytest.mark.parametrize("model", MODELS)
def test_the_attention_over_time_is_shown_the_class_token_above(model, opened):
    explanation = sample(model)
    shown = opened(explanation).page
    for number, maps in enumerate(explanation.attention):
        shown.select_option("#layer", str(number))
        if maps.time is None:
            assert not shown.is_visible("#over-time")
            continue
        rows, halves = maps.time, [2 * time for time in range(T)]
        if maps.time_of_class is not None:
            rows = np.concatenate([maps.time_of_class[:, np.newaxis], rows], axis=1)
            halves = [0, *(3 + half for half in halves)]  # half of a row lies between
        for head, values in enumerate(with_mean(rows)):
            shown.select_option("#head", str(head))
            found = fractions(shown, "#over-time", halves[-1] + 2, T)[halves]
            assert np.abs(found - values / values.max()).max() < NEAR


# [[top, left], …] of the cells of the matrix over time: whether these edges are framed in white
FRAMED = """(times) => {
  const shown = document.getElementById("over-time");
  const copy = new OffscreenCanvas(shown.width, shown.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(shown, 0, 0);
  const white = (x, y) => copy.getImageData(x, y, 1, 1).data.every((value) => value === 255);
  const cell = shown.width / times;
  const above = shown.height - shown.width; // the class token's row and what sets it apart
  return Array.from({ length: times ** 2 }, (_, place) => {
    const [top, left] = [above + Math.floor(place / times) * cell, (place % times) * cell];
    return [white(left + cell / 2, top + 2), white(left + 2, top + cell / 2)];
  });
}"""


@pytest.mark.parametrize(("model", "class_row"), [(MODELS[0], True), (MODELS[2], False)])
def test_the_matrix_over_time_frames_the_time_shown_and_says_where_it_looks(model, class_row, opened):
    explanation = sample(model)
    shown = opened(explanation).page
    shown.select_option("#layer", "0")
    for time in range(T):
        shown.fill("#time", str(4 * time))
        values = explanation.attention[0].time.mean(axis=0)[time]
        said = f"time shown, {time + 1} of {T}: it looks most at time {values.argmax() + 1}, "
        assert said in shown.get_attribute("#over-time", "aria-label")
        framed = np.array(shown.evaluate(FRAMED, T)).reshape(T, T, 2)
        tops, lefts = np.zeros((2, T, T), bool)
        tops[time], lefts[:, time], lefts[time, 0] = True, True, True
        tops[0, time] |= not class_row  # else the frame of the column begins there
        np.testing.assert_array_equal(framed, np.stack([tops, lefts], axis=-1))


@pytest.mark.parametrize(
    ("words", "models"),
    [
        ("from the class token, from which the label is read", MODELS[:2]),
        ("from all tokens alike", MODELS[2:]),
        ("It sums to 1 over the clip, but for what the class token keeps.", MODELS[:1]),
        ("Within frames it sums to 1 at every time, but for what the class token keeps.", MODELS[1:2]),
        ("Within frames it sums to 1 at every time. Over time it sums to 1 along every place.", MODELS[2:]),
        ("half of the heads look over time and half within frames", MODELS[3:]),
        ("The tokens of the temporal layers are whole frames", MODELS[1:2]),
    ],
)
def test_the_page_has_notes_about_the_maps_of_each_model(words, models):
    assert tuple(model for model in MODELS if words in page(sample(model))) == tuple(models)


def test_a_map_that_is_not_finite_is_refused():
    explanation = sample(MODELS[0])
    explanation.attention[1].space[2, 1, 0] = np.nan
    with pytest.raises(ValueError, match="a map has numbers that are not finite: they must be, to be shown"):
        page(explanation)


@pytest.mark.parametrize("field", ["rollout", "relevance"])
def test_rollout_and_relevance_are_laid_over_the_frame(field, opened):
    explanation = sample(MODELS[0])
    values = getattr(explanation, field).reshape(-1, T, ROWS * COLUMNS)[0]
    shown = opened(explanation).page
    shown.fill("#opacity", "100")
    shown.check(f"input[value={field}]")
    for time in range(T):
        shown.fill("#time", str(4 * time))
        wanted = (values[time] / values.max()).reshape(ROWS, COLUMNS)
        assert np.abs(fractions(shown, "#picture", ROWS, COLUMNS) - wanted).max() < NEAR
        row, column = divmod(int(values[time].argmax()), COLUMNS)
        place = f"{('top', 'bottom')[row]} {('left', '', 'right')[column]}".strip()
        square = f"strongest at the {place}, row {row + 1} of {ROWS}, column {column + 1} of {COLUMNS}"
        assert square in shown.inner_text("#said")


@pytest.mark.parametrize(("enlarged", "error"), [(1, 0), (8, 8)], ids=["small frames exactly", "large ones as JPEG"])
def test_the_slider_shows_each_frame(enlarged, error, opened):
    explanation = sample(MODELS[2])
    frames = explanation.frames.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    config = replace(
        explanation.config, height=16 * enlarged, width=24 * enlarged, tubelet=(4, 8 * enlarged, 8 * enlarged)
    )
    shown = opened(replace(explanation, frames=frames, config=config)).page
    shown.check("input[value=none]")
    for frame in range(16):
        shown.fill("#time", str(frame))
        difference = colors(shown, "#picture", 16, 24) - explanation.frames[frame]
        assert np.abs(difference).max() <= error
        assert shown.inner_text("#time-value") == f"{frame + 1} of 16, {explanation.stamps[frame]:.2f} s"


def light(found):
    """The light of pixels, 0 to 1. Source: WCAG 2.2, relative luminance."""
    parts = found / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def films():
    """Frames uint8[16 16 24 3] that are hard to draw on."""
    random = np.random.default_rng(0)
    yield "white", np.full((16, 16, 24, 3), 255, np.uint8)
    yield "black", np.zeros((16, 16, 24, 3), np.uint8)
    yield "orange", np.broadcast_to(np.array([255, 176, 0], np.uint8), (16, 16, 24, 3))
    yield "noise", random.integers(0, 256, (16, 16, 24, 3), np.uint8)


@pytest.mark.parametrize(("name", "frames"), list(films()))
@pytest.mark.parametrize("opacity", [60, 100])
def test_larger_values_are_always_more_visible_and_match_the_legend(opacity, name, frames, opened):
    values = np.linspace(0.002, 0.009, T * ROWS * COLUMNS, dtype=np.float32).reshape(T, -1)[:, ::-1]
    explanation = sample(MODELS[0], frames=frames)
    shown = opened(replace(explanation, relevance=values[np.newaxis].repeat(9, axis=0))).page
    shown.fill("#opacity", str(opacity))
    bar = colors(shown, "#scale", 2, 256)
    np.testing.assert_allclose(orange(bar), np.tile(np.arange(256) / 255 * opacity / 100, (2, 1)), atol=NEAR)
    assert (np.diff(light(bar[0])[::8]) > 0).all()  # over the lightest of the film too
    for time in range(T):
        shown.fill("#time", str(4 * time))
        found, parts = colors(shown, "#picture", ROWS, COLUMNS).reshape(-1, 3), values[time] / values.max()
        np.testing.assert_allclose(orange(found), parts * opacity / 100, atol=NEAR)
        between = bar[:, np.round(255 * parts).astype(int)]
        assert (found <= between[0] + 3).all()
        assert (found >= between[1] - 3).all()
        if name in ("white", "black"):  # the same film everywhere: more is lighter, and the bar's color
            assert (light(found)[np.argsort(parts)] == np.sort(light(found))).all()
            assert np.abs(found - between[("white", "black").index(name)]).max() <= 3


def test_the_film_has_its_colors_where_nothing_is_laid_over_it_and_is_dim_grey_under_a_map(opened):
    zeros = np.zeros((9, T, ROWS * COLUMNS), np.float32)
    shown = opened(sample(MODELS[0], relevance=zeros)).page
    dim = colors(shown, "#picture", ROWS, COLUMNS)
    shown.check("input[value=none]")
    film = colors(shown, "#picture", ROWS, COLUMNS)
    grey = film @ np.array([0.3, 0.59, 0.11]) * LIGHT / 255
    assert np.abs(dim - grey[..., np.newaxis]).max() <= 2
    assert np.ptp(film, axis=-1).max() > 20
    assert not shown.is_visible("#legend")


def test_every_heads_best_classes_can_be_chosen_for_relevance(opened):
    explanation = sample(MODELS[0])
    shown = opened(explanation).page
    shown.fill("#opacity", "100")
    groups = """[...document.querySelectorAll("#target optgroup")].map((group) =>
        [group.label, [...group.children].map((option) => option.textContent)])"""
    assert shown.evaluate(groups) == [
        [f"Head {head + 1}", [f"{score.label}, {100 * score.probability:.1f} %" for score in best]]
        for head, best in enumerate(explanation.scores)
    ]
    assert shown.input_value("#target") == "0"
    for number, target in enumerate(explanation.targets):
        shown.check("input[value=rollout]")
        shown.select_option("#target", str(number))
        values = explanation.relevance[number]
        wanted = (values[0] / values.max()).reshape(ROWS, COLUMNS)
        assert np.abs(fractions(shown, "#picture", ROWS, COLUMNS) - wanted).max() < NEAR
        what = f"Relevance of the logit of “{target.label}”, head {target.head + 1}: "
        said = shown.inner_text("#said")
        assert said.startswith("Now relevance, no longer attention rollout. ")
        assert what in said
        assert "gradient of the logit" in shown.inner_text("#unit")
    assert "That is not its probability" in shown.inner_text("main")


def test_heads_that_have_names_are_called_by_them(opened):
    shown = opened(sample(MODELS[0], head_names=("verb", "noun"))).page
    assert shown.inner_text(".answer").startswith("Verb class 0.0 ")
    assert shown.evaluate("[...document.querySelectorAll('optgroup')].map((group) => group.label)") == ["Verb", "Noun"]
    assert shown.locator(".labels caption").all_inner_texts() == ["Verb: all 4 labels", "Noun: the best 5 of 10 labels"]
    assert ", noun: " in shown.inner_text("#said")
    assert "Best of verb" in shown.inner_text(".views thead")


def test_values_that_may_be_rounding_are_not_drawn(opened):
    explanation = sample(MODELS[0])
    values = explanation.relevance.copy()
    values[0] *= 1e-9  # at most 1e-11
    values[1, :, 0] = 0.5e-3
    values[1, 0] = 0.4e-3
    shown = opened(replace(explanation, relevance=values, rounding=np.r_[1e-11, 1e-3, np.full(7, 1e-9)])).page
    shown.fill("#opacity", "100")
    assert (fractions(shown, "#picture", ROWS, COLUMNS) == 0).all()
    for place in ("#unit", "#said"):
        assert "nothing found: no more than rounding" in shown.inner_text(place)
    shown.select_option("#target", "1")
    assert (fractions(shown, "#picture", ROWS, COLUMNS) == 0).all()
    assert shown.inner_text("#said").endswith("nothing in this frame.")
    shown.fill("#time", "4")
    wanted = np.where(values[1, 1] > 1e-3, values[1, 1], 0) / values[1].max()
    assert 0 < (wanted == 0).sum() < 6
    assert np.abs(fractions(shown, "#picture", ROWS, COLUMNS).ravel() - wanted).max() < NEAR


def test_attention_below_the_rounding_of_its_sum_counts_as_nothing(opened):
    explanation = sample(MODELS[0])
    shown = opened(replace(explanation, rollout=explanation.rollout * 1e-8)).page
    shown.check("input[value=rollout]")
    assert "nothing found" in shown.inner_text("#said")


def test_nearly_even_maps_are_named_and_not_drawn(opened):
    explanation = sample(MODELS[0])
    last = explanation.attention[-1]
    flat = last._replace(
        space=even(last.space.shape, 0.1) / 24, time=even(last.time.shape) / 4, time_of_class=even((HEADS, T)) / 4
    )
    attention = (*explanation.attention[:-1], flat)
    shown = opened(replace(explanation, attention=attention, rollout=even((T, 6), 0.1) / 24)).page
    for over, values in (("rollout", even((T, 6), 0.1) / 24), ("attention", flat.space.mean(axis=0))):
        shown.check(f"input[value={over}]")
        assert (fractions(shown, "#picture", ROWS, COLUMNS) == 0).all()
        limits = f"from {values.min():.2g} to {values.max():.2g} everywhere"
        for place in ("#unit", "#said"):
            assert f"nearly even in the whole clip: {limits}" in shown.inner_text(place)
    assert (fractions(shown, "#heads button canvas", ROWS, COLUMNS) == 0).all()
    assert shown.inner_text("#heads button .most") == "nearly even"
    over_time = shown.inner_text("#over-time-note")
    assert "it looks at all times about alike. It is nearly even in the whole clip" in over_time
    shown.select_option("#layer", "0")
    assert "nearly even" not in shown.inner_text("#look")


def test_one_even_frame_of_a_clip_has_no_strongest_place(opened):
    explanation = sample(MODELS[0])
    values = explanation.rollout.copy()
    values[1] = values.max() / 2 * even(6)
    shown = opened(replace(explanation, rollout=values)).page
    shown.check("input[value=rollout]")
    assert "strongest at the" in shown.inner_text("#said")
    shown.fill("#time", "4")
    assert f"about the same everywhere in this frame, {values[1].max():.2g}." in shown.inner_text("#said")
    assert np.abs(orange(colors(shown, "#picture", ROWS, COLUMNS)) - 0.8 * 0.5).max() < 0.02


def test_a_tile_says_what_its_head_has_at_the_time_shown(opened):
    explanation = sample(MODELS[0])
    last = explanation.attention[-1]
    space = last.space.copy()
    space[0, 0], space[0, 1, 0] = 0, 1
    attention = (*explanation.attention[:-1], last._replace(space=space))
    shown = opened(replace(explanation, attention=attention)).page
    tile = "#heads button:nth-child(2)"
    assert shown.inner_text(f"{tile} .most") == "nothing of 1"
    assert (fractions(shown, f"{tile} canvas", ROWS, COLUMNS) == 0).all()
    shown.fill("#time", "4")
    assert shown.inner_text(f"{tile} .most") == "1 of 1"
    assert "Full orange is the most of that head in the clip" in shown.inner_text("#heads-note")


@pytest.mark.parametrize("choice", ["#layer", "#head", "tile"])
def test_choosing_a_layer_or_head_says_that_attention_is_shown_now(choice, opened):
    shown = opened(sample(MODELS[0])).page
    if choice == "tile":
        shown.click("#heads button:nth-child(2)")
    else:
        shown.select_option(choice, "1")
    assert shown.inner_text("#said").startswith("Now attention of a layer, no longer relevance. Frame 1 of 16")
    assert shown.is_checked("input[value=attention]")
    shown.fill("#time", "1")
    assert shown.inner_text("#said").startswith("Frame 2 of 16")
    shown.select_option("#layer", "0")  # attention already
    assert shown.inner_text("#said").startswith("Frame 2 of 16")


def test_repeated_frames_are_marked(opened):
    stamps = np.tile(np.arange(6) / 10, 3)[:16]
    shown = opened(sample(MODELS[0], stamps=stamps)).page
    for frame in range(16):
        shown.fill("#time", str(frame))
        assert shown.is_visible("#mark") == (frame >= 6)
        if frame >= 6:
            mark = f"Frame {frame % 6 + 1} again: the video is shorter than the clip."
            assert shown.inner_text("#mark") == mark
            assert mark in shown.inner_text("#said")
            assert mark in shown.get_attribute("#time", "aria-valuetext")


def test_frames_that_a_sampled_model_never_saw_are_marked(opened):
    explanation = sample(MODELS[0])
    config = replace(explanation.config, tubelet=(1, 8, 8), sampled_frames=4)
    shown = opened(replace(explanation, config=config)).page
    for frame in range(16):
        shown.fill("#time", str(frame))
        assert shown.is_visible("#mark") == (frame not in (3, 6, 10, 13))  # k · 16 / 5
    shown.fill("#time", "7")
    assert shown.inner_text("#mark") == "The model never saw this frame: the map is of frame 7."


@pytest.mark.parametrize(
    ("stamps", "name"), [(np.arange(16.0), "3 of 16"), (5 + 2 * np.arange(16.0), "3 of 16, the array’s 10")]
)
def test_frames_of_an_array_are_counted_once_and_from_1(stamps, name, opened):
    shown = opened(sample(MODELS[0], stamps=stamps, unit="frame")).page
    shown.fill("#time", "2")
    assert shown.inner_text("#time-value") == name
    assert shown.inner_text("#said").startswith(f"Frame {name}. Relevance")


def test_views_are_counted_from_1_as_the_command_takes_them(opened):
    shown = opened(sample(MODELS[0])).page
    rows = shown.locator("table.views tbody th").all_inner_texts()
    assert rows == ["1", "2", "3", "4", "5 (pictured)", "6"]
    assert "view 5: 16 frames, seconds" in shown.inner_text(".controls")


@pytest.mark.parametrize("weak", [3.3, 0.5, 0.0123], ids=["nine bytes", "one byte", "no byte"])
def test_a_number_in_a_sentence_is_the_maps_and_not_its_bytes(weak, opened):
    values = np.zeros((9, T, ROWS * COLUMNS), np.float32)
    values[:, 0, 2], values[:, 1, 3] = 0.9137, weak * 0.9137 / 100
    shown = opened(sample(MODELS[0], relevance=values)).page
    shown.fill("#time", "4")
    said = shown.inner_text("#said")
    assert "row 2 of 2, column 1 of 3" in said
    assert float(said.rstrip(".").rsplit(" ", 1)[1]) == float(f"{values[0, 1, 3]:.2g}")


ODD = "{{ x }} {% x %} <img src=x onerror=hit=1> </script><script>hit=1</script> \"'&amp; <!-- ${x} \u2028 \ud800 <b>"
SHOWN = ODD.replace("\u2028", "\ufffd").replace("\ud800", "\ufffd")


def odd_names(text):
    explanation = sample(MODELS[0])
    return replace(
        explanation,
        name=text,
        checkpoint=text,
        scores=tuple((Score(text, 0.9), Score(f"{text} 2", 0.1)) for _ in explanation.scores),
        views=tuple(view._replace(best=(Score(text, 0.5),) * 2) for view in explanation.views),
        targets=(Target(0, 1, text, 0.9), *explanation.targets[1:]),
    )


# texts that are seen above the picture, and where picture and legend end
ABOVE = """() => {
  const box = (selector) => document.querySelector(selector).getBoundingClientRect();
  const top = box("#picture").top;
  const texts = [...document.body.querySelectorAll("*")]
    .filter((e) => e.checkVisibility() && !e.matches("script, option"))
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .filter((e) => e.getBoundingClientRect().top < top && e.getBoundingClientRect().right > 0);
  return [[...new Set(texts.map((e) => e.closest("h1, .answer")?.tagName ?? e.textContent))], box("#picture").bottom,
          box("#legend").bottom, scrollY];
}"""


@pytest.mark.parametrize(
    ("text", "tall"),
    [("", 1), ("", 3), ("long" * 60, 1), ("many words " * 60, 3)],
    ids=["wide", "tall", "one long word", "many words, tall"],
)
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_picture_comes_first_and_its_legend_is_above_the_fold(width, height, text, tall, opened):
    explanation = odd_names(text) if text else sample(MODELS[0])
    frames = explanation.frames.repeat(tall, axis=1)
    config = replace(explanation.config, height=16 * tall, tubelet=(4, 8 * tall, 8))
    shown = opened(replace(explanation, frames=frames, config=config), viewport={"width": width, "height": height}).page
    texts, picture, legend, scrolled = shown.evaluate(ABOVE)
    assert texts == ["H1", "P"]
    assert picture <= legend <= height
    assert scrolled == 0


def test_a_notebook_shows_the_page_in_an_isolated_frame(browser, tmp_path):
    explanation = odd_names(ODD)
    path = tmp_path / "notebook.html"
    write_text(
        path, f"<!DOCTYPE html><h1>notes</h1><p id=said>mine</p>{explanation._repr_html_()}{framed(explanation)}"
    )
    with visit(browser, path) as visited:
        frames = visited.page.main_frame.child_frames
        for frame in frames:
            frame.wait_for_selector("#look:not([hidden])")
            frame.fill("#time", "3")
            assert frame.inner_text("#said").startswith("Frame 4 of 16")
        assert len(frames) == 2
        assert visited.page.inner_text("#said") == "mine"
        assert visited.page.evaluate("getComputedStyle(document.querySelector('h1')).overflow") == "visible"
        assert (visited.console, visited.errors) == ([], [])


@pytest.mark.parametrize(
    ("pooling", "words"),
    [
        ("first", "all tokens alike, although the label is read from the first"),
        ("max", "all tokens alike, although the label is read from the largest"),
        ("mean", "all tokens alike. "),
    ],
)
def test_the_page_says_whose_attention_it_is_where_the_model_pools_something_else(pooling, words):
    explanation = sample(MODELS[0])
    assert words in page(replace(explanation, config=replace(explanation.config, pooling=pooling)))


def test_filters_are_shown_the_largest_norm_first(opened):
    explanation = sample(MODELS[0])
    shown = opened(explanation).page
    norms = np.sqrt((explanation.filters.astype(float) ** 2).sum(axis=(1, 2, 3, 4)))
    kernel = explanation.filters[norms.argmax()]
    t, h, w, _ = kernel.shape
    corner = shown.evaluate(
        """([width, height]) => {
          const copy = new OffscreenCanvas(width, height).getContext("2d");
          copy.drawImage(document.querySelector("img.filters"), -2, -2);
          return [...copy.getImageData(0, 0, width, height).data];
        }""",
        [t * w, h],
    )
    found = np.array(corner).reshape(h, t, w, 4)[..., :3].transpose(1, 0, 2, 3)
    assert np.abs(found - 127.5 * (1 + kernel / np.abs(kernel).max())).max() <= 1


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_loaded_logged_or_thrown_while_everything_is_used(model, opened):
    from playwright.sync_api import expect

    visited = opened(sample(model))
    shown = visited.page
    for choice in ("none", "attention", "rollout", "relevance"):
        shown.check(f"input[value={choice}]")
    for layer in range(shown.locator("#layer option").count()):
        shown.select_option("#layer", str(layer))
        for tile in shown.locator("#heads button").all()[: HEADS + 1]:
            tile.click()
    shown.click("#play")
    expect(shown.locator("#time-value")).not_to_contain_text("1 of 16", timeout=PATIENCE)
    shown.click("#play")
    assert (visited.console, visited.errors, len(visited.requests)) == ([], [], 1)


def test_markup_in_names_is_shown_and_does_nothing(opened):
    visited = opened(odd_names(ODD))
    shown = visited.page
    last = SHOWN.rsplit("/", 1)[1]  # of the path that the video's name might be
    assert shown.inner_text("h1") == last
    assert shown.title() == f"{last}: {SHOWN}"
    for place in (
        "header p",
        "#target",
        ".labels tbody tr",
        "tr.pictured",
        "#said",
        "fieldset",
        "#model-heading + div",
        "tr:has-text('Checkpoint')",
    ):
        assert SHOWN in shown.locator(place).first.inner_text()
    assert shown.evaluate("typeof hit") == "undefined"
    assert shown.evaluate("['img', 'script', 'b'].map((name) => document.querySelectorAll(name).length)") == [1, 2, 0]
    assert (visited.console, visited.errors, len(visited.requests)) == ([], [], 1)


def test_the_policy_forbids_what_is_not_the_page(opened):
    visited = opened(sample(MODELS[0]))
    visited.page.evaluate("""() => {
        document.body.append(Object.assign(new Image(), { src: "https://localhost:9/x.png" }));
        document.body.append(Object.assign(document.createElement("script"), { textContent: "hit = 1" }));
        return fetch("https://localhost:9/x.json").catch(() => 0);
    }""")
    assert visited.page.evaluate("typeof hit") == "undefined"
    assert sum("Content Security Policy" in text for _, text in visited.console) >= 3


def focus(shown, selector):
    """Tab, from the top, until the element has the focus."""
    shown.evaluate("document.activeElement.blur(), getSelection().collapse(document.body, 0)")
    for _ in range(60):
        shown.keyboard.press("Tab")
        if shown.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"Tab never reaches {selector}")


@pytest.mark.parametrize(
    ("selector", "key", "changes"),
    [
        ("#time", "ArrowRight", "document.getElementById('said').textContent"),
        ("#time", "End", "document.getElementById('said').textContent"),
        ("#play", "Space", "document.getElementById('play').textContent"),
        ("input[name=over]", "ArrowUp", "document.querySelector('input[name=over]:checked').value"),
        ("#target", "ArrowDown", "document.getElementById('said').textContent"),
        ("#opacity", "ArrowLeft", "document.getElementById('opacity-value').textContent"),
        ("#layer", "ArrowUp", "document.getElementById('layer').value"),
        ("#head", "ArrowDown", "document.getElementById('head').value"),
        ("#heads button:nth-child(3)", "Space", "document.getElementById('head').value"),
        ("#heads button:nth-child(4)", "Enter", "document.getElementById('said').textContent"),
    ],
)
def test_the_keyboard_alone_reaches_and_moves_every_control(selector, key, changes, at_keys):
    shown = at_keys
    focus(shown, selector)
    before = shown.evaluate(changes)
    outline = shown.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    shown.keyboard.press(key)
    assert shown.evaluate(changes) != before
    assert outline == "solid"  # where the focus is can be seen


@pytest.fixture(scope="module")
def at_keys(browser, tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "page.html"
    write_text(path, page(sample(MODELS[0])))
    with visit(browser, path) as visited:
        visited.page.wait_for_selector("#look:not([hidden])")
        yield visited.page


def test_regions_that_scroll_are_reached_by_the_keyboard(at_keys):
    assert at_keys.locator("[role=region]").count() == 1
    focus(at_keys, "[role=region]")


def test_the_sentence_that_is_read_aloud_says_every_change_but_not_while_it_plays(opened):
    shown = opened(sample(MODELS[0])).page
    said = [shown.inner_text("#said")]
    assert shown.get_attribute("#said", "aria-live") == "polite"
    for change in (
        lambda: shown.fill("#time", "9"),
        lambda: shown.check("input[value=rollout]"),
        lambda: shown.check("input[value=none]"),
        lambda: shown.select_option("#layer", "0"),
        lambda: shown.select_option("#head", "2"),
    ):
        change()
        said.append(shown.inner_text("#said"))
    assert len(set(said)) == len(said)
    shown.click("#play")
    assert shown.get_attribute("#said", "aria-live") == "off"
    shown.click("#play")
    assert shown.get_attribute("#said", "aria-live") == "polite"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("text", ["short", "long" * 40, "many words " * 30], ids=["short", "one long word", "words"])
def test_a_phone_never_scrolls_sideways(scheme, text, opened):
    shown = opened(odd_names(text), viewport={"width": 320, "height": 640}, color_scheme=scheme).page
    assert shown.evaluate("document.documentElement.scrollWidth") == 320
    outside = """[...document.querySelectorAll("main :not(.scroll *)")]
        .filter((e) => e.getBoundingClientRect().right > 320).map((e) => e.outerHTML.slice(0, 80))"""
    assert shown.evaluate(outside) == []


def test_without_scripts_labels_views_and_config_are_there(opened):
    explanation = sample(MODELS[1])
    shown = opened(explanation, ready=False, java_script_enabled=False).page
    text = " ".join(shown.inner_text("body").split())
    for head in explanation.scores:
        for score in head:
            assert f"{score.label} {100 * score.probability:.1f} %" in text
    for view in explanation.views:
        assert all(f"{score.label} {100 * score.probability:.1f} %" in text for score in view.best)
    for name in ("temporal_layers", "tubelet", "epsilon", "resize"):
        assert name in text
    assert "need JavaScript" in text
    assert not shown.is_visible("#look")


# [contrast, text] of every visible text that is less than 4.5 : 1 above what is behind it, and how many texts there are
# Source: WCAG 2.2, success criterion 1.4.3
FAINT = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, channel) => sum + v * [0.2126, 0.7152, 0.0722][channel], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = numbers(getComputedStyle(element).backgroundColor);
      if (color.length === 3) return color;
    }
    return numbers(getComputedStyle(document.body).backgroundColor);
  };
  const found = [...document.body.querySelectorAll("*")]
    .filter((e) => e.checkVisibility() && !e.matches("script, option"))
    .filter((e) => e.matches("select") || [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => {
      const [a, b] = [light(numbers(getComputedStyle(e).color)), light(behind(e))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.trim().slice(0, 40)];
    });
  return [found.filter(([contrast]) => contrast < 4.5), found.length];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(scheme, opened):
    shown = opened(sample(MODELS[0]), color_scheme=scheme).page
    faint, count = shown.evaluate(FAINT)
    assert faint == []
    assert count > 100
    shown.evaluate("document.documentElement.style.setProperty('--soft', '#999')")
    assert bool(shown.evaluate(FAINT)[0]) == (scheme == "light")  # #999 is too faint on white alone


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_nothing_moves_by_itself(motion, opened):
    shown = opened(sample(MODELS[0]), reduced_motion=motion).page
    said = shown.inner_text("#said")
    shown.wait_for_timeout(400)  # two and more frames
    assert shown.inner_text("#said") == said
    assert shown.evaluate("document.getAnimations().length") == 0


def test_with_reduced_motion_play_moves_one_frame_at_a_time(opened):
    shown = opened(sample(MODELS[0]), reduced_motion="reduce").page
    assert shown.inner_text("#play") == "Next frame"
    for frame in [*range(2, 17), 1]:  # from the last to the first
        shown.click("#play")
        assert shown.inner_text("#time-value").startswith(f"{frame} of 16, ")
    shown.wait_for_timeout(400)
    assert shown.inner_text("#time-value").startswith("1 of 16, ")
    shown.emulate_media(reduced_motion="no-preference")
    shown.click("text=Play")
    assert shown.inner_text("#play") == "Pause"
    shown.emulate_media(reduced_motion="reduce")  # while it plays
    shown.wait_for_selector("text=Next frame")
    assert shown.get_attribute("#said", "aria-live") == "polite"
