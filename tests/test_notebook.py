"""What notebooks show: a model and its results as tables, in which nothing is markup, and bars that come and go."""

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from checkpoints import model

import vivit
from vivit import notebook
from vivit.inference.classification import Classification, HeadScores, Score, classify_videos
from vivit.inference.view_logits import clip_logits
from vivit.reference.config import named

pytestmark = pytest.mark.fast
TINY = replace(named("vivit-tiny/8x2"), frames=2, height=8, width=8, layers=1, classes=(2,))
ODD = "<b onclick='x'>\"&\x1b</b>"
ESCAPED = "&lt;b onclick=&#39;x&#39;&gt;&#34;&amp;\N{REPLACEMENT CHARACTER}&lt;/b&gt;"


@pytest.fixture
def displayed(monkeypatch):
    """A notebook in place of IPython: what it was asked to display, one item for each bar, as it changed."""
    found = []

    class Handle:
        def __init__(self, shown):
            self.states = [shown]
            found.append(self.states)

        def update(self, shown):
            self.states.append(shown)

    package, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    package.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    display.display = lambda shown, display_id: Handle(shown)
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(notebook, "PERIOD", 0.0)
    return found


def test_a_table_escapes_every_text():
    assert notebook.table(ODD, [(ODD, ODD)], (ODD,)) == (
        f'<table><caption>{ESCAPED}</caption><thead><tr><th scope="col">{ESCAPED}</th></tr></thead>'
        f'<tbody><tr><th scope="row">{ESCAPED}</th><td>{ESCAPED}</td></tr></tbody></table>'
    )


def test_a_model_is_a_table_with_the_facts_of_its_text():
    ready = model(TINY, labels=((ODD, "dog"),))
    shown = ready._repr_html_()
    assert ODD not in shown
    for line in repr(replace(ready, labels=None)).splitlines()[1:4]:
        name, _, value = line.strip().partition(": ")
        assert f'<th scope="row">{name}</th><td>{value}' in shown
    assert "<caption>Model: spatio_temporal</caption>" in shown
    assert "&#39;dog&#39;" in shown


def test_a_classification_has_a_table_for_each_head():
    heads = HeadScores([(Score(ODD, 0.875), Score("dog", 0.125)), (Score("sits", 1.0),)])
    shown = Classification(heads=heads, views=(), logits=np.zeros((1, 3)))._repr_html_()
    assert shown == heads._repr_html_()
    assert shown.count("<table>") == 2
    assert f'<th scope="row">{ESCAPED}</th><td>87.5 %</td>' in shown
    assert "<caption>Head 2</caption>" in shown
    assert heads == ((Score(ODD, 0.875), Score("dog", 0.125)), (Score("sits", 1.0),))  # a tuple like any other


def test_long_calls_show_a_bar_in_a_notebook_and_remove_it(displayed):
    ready = model(TINY, labels=(("cat", "dog"),))
    film = np.zeros((6, 8, 8, 3), np.uint8)
    for call in (
        lambda: ready.classify(film, views=(2, 1), batch=1),
        lambda: vivit.features(ready, film, batch=1),
        lambda: vivit.timeline(ready, film, batch=1),
        lambda: clip_logits(ready, film.reshape(3, 2, 8, 8, 3), "film", batch=1),  # of an explanation
    ):
        displayed.clear()
        call()
        (states,) = displayed
        assert len(states) >= 2
        assert f"of {states[0].total}, " in repr(states[0])
        assert f'max="{states[0].total}"' in states[0]._repr_html_()
        assert (repr(states[-1]), states[-1]._repr_html_()) == ("", "")
    assert isinstance(ready.classify(film), HeadScores)
    assert isinstance(next(classify_videos(ready, [film])), Classification)


def test_a_bar_says_what_is_done_and_how_long_the_rest_takes():
    bar = notebook._Bar("clips", 3, 12, 6.0)
    assert repr(bar) == "clips: 3 of 12, 6 s, 18 s left"
    assert bar._repr_html_() == '<progress value="3" max="12"></progress> clips: 3 of 12, 6 s, 18 s left'
    assert repr(notebook._Bar("clips", 0, 12, 0.0)) == "clips: 0 of 12, 0 s"


def test_there_is_no_bar_outside_a_notebook_or_when_progress_goes_elsewhere(displayed, monkeypatch):
    told = []
    vivit.timeline(model(TINY), np.zeros((6, 8, 8, 3), np.uint8), progress=lambda *counts: told.append(counts))
    assert told[-1][0] == told[-1][1]
    assert displayed == []
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: types.SimpleNamespace())  # a terminal
    notebook.progress_bar("clips")(1, 2)
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    notebook.progress_bar("clips")(1, 2)
    monkeypatch.delitem(sys.modules, "IPython")
    notebook.progress_bar("clips")(1, 2)
    assert displayed == []
