"""Camera moves: groups that differ in the move only, squares inside the film, splits that share no film."""

import csv
import json
import math
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from vivit.cli.main import main
from vivit.data import camera
from vivit.data.camera import DIRECTIONS, FRAMES, MOVES, SHOTS, Plan, Shot, plans, render, squares, write_camera
from vivit.data.reading import read_data
from vivit.video.clip import read_clip

pytestmark = pytest.mark.fast

COUNTS = dict(train=14, validation=7, test=7)
OPPOSITE = {"pan-left": "pan-right", "tilt-up": "tilt-down", "zoom-in": "zoom-out"}


@pytest.fixture(scope="module", autouse=True)
def films():
    """The real footage of the [camera] extra."""
    try:
        for shots in SHOTS.values():
            for shot in shots:
                camera.aspect(shot)
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "camera"
    write_camera(folder, seed=3, size=32, **COUNTS)
    return folder


@pytest.fixture(scope="module")
def drawn():
    """Two hundred groups of seven."""
    return list(plans("train", 1400, seed=1))


def plan(move, **fields):
    """A square half as high as its film, in the middle of a photograph of 640 x 427."""
    base = dict(shot=Shot("scikit-learn", "china.jpg"), first=0, x=0.75, y=0.5, side=0.5, angle=0.0, speed=0.02)
    return Plan(move=move, **{**base, "mirrored": False, "colors": (0, 1, 2), "gains": (1.0, 1.0, 1.0), **fields})


def test_the_tables_name_the_videos_and_the_card_says_what_was_written(written):
    card = json.loads((written / "camera.json").read_text())
    assert (card["seed"], card["frames"], card["height"], card["width"]) == (3, FRAMES, 32, 32)
    assert card["videos"] == COUNTS
    assert card["films"]["test"] == ["bigbuckbunny.mp4"]
    for split, count in COUNTS.items():
        with (written / f"{split}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["label"] for row in rows] == list(MOVES) * (count // len(MOVES))
        assert {written / row["path"] for row in rows} == set((written / split).iterdir())


def test_decoded_videos_equal_the_rendered_ones_within_h264s_loss(written):
    for index, one in enumerate(plans("test", 7, seed=3)):
        path = written / f"test/{index:05}_{one.move}.mp4"
        clip = read_clip(path, frames=FRAMES, height=32, width=32, stride=1)
        error = np.square(clip - render(one, FRAMES, 32).astype(float)).mean()
        assert error < 255**2 / 10**2.6  # 26 dB: at 32 pixels the halved color planes cost most of it


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(written, tmp_path):
    write_camera(tmp_path / "same", seed=3, size=32, **COUNTS)
    write_camera(tmp_path / "other", seed=4, size=32, **COUNTS)
    files = sorted(path.relative_to(written) for path in written.rglob("*.*"))
    assert files == sorted(path.relative_to(tmp_path / "same") for path in (tmp_path / "same").rglob("*.*"))
    assert all((written / file).read_bytes() == (tmp_path / "same" / file).read_bytes() for file in files)
    assert (written / "test/00000_still.mp4").read_bytes() != (tmp_path / "other/test/00000_still.mp4").read_bytes()


def test_the_splits_share_no_film():
    films = [{shot.file for shot in shots} for shots in SHOTS.values()]
    assert sum(map(len, films)) == len(set.union(*films))


def test_no_shot_contains_a_cut():
    """A cut changes a picture more than anything that moves in it."""
    for shot in {shot for shots in SHOTS.values() for shot in shots}:
        pictures = [
            np.asarray(picture.convert("L").resize((32, 18)), float) for picture in camera.film(*shot[:2], height=64)
        ]
        assert shot.last <= len(pictures)
        steps = [np.abs(after - before).mean() for before, after in pairwise(pictures)]
        assert max(steps[shot.first : shot.last - 1], default=0) < 20
        assert shot.last == len(pictures) or steps[shot.last - 1] > 40


def test_videos_of_a_group_differ_in_the_move_only(drawn):
    for first in range(0, len(drawn), len(MOVES)):
        group = drawn[first : first + len(MOVES)]
        assert [one.move for one in group] == list(MOVES)
        assert len({one._replace(move="") for one in group}) == 1
    assert {one.shot for one in drawn} == set(SHOTS["train"])
    assert {one.mirrored for one in drawn} == {False, True}
    assert len({one.colors for one in drawn}) == 6
    assert {int(one.angle) for one in drawn} == set(range(7))  # radians


def test_validation_and_test_videos_are_not_augmented():
    for one in [*plans("validation", 140, seed=1), *plans("test", 140, seed=1)]:
        assert (one.mirrored, one.colors, one.gains) == (False, (0, 1, 2), (1.0, 1.0, 1.0))
        assert abs(one.angle) <= 0.1


def test_the_two_directions_of_a_move_show_the_same_squares_in_opposite_order(drawn):
    """So that no frame tells them apart."""
    for first in range(0, len(drawn), len(MOVES)):
        group = {one.move: list(squares(one, FRAMES)) for one in drawn[first : first + len(MOVES)]}
        for there, back in OPPOSITE.items():
            np.testing.assert_allclose(group[there], group[back][::-1], atol=1e-12)


def test_every_square_is_inside_its_film(drawn):
    for one in drawn:
        size = np.array([camera.aspect(one.shot), 1.0])
        for middle, right, down in squares(one, FRAMES):
            corners = [middle + i * right + j * down for i in (-1, 1) for j in (-1, 1)]
            assert (np.min(corners, axis=0) >= -1e-9).all()
            assert (np.max(corners, axis=0) <= size + 1e-9).all()


@pytest.mark.parametrize(("angle", "mirrored"), [(0.0, False), (2.0, True)])
def test_a_still_camera_sees_the_same_and_another_moves_as_its_name_says(angle, mirrored):
    """Left, right, up and down as the camera sees them: along the edges of its own picture."""
    found = {move: list(squares(plan(move, angle=angle, mirrored=mirrored), 2)) for move in MOVES}
    np.testing.assert_array_equal(*found["still"])
    for move, sign in (("pan-left", -1), ("pan-right", 1)):
        first, second = found[move]
        np.testing.assert_allclose(second.middle - first.middle, sign * 2 * 0.02 * first.right)
    for move, sign in (("tilt-up", -1), ("tilt-down", 1)):  # rows go down
        first, second = found[move]
        np.testing.assert_allclose(second.middle - first.middle, sign * 2 * 0.02 * first.down)
    for move, sign in (("zoom-in", -1), ("zoom-out", 1)):  # in: less of the film is seen
        first, second = found[move]
        np.testing.assert_allclose(second.right, math.exp(sign * 2 * 0.02) * first.right)
        np.testing.assert_array_equal(second.middle, first.middle)
    for first, _ in found.values():
        np.testing.assert_allclose(np.linalg.norm(first.right), np.linalg.norm(first.down))
        np.testing.assert_allclose(first.right @ first.down, 0, atol=1e-12)
        assert (np.linalg.det([first.right, first.down]) < 0) == mirrored


def test_opposite_moves_show_the_same_photograph_backwards():
    for there, back in OPPOSITE.items():
        clips = [render(plan(move), FRAMES, 32) for move in (there, back)]
        np.testing.assert_array_equal(clips[0], clips[1][::-1])
        assert (clips[0][0] != clips[0][-1]).any()


@pytest.mark.parametrize(("angle", "mirrored"), [(0.1, False), (2.0, True)])
def test_rendered_frames_equal_loops_over_pixels(angle, mirrored, monkeypatch):
    """Bilinear between the centres of pixels; colors exchanged, then made stronger or weaker, and cut off at white."""
    noise = np.random.default_rng(0).integers(256, size=(32, 48, 3)).astype(np.uint8)
    monkeypatch.setattr(camera, "film", lambda *_: [Image.fromarray(noise)])
    gains = (1.2, 0.9, 0.7)
    changed = dict(angle=angle, mirrored=mirrored, colors=(1, 2, 0), gains=gains, shot=Shot("a", "b"))
    one = plan("zoom-in", **changed)
    seen, size = render(one, 4, 16), 16
    for clip, (middle, right, down) in zip(seen, squares(one, 4), strict=True):
        for row in range(size):
            for column in range(size):
                to_right, to_down = (np.array([column, row]) + 0.5 - size / 2) / (size / 2)
                across, under = 32 * (middle + to_right * right + to_down * down) - 0.5
                i, j = math.floor(under), math.floor(across)
                four = noise[i : i + 2, j : j + 2].astype(float)
                weights = np.outer([i + 1 - under, under - i], [j + 1 - across, across - j])
                expected = np.minimum(np.einsum("ij,ijc->c", weights, four)[[1, 2, 0]] * gains, 255)
                np.testing.assert_allclose(clip[row, column], expected, atol=1.8)  # rounded twice


def test_a_pan_to_the_right_shows_what_lies_to_the_right():
    """And a tilt down what lies below, a zoom in what lies in the middle, larger."""
    size, one = 32, plan("still")
    (middle,) = render(one, 1, size)

    def last(move):
        return render(one._replace(move=move, speed=1 / 8 / 4), 9, size)[-1].astype(int)  # 4 frames: an eighth

    moved = size // 8
    assert np.abs(last("pan-right")[:, :-moved] - middle[:, moved:]).max() <= 1
    assert np.abs(last("pan-left")[:, moved:] - middle[:, :-moved]).max() <= 1
    assert np.abs(last("tilt-down")[:-moved] - middle[moved:]).max() <= 1
    assert np.abs(last("tilt-up")[moved:] - middle[:-moved]).max() <= 1
    factor = math.exp(2 * 1 / 8)
    cut = round(size / 2 * (1 - 1 / factor))
    larger = Image.fromarray(middle[cut:-cut, cut:-cut]).resize((size, size), Image.Resampling.BILINEAR)
    there, back = (np.abs(last(move) - np.asarray(larger, int)).mean() for move in ("zoom-in", "zoom-out"))
    assert there < back / 2


def test_the_film_goes_on_while_the_camera_holds_still():
    (shot,) = SHOTS["test"]
    moving = render(plan("still", shot=shot), 3, 32)
    photograph = render(plan("still"), 3, 32)
    assert (moving[0] != moving[2]).any()
    assert (photograph[0] == photograph[2]).all()


def test_a_split_of_no_videos_is_not_written(tmp_path):
    write_camera(tmp_path / "new", size=32, train=0, validation=0, test=7)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"test", "test.csv", "camera.json"}
    assert {split: len(data.examples) for split, data in read_data(tmp_path / "new").items()} == {"test": 7}


def test_a_failure_leaves_no_files(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_camera(tmp_path / "new", size=32, **COUNTS, progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(seed=-1), r"seed is -1: it must be an integer, 0 or more"),
        (dict(train=12), r"train is 12: it must be a multiple of 7"),
        (dict(test=-7), r"test is -7: it must be a multiple of 7"),
        (dict.fromkeys(COUNTS, 0), r"train, validation and test are 0: one of them must be more"),
        (dict(frames=1), r"frames is 1: it must be an integer, 2 or more"),
        (dict(frames=1000), r"frames is 1000: no film has room for moves that long"),
        (dict(size=33), r"size is 33: it must be an even number of pixels, 16 to 1024"),
        (dict(size=2048), r"size is 2048: it must be an even number of pixels, 16 to 1024"),
    ],
)
def test_invalid_numbers_are_rejected(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_camera(tmp_path / "new", **{**COUNTS, **arguments})
    assert not list(tmp_path.iterdir())


def test_without_the_films_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(camera, "installed", lambda *_: None)
    with pytest.raises(ValueError, match=r'no.jpg of scikit-learn is not installed: .*pip install "vivit\[camera\]"'):
        camera.aspect(Shot("scikit-learn", "no.jpg"))


def test_the_command_writes_the_videos(tmp_path, capsys):
    counts = ["--train", "0", "--validation", "7", "--test", "7"]
    assert main(["data", "camera", str(tmp_path / "new"), *counts, "--size", "32", "--frames", "4"]) == 0
    assert "wrote 14 videos, validation.csv and test.csv in" in capsys.readouterr().out
    clip = read_clip(tmp_path / "new/test/00006_zoom-out.mp4", frames=4, height=32, width=32, stride=1)
    assert clip.shape == (4, 32, 32, 3)
    assert (tmp_path / "new/test.csv").read_text().splitlines()[1:3] == [
        "test/00000_still.mp4,still",
        "test/00001_pan-left.mp4,pan-left",
    ]


def test_a_carousel_takes_no_size(tmp_path, capsys):
    assert main(["data", "carousel", str(tmp_path / "new"), "--size", "32"]) == 2
    assert "--size is 32: it is for the camera only" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_direction_has_its_opposite():
    assert {*DIRECTIONS} == {"still", *OPPOSITE, *OPPOSITE.values()}
