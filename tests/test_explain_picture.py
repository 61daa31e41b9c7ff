"""The still picture: a PNG of every model's explanation, with any text, written atomically."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from explanation_samples import MODELS, sample

from vivit import figures
from vivit.explanation import picture
from vivit.explanation.data import Target
from vivit.files import atomic
from vivit.inference.classification import Score

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def drawn(explanation, path):
    picture.write_picture(explanation, path)
    return pixels(path)


def orange(shown):
    return shown[..., 0] - shown[..., 2] > 180


@pytest.mark.parametrize("model", MODELS)
def test_the_frames_of_every_model_are_in_its_picture(model, tmp_path):
    explanation = sample(model)
    shown = drawn(explanation, tmp_path / "x.png")
    for frame in (2, 6, 10, 14):  # the middles of its four tubelets
        for color in explanation.frames[frame, 0, [3, 20]].astype(int):
            assert (np.abs(shown - color).max(axis=-1) <= 1).sum() > 50
    assert os.listdir(tmp_path) == ["x.png"]


@pytest.mark.parametrize("field", ["rollout", "relevance"])
def test_the_largest_token_of_a_map_is_bright_where_its_pixels_are(field, tmp_path):
    frames = np.zeros((16, 16, 24, 3), np.uint8)
    frames[6, 8:, 8:16] = 0, 255, 0  # the token of row 1, column 1, in the middle of tubelet 1
    zeros = np.zeros((4, 6), np.float32)
    explanation = sample(MODELS[0], frames=frames, rollout=zeros, relevance=zeros[np.newaxis])
    dark = drawn(explanation, tmp_path / "dark.png")
    green = (dark == (0, 255, 0)).all(axis=-1).nonzero()
    values = zeros.copy()
    values[1, 4] = 0.5
    found = replace(explanation, **{field: values.reshape(getattr(explanation, field).shape)})
    light = drawn(found, tmp_path / "light.png")
    rows, columns = (orange(light) & ~orange(dark)).nonzero()
    assert columns.min() == green[1].min()
    assert columns.max() == green[1].max()
    assert abs(np.ptp(rows) - np.ptp(green[0])) <= 1
    assert len(rows) == pytest.approx(len(green[0]), rel=0.02)


def test_attention_is_averaged_over_the_heads_of_the_last_map_over_space(tmp_path):
    explanation = sample("factorised_encoder")
    before = drawn(explanation, tmp_path / "x.png")
    last = explanation.attention[2]  # before those of the temporal encoder
    mean = np.repeat(last.space.mean(axis=0, keepdims=True), len(last.heads), axis=0)
    averaged = (*explanation.attention[:2], last._replace(space=mean), *explanation.attention[3:])
    assert np.abs(drawn(replace(explanation, attention=averaged), tmp_path / "x.png") - before).max() <= 1
    changed = (*explanation.attention[:2], last._replace(space=last.space[:, ::-1]), *explanation.attention[3:])
    assert np.abs(drawn(replace(explanation, attention=changed), tmp_path / "x.png") - before).max() > 50


@pytest.mark.parametrize(
    "text",
    ["$\\frac{$ x_ <img src=x onerror=alert(1)>", "\ud800\n\t\x00", "日本 🎥", "", "w" * 5000],
    ids=["markup", "unprintable", "other scripts", "empty", "long"],
)
def test_any_text_is_shown_and_does_not_change_the_size(text, tmp_path):
    explanation = sample(MODELS[2])
    size = drawn(explanation, tmp_path / "x.png").shape
    odd = replace(
        explanation,
        name=text,
        checkpoint=text,
        scores=((Score(text, 0.9),) * 4, (Score(text, 0.8),) * 5),
        targets=(Target(1, 2, text, 0.8),),
    )
    assert drawn(odd, tmp_path / "x.png").shape == size


def test_maps_of_zeros_and_of_what_is_not_finite_are_shown(tmp_path):
    zeros = np.zeros((4, 6), np.float32)
    odd = drawn(sample(MODELS[0], rollout=zeros, relevance=np.full((1, 4, 6), np.nan)), tmp_path / "odd.png")
    plain = drawn(sample(MODELS[0], rollout=zeros, relevance=zeros[np.newaxis]), tmp_path / "plain.png")
    assert (odd == plain).all()


def test_maps_of_rounding_or_nearly_even_maps_are_not_drawn(tmp_path):
    explanation = sample(MODELS[0])
    little, much = (replace(explanation, rounding=np.full(9, floor)) for floor in (1e-9, 1.0))
    even = replace(much, rollout=np.linspace(0.039, 0.043, 24).reshape(4, 6))
    counts = [orange(drawn(one, tmp_path / f"{n}.png")).sum() for n, one in enumerate((little, much, even))]
    assert counts[0] > counts[1] + 500
    assert counts[1] > counts[2] + 500


def test_larger_values_of_a_map_are_more_orange_over_any_film(tmp_path):
    zeros = np.zeros((4, 6), np.float32)
    values = zeros.copy()
    values[1] = np.arange(6) / 5
    parts = {}
    for name, level in (("white", 255), ("black", 0)):
        frames = np.full((16, 16, 24, 3), level, np.uint8)
        shown = drawn(sample(MODELS[0], frames=frames, rollout=values, relevance=zeros[np.newaxis]), tmp_path / "x.png")
        found, counts = np.unique(shown[..., 0] - shown[..., 2], return_counts=True)
        parts[name] = set(found[counts > 1000].tolist())
    wanted = {round(255 * 0.9 * part / 5) for part in range(1, 6)}
    assert all(any(abs(one - part) <= 1 for one in found) for part in wanted for found in parts.values())


def test_many_heads_are_counted_and_sampled_frames_are_those_that_were_taken(tmp_path):
    explanation = sample(MODELS[0])
    config = replace(explanation.config, tubelet=(1, 8, 8), sampled_frames=4)
    shown = drawn(replace(explanation, config=config, scores=explanation.scores * 20), tmp_path / "x.png")
    for frame, there in ((3, True), (6, True), (10, True), (13, True), (8, False)):  # k · 16 / 5
        color = explanation.frames[frame, 0, 12].astype(int)
        assert ((np.abs(shown - color).max(axis=-1) <= 1).sum() > 50) == there


@pytest.fixture
def square_font(tmp_path):
    """A font that has one letter, 日, as a black square; installed while the test runs."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from matplotlib.font_manager import fontManager

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 900), (900, 900), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "sun"])
    font.setupCharacterMap({ord("日"): "sun"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "sun": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "sun": (1000, 0)})
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": "Square Sans", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "square.ttf")
    known = list(fontManager.ttflist)
    fontManager.addfont(tmp_path / "square.ttf")
    figures._families.cache_clear()
    yield
    fontManager.ttflist[:] = known
    fontManager._findfont_cached.cache_clear()
    figures._families.cache_clear()


def named(text):
    return replace(sample(MODELS[2]), name=text, targets=(Target(1, 2, text, 0.8),))


def test_a_letter_that_the_usual_font_lacks_is_drawn_in_another_that_has_it(square_font, tmp_path):
    before, after = (drawn(named(text), tmp_path / "x.png").sum(axis=-1) for text in ("video", "video 日"))
    assert picture.write_picture(named("video 日"), tmp_path / "x.png") == ""
    ink = sum(int(color, 16) for color in ("1a", "1a", "2e"))
    heading = slice(0, 80)
    assert (after == ink)[heading].sum() > (before == ink)[heading].sum() + 300  # a square of 15 points at 120 dots


@pytest.mark.parametrize(
    ("text", "font"),
    [
        ("\u65e5\u672c \uac00", "Noto Sans CJK (for U+65E5)"),
        ("\u0928\u092e", "Noto Sans Devanagari (for U+0928)"),
        ("\U00010a60", "Noto Sans Old South Arabian (for U+10A60)"),
    ],
)
def test_a_script_that_no_font_here_has_is_named_below_the_picture(text, font, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "_families", lambda: {})
    excuse = picture.write_picture(named(text), tmp_path / "x.png")
    assert font in excuse
    assert "\n" not in excuse
    plain = drawn(named("abc"), tmp_path / "x.png")
    told = drawn(named(text), tmp_path / "y.png")
    assert (told[-30:] != 255).sum() > (plain[-30:] != 255).sum() + 500


def test_scripts_that_the_usual_font_has_need_no_other(tmp_path):
    for text in ("Ελληνικά", "Русский", "العربية", "עברית", "می\u200cخواهم", "❤\ufe0f", "$x$"):
        assert picture.write_picture(named(text), tmp_path / "x.png") == ""


def test_a_failure_leaves_no_file_behind(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="cannot reshape"):
        picture.write_picture(sample(MODELS[0], rollout=np.zeros((4, 5))), tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x.png: the folder .* does not exist"):
        picture.write_picture(sample(MODELS[0]), tmp_path / "no/x.png")
    (tmp_path / "x.png").mkdir()
    with pytest.raises(ValueError, match=r"x.png is a folder: name a file"):
        picture.write_picture(sample(MODELS[0]), tmp_path / "x.png")
    monkeypatch.setattr(atomic.os, "replace", lambda old, new: Path(new).read_bytes())  # fails once all is drawn
    with pytest.raises(OSError, match="No such file"):
        picture.write_picture(sample(MODELS[0]), tmp_path / "y.png")
    assert os.listdir(tmp_path) == ["x.png"]


def test_a_missing_matplotlib_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    message = r'^Matplotlib is not installed: install it with: pip install "vivit\[plot\]"$'
    with pytest.raises(ValueError, match=message):
        picture.check_installed()
    with pytest.raises(ValueError, match=message):
        picture.write_picture(sample(MODELS[0]), tmp_path / "x.png")
    assert os.listdir(tmp_path) == []
