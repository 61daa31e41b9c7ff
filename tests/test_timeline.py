"""Labels over time: the logits of sliding clips, spans from probabilities, subtitles, the page and the command."""

import json
from dataclasses import replace

import checkpoints
import numpy as np
import pytest
from browser import chromium, visit
from videos import Coding, encode, scene

import vivit
from vivit import jitted
from vivit.cli.main import main
from vivit.explanation.timeline_page import timeline_page
from vivit.files.atomic import write_text
from vivit.inference import sliding_logits as sliding
from vivit.inference.subtitles import srt, vtt
from vivit.inference.timeline import Span, Timeline, _means, _spans, quarter_clip
from vivit.video.preprocessing import Preprocessing

FE = replace(vivit.named("vivit-tiny/8x2-fe"), classes=(2, 3))  # 8 frames of 32x32, 4 time indices
VARIANTS = {
    "spatio_temporal": replace(vivit.named("vivit-tiny/8x2"), classes=(2, 3)),
    "factorised_encoder": FE,
    "average": replace(FE, temporal_layers=0),
    "sampled": replace(FE, tubelet=(1, 8, 8), sampled_frames=3),
    "constant positions": replace(FE, positions="sinusoidal_3d", pooling="mean", representation=7),
}


def model_of(config=FE, **options):
    return checkpoints.model(config, preprocessing=Preprocessing(resize=32, crop=None, stride=1), **options)


@pytest.mark.parametrize(("name", "clip_stride"), [*((name, 2) for name in VARIANTS), ("factorised_encoder", 3)])
def test_sliding_logits_are_those_of_each_clip_bit_for_bit(name, clip_stride):
    model, video = model_of(VARIANTS[name]), scene(21, 32, 32)
    found = sliding.sliding_logits(model, video, clip_stride=clip_stride, batch=3)
    where, rows = zip(*found.clips, strict=True)
    assert len(rows) == found.total
    clips = np.stack([video[clip.indices] for clip in where])
    for first in range(0, len(clips), 3):
        batch = clips[first : first + 3]
        whole = np.concatenate([batch, np.repeat(batch[-1:], 3 - len(batch), axis=0)])
        expected = np.asarray(jitted.logits(model.params, whole, config=model.config), np.float64)
        assert np.array_equal(np.stack(rows[first : first + 3]), expected[: len(batch)])


@pytest.mark.parametrize(("clip_stride", "computed"), [(2, 10), (3, 10 + 7), (8, 10)])
def test_a_time_index_that_clips_share_is_computed_once(monkeypatch, clip_stride, computed):
    represent, seen = sliding._represent, []

    def counted(params, pixels, **options):
        seen.extend(pixels[:, 0, 0, 0, 0].tolist())
        return represent(params, pixels, **options)

    video = np.zeros((20, 32, 32, 3), np.uint8)
    video[:] = np.arange(20)[:, None, None, None]
    monkeypatch.setattr(sliding, "_represent", counted)
    list(sliding.sliding_logits(model_of(), video, clip_stride=clip_stride, batch=2).clips)
    assert len(set(seen)) == computed
    rows = 2 * 4  # of one batch, the last of which is filled up
    assert len(seen) == -(-computed // rows) * rows


def test_logits_that_are_not_finite_name_their_first_stage():
    model = model_of()
    layers = model.params.encoder.blocks
    broken = layers.mlp.out._replace(bias=np.full_like(layers.mlp.out.bias, 3e38))
    blocks = layers._replace(mlp=layers.mlp._replace(out=broken))
    params = model.params._replace(encoder=model.params.encoder._replace(blocks=blocks))
    found = sliding.sliding_logits(replace(model, params=params), scene(9, 32, 32))
    with pytest.raises(ValueError, match=r"an array has no finite result: encoder/1/attention is the first stage"):
        list(found.clips)


@pytest.mark.fast
def test_a_part_of_the_video_has_the_mean_of_the_clips_that_show_it():
    edges, (means,) = _means(np.array([0.0, 1.0, 2.5]), np.array([2.0, 3.0, 4.5]), [np.array([[1.0], [0.4], [0.1]])])
    assert edges.tolist() == [0.0, 1.0, 2.0, 2.5, 3.0, 4.5]
    assert np.allclose(means[:, 0], [1.0, 0.7, 0.4, 0.25, 0.1], rtol=0, atol=1e-15)


@pytest.mark.fast
def test_a_label_begins_at_enter_and_ends_below_leave():
    values = np.array([0.4, 0.5, 0.3, 0.3, 0.29, 0.4, 0.6, 0.1, 0.9])
    edges = np.array([0.0, 1, 2, 3, 5, 6, 7, 8, 9, 10])
    found = _spans("verb", ("jump", "run"), edges, np.stack([values, 1 - values], axis=1)[:, :1], 0.5, 0.3)
    assert [(one.start, one.end) for one in found] == [(1, 5), (7, 8), (9, 10)]
    assert found[0].probability == pytest.approx((0.5 + 0.3 + 2 * 0.3) / 4, abs=1e-15)
    assert {one[:2] for one in found} == {("verb", "jump")}
    none = _spans("verb", ("jump",), edges, values[:, None], 0.95, 0.3)
    assert none == []


@pytest.mark.fast
def test_clips_overlap_by_three_quarters_in_whole_time_indices():
    assert quarter_clip(vivit.named("vivit-b/16x2-fe"), 2) == 16
    assert quarter_clip(FE, 3) == 6
    assert quarter_clip(VARIANTS["sampled"], 1) == 2
    assert quarter_clip(replace(FE, frames=2), 5) == 10


SPANS = (
    Span("verb", "a <b>\n\n--> & c", 0.0, 3661.0626, 0.876),
    Span("noun", "pan", 1.5, 2.25, 0.5),
)


@pytest.mark.fast
def test_subtitles_hold_one_cue_for_each_span_whatever_its_label():
    assert srt(SPANS, heads=True) == (
        "1\n00:00:00,000 --> 01:01:01,063\nverb: a <b> --> & c (88 %)\n\n"
        "2\n00:00:01,500 --> 00:00:02,250\nnoun: pan (50 %)\n"
    )
    assert vtt(SPANS) == (
        "WEBVTT\n\n00:00:00.000 --> 01:01:01.063\na &lt;b&gt; --&gt; &amp; c (88 %)\n\n"
        "00:00:01.500 --> 00:00:02.250\npan (50 %)\n"
    )
    assert srt(()) == ""
    assert vtt(()) == "WEBVTT\n"


@pytest.mark.fast
def test_timeline_prints_and_writes_labels_with_start_and_end(tmp_path, capsys):
    model_of(labels=(("up", "down"), ("a", "b", "c"))).save(tmp_path / "model")
    encode(tmp_path / "film.mkv", scene(30, 32, 32), Coding("ffv1", "bgr0"))
    files = [str(tmp_path / f"film{suffix}") for suffix in (".json", ".srt", ".vtt", ".html")]
    outputs = [part for file in files for part in ("-o", file)]
    film, checkpoint = str(tmp_path / "film.mkv"), str(tmp_path / "model")
    assert main(["timeline", film, "--checkpoint", checkpoint, "--enter", "0.3", "--leave", "0.2", *outputs]) == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "film.json").read_text())
    found = vivit.load(checkpoint).timeline(film, enter=0.3, leave=0.2)
    assert written["spans"] == [span._asdict() for span in found.spans]
    assert written["spans"]
    assert (written["start"], written["end"]) == (0, pytest.approx(1.2, abs=1e-6))
    assert all(0 <= span.start < span.end <= 1.2 + 1e-6 and 0.2 <= span.probability <= 1 for span in found.spans)
    assert [table.shape for table in found.probabilities] == [(len(found.edges) - 1, 2), (len(found.edges) - 1, 3)]
    assert all(np.allclose(table.sum(axis=1), 1) for table in found.probabilities)
    assert all(span.label in printed for span in found.spans)
    assert (tmp_path / "film.srt").read_text() == srt(found.spans, heads=True)
    assert (tmp_path / "film.vtt").read_text() == vtt(found.spans, heads=True)
    assert 'src="film.mkv"' in (tmp_path / "film.html").read_text()
    assert main(["timeline", film, "--checkpoint", checkpoint, "--enter", "0.3", "--leave", "0.2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spans"] == written["spans"]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--enter", "0.2"], r"leave is 0.3: it must be at most enter, 0.2"),
        (["--leave", "0"], r"leave is 0.0: it must be a probability"),
        (["--enter", "nan"], r"enter is nan: it must be a probability"),
        (["--clip-stride", "0"], r"clip_stride is 0: it must be at least 1"),
        (["-o", "film.mkv"], r"film.mkv is read: name another file to write"),
        (["-o", "film.txt"], r"film.txt must end in .json or .srt or .vtt or .html or .htm"),
        (["-o", "-"], r"-o is -, standard output"),
    ],
)
def test_timeline_refuses_what_makes_no_sense(tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    model_of().save("model")
    encode(tmp_path / "film.mkv", scene(9, 32, 32), Coding("ffv1", "bgr0"))
    before = (tmp_path / "film.mkv").read_bytes()
    assert main(["timeline", "film.mkv", "--checkpoint", "model", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
    assert (tmp_path / "film.mkv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mkv", "model"]


def test_the_page_shows_the_film_and_jumps_to_its_labels(tmp_path):
    encode(tmp_path / "a film #1.mp4", scene(100, 64, 64), Coding())
    hostile = "<script>document.title = 'x'</script>"
    spans = (Span("verb", hostile, 0.0, 1.0, 0.9), Span("noun", "b", 2.0, 3.0, 0.5))
    found = Timeline(spans=spans, edges=np.array([0.0, 4.0]), probabilities=(np.ones((1, 1)), np.ones((1, 1))))
    film = tmp_path / "a film #1.mp4"
    page = timeline_page(found, name=film.name, checkpoint="model", film=film, folder=tmp_path)
    write_text(tmp_path / "page.html", page)
    with chromium() as browser, visit(browser, tmp_path / "page.html", viewport=dict(width=390, height=800)) as shown:
        shown.page.wait_for_function("document.getElementById('film').readyState > 0")
        shown.page.click("button.jump[data-start='2.0']")
        shown.page.wait_for_function("document.querySelectorAll('.spans .active').length === 1")
        assert "b" in shown.page.inner_text(".spans .active")
        assert float(shown.page.get_attribute(".now", "x1")) == pytest.approx(50, abs=0.5)
        assert hostile in shown.page.inner_text("main")
        assert shown.page.title() == "a film #1.mp4: labels over time"
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert set(shown.requests) == {(tmp_path / "page.html").as_uri(), film.as_uri()}
        assert (shown.console, shown.errors) == ([], [])


def test_a_page_without_its_film_says_so(tmp_path):
    found = Timeline(spans=SPANS[1:], edges=np.array([0.0, 4.0]), probabilities=(np.ones((1, 1)),))
    page = timeline_page(found, name="gone.mp4", checkpoint="model", film=tmp_path / "gone.mp4", folder=tmp_path)
    write_text(tmp_path / "page.html", page)
    with chromium() as browser, visit(browser, tmp_path / "page.html") as shown:
        shown.page.wait_for_selector("#unplayable:not([hidden])")
        assert shown.page.is_hidden("#film")
        assert "00:00:01.500" in shown.page.inner_text(".spans")
