"""Non-finite results raise an error that names the overflow, in every function that computes with a model."""

from dataclasses import replace

import checkpoints
import numpy as np
import pytest
from videos import Coding, encode, scene

import vivit
from vivit.cli.main import main
from vivit.inference.classification import classify_videos
from vivit.reference.params import convert, leaves

pytestmark = pytest.mark.fast

CONFIG = replace(vivit.named("vivit-tiny/8x2"), classes=(2, 3))  # 8 frames of 32x32
PLACES = {  # the leaf that is made huge, and the first stage that this makes overflow
    "embedding/kernel": "tokens",
    "encoder/blocks/attention/qkv/kernel": "encoder/0/attention",
    "encoder/blocks/mlp/out/kernel": "encoder/0/mlp",
    "head/kernel": "logits",
}


def overflowing(path: str):
    """A model of finite weights whose products overflow, first where `path` is used."""
    model = checkpoints.model(CONFIG)
    assert path in dict(leaves(model.params))

    def grown(here, leaf):
        return np.where(leaf < 0, -1, 1).astype(np.float32) * np.float32(3e38) if here == path else leaf

    return replace(model, params=convert(model.params, grown))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip.mkv"
    encode(path, scene(20, 32, 32), Coding("ffv1", "bgr0"))
    return str(path)


@pytest.mark.parametrize(("path", "stage"), PLACES.items())
def test_the_first_stage_that_overflows_is_named(path, stage):
    model = overflowing(path)
    clip = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    message = f"an array has no finite result: {stage} is the first stage of the model that is not finite"
    for ask in (model.classify, model.explain):
        with pytest.raises(ValueError, match=message):
            ask(clip)
    with pytest.raises(ValueError, match=message):
        model.features(clip, stages=("logits",))


def test_a_video_with_no_finite_result_gives_an_error_in_its_position_and_the_others_continue():
    model = checkpoints.model(CONFIG)
    clip = model.preprocessing.normalise(np.zeros((24, 32, 32, 3), np.uint8))
    broken = clip.copy()
    broken[21, 5, 6, 1] = np.nan
    found = list(classify_videos(model, [clip, broken, clip], views=(2, 1)))
    assert str(found[1]) == "an array has pixels that are not finite, in frame 5 of a clip"
    assert np.array_equal(found[0].logits, found[2].logits)


@pytest.mark.parametrize("command", ["classify", "classify --json", "features -o out.npz", "explain -o out.html"])
def test_a_command_names_the_overflow_in_one_line_and_writes_nothing(command, video, tmp_path, capsys, monkeypatch):
    vivit.save(overflowing("encoder/blocks/mlp/out/kernel"), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    name, *rest = command.split()
    assert main([name, video, *rest, "--checkpoint", "model"]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert f"vivit {name}: {video} has no finite result: encoder/0/mlp is the first stage" in shown.err
    assert "nan" not in shown.out.lower()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_evaluation_names_the_video_and_the_stage(video):
    from vivit.data.sources import Dataset, Example
    from vivit.inference.evaluation import evaluate

    dataset = Dataset((Example(video, ((0,), (0,))),), ("verb", "noun"), (("a", "b"), ("c", "d", "e")))
    with pytest.raises(ValueError, match=r"clip\.mkv has no finite result: encoder/0/mlp is the first stage"):
        evaluate(overflowing("encoder/blocks/mlp/out/kernel"), dataset, views=(1, 1))
