"""The demo model matches the description in its README."""

import json
from importlib import resources
from pathlib import Path

import pytest

import vivit
from vivit.cli.main import main
from vivit.data.camera import MOVES, write_camera
from vivit.demo import demo_checkpoint

HOME = Path(str(resources.files("vivit"))) / "demo"
CLIP = HOME / "zoom-in.mp4"

pytestmark = pytest.mark.fast


def test_the_demo_is_small_and_its_model_is_what_its_files_say():
    sizes = {path.name: path.stat().st_size for path in HOME.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 4_000_000
    assert sizes[CLIP.name] < 300_000
    model, stated = vivit.load(demo_checkpoint()), json.loads((HOME / "model.json").read_text())
    assert model.labels == (tuple(sorted(MOVES)),)
    for field, value in stated.items():
        assert getattr(model.config, field) == (tuple(value) if isinstance(value, list) else value)
    assert model.preprocessing.stride == json.loads((HOME / "training.json").read_text())["stride"]


def test_the_demo_model_names_the_move_of_the_demo_clip():
    ((best, *_),) = vivit.load(demo_checkpoint()).classify(CLIP)
    assert best.label == CLIP.stem
    assert best.probability > 0.9


@pytest.mark.parametrize("start", range(0, 25, 5))
def test_only_the_order_of_frames_distinguishes_the_two_directions(start):
    model = vivit.load(demo_checkpoint())
    clip = model.read(CLIP, start=start)
    for frames, move in ((clip, "zoom-in"), (clip[::-1], "zoom-out"), (clip[:1].repeat(8, 0), "still")):
        ((best, *_),) = model.classify(frames, views=(1, 1))
        assert best.label == move


def test_the_demo_model_classifies_moves_over_a_film_outside_its_training_data(tmp_path):
    try:
        write_camera(tmp_path / "unseen", train=0, validation=0, test=140)
    except ValueError as error:
        pytest.skip(str(error))
    report = tmp_path / "report.json"
    command = ["evaluate", str(tmp_path / "unseen"), "--checkpoint", str(demo_checkpoint()), "--views", "1x1"]
    assert main([*command, "-o", str(report)]) == 0
    (head,) = json.loads(report.read_text())["heads"].values()
    assert head["top_1"] >= 0.9
