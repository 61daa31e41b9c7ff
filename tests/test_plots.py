"""Pictures are made of what was logged and counted, are files that appear whole, and need Matplotlib alone."""

import os
import sys

import numpy as np
import pytest

from vivit import figures
from vivit.labels import read_labels
from vivit.training import plots
from vivit.training.logs import Logs

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("tensorboardX")


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def near(picture, color):
    """How many pixels have about this color, "#rrggbb"."""
    wanted = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)])
    return int((np.abs(picture - wanted).max(-1) < 12).sum())


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with Logs(folder) as logs:
        for step in range(1, 301):
            logs.write(step, {"loss": 3 / step if step != 7 else np.nan, "learning_rate": 0.1 / step})
            if step % 100 == 0:
                logs.write(step, {"loss": 4 / step, "verb/top_1": step / 300, "$odd$_^": 0.5}, kind="validation")
    return folder / "metrics.jsonl"


@pytest.mark.fast
def test_learning_curves_show_training_and_validation(logged, tmp_path):
    plots.learning_curves(logged, tmp_path / "curves.png", title="run $1_^")
    picture = pixels(tmp_path / "curves.png")
    assert picture.shape[0] > 700
    assert near(picture, plots.BLUE) > 500
    assert near(picture, plots.ORANGE) > 200
    assert os.listdir(tmp_path) == ["curves.png"]


def test_learning_curves_are_headed_by_the_folder_unless_a_title_is_given(logged, tmp_path, monkeypatch):
    heads = []
    monkeypatch.setattr(figures, "write_png", lambda figure, png: heads.append(figure.get_suptitle()))
    plots.learning_curves(logged, tmp_path / "curves.png")
    plots.learning_curves(logged, tmp_path / "curves.png", title="another")
    assert heads == [f"Learning curves of {logged.parent.name}", "another"]


def test_learning_curves_leave_out_panels_without_events(logged, tmp_path):
    lines = logged.read_text().splitlines(keepends=True)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(line for line in lines if "validation" not in line)[:2000])
    plots.learning_curves(path, tmp_path / "short.png")
    plots.learning_curves(logged, tmp_path / "long.png")
    assert len(pixels(tmp_path / "short.png")) < len(pixels(tmp_path / "long.png"))
    path.write_text('{"step": 1, "kind": "train", "seconds": 2.0}\n')
    with pytest.raises(ValueError, match="has no loss, learning rate or validation: it must have events with one"):
        plots.learning_curves(path, tmp_path / "none.png")


def test_a_confusion_matrix_is_dark_on_its_diagonal(tmp_path):
    counts = np.array([[9, 1, 0], [0, 10, 0], [0, 0, 0]])
    plots.confusion_matrix(counts, ["cat", "日本 $x_", "no examples"], tmp_path / "few.png", title="head")
    picture = pixels(tmp_path / "few.png")
    assert near(picture, "#08306b") > 1000  # all of a row
    shape = picture.shape
    plots.confusion_matrix(
        np.eye(3, dtype=int)[::-1], ["cat", "日本 $x_", "no examples"], tmp_path / "few.png", title="head"
    )
    assert np.abs(np.subtract(pixels(tmp_path / "few.png").shape, shape)).max() < 30
    assert os.listdir(tmp_path) == ["few.png"]


def test_a_confusion_matrix_of_400_classes_has_room_for_every_name(tmp_path):
    (names,) = read_labels("kinetics400")
    plots.confusion_matrix(np.eye(400, dtype=int), names, tmp_path / "many.png")
    with Image.open(tmp_path / "many.png") as image:
        assert 4800 < min(image.size) <= max(image.size) < 6000  # twelve pixels a line


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.zeros((2, 3)), r"counts has shape \(2, 3\): it must be \(2, 2\), as there are 2 names"),
        (np.zeros((3, 3)), r"counts has shape \(3, 3\)"),
    ],
)
def test_counts_that_do_not_fit_are_refused(tmp_path, counts, message):
    with pytest.raises(ValueError, match=message):
        plots.confusion_matrix(counts, ["a", "b"], tmp_path / "x.png")


def test_a_missing_folder_and_a_missing_matplotlib_are_one_line(logged, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"x.png: the folder .* does not exist"):
        plots.learning_curves(logged, tmp_path / "no/x.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r'Matplotlib is not installed: install it with: pip install "vivit\[plot\]"'):
        plots.learning_curves(logged, tmp_path / "x.png")
