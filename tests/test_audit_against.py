"""`vivit audit --against`: every planted fault of a port is named, and a sound port passes.

The port is the NumPy reference, rounded to float32, with a fault that is planted here, without vivit/audit/faults.py.
"""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import peers
import pytest
from checkpoints import model
from trees import replaced
from videos import Coding, encode, scene

import vivit
from vivit.audit import capture_torch
from vivit.audit.against import audit_against
from vivit.audit.faults import Positions
from vivit.audit.others import Other, stages_of
from vivit.audit.pixel_causes import ClipSource
from vivit.audit.replay import chain, compute, params_of
from vivit.audit.variants import random_params, variants
from vivit.cli.main import main
from vivit.reference import models as reference
from vivit.reference.config import named
from vivit.reference.params import convert, leaves
from vivit.reference.positions import resize
from vivit.video.container import Limits
from vivit.video.preprocessing import Preprocessing

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CONFIG = replace(named("vivit-tiny/8x2"), layers=2, width=48, classes=(5, 3))  # a grid of 4 x 4 x 6 tokens
OWN_SIZE = Preprocessing(resize=(40, 56), crop=(32, 48), stride=2)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A film larger than the model's clips, without loss."""
    path = tmp_path_factory.mktemp("videos") / "film.mkv"
    encode(path, scene(30, 40, 56), Coding("ffv1", "bgr0"))
    return path


@pytest.fixture(scope="module")
def sound(video):
    """A source of clips for a model with random weights everywhere."""
    return ClipSource(model=model(CONFIG, preprocessing=OWN_SIZE), video=video, limits=Limits())


def port(source: ClipSource, **changes) -> dict[str, np.ndarray]:
    """Every stage of the reference, in float32. changes: other params, config, pixels."""
    one = source.model
    pixels = changes.get("pixels", one.preprocessing.normalise(one.read(source.video)[np.newaxis]))
    stages = {"pixels": pixels}
    reference.forward(changes.get("params", one.params), pixels, changes.get("config", one.config), capture=stages)
    return {name: np.float32(value) for name, value in stages.items()}


def audited(source: ClipSource, stages: dict[str, np.ndarray], positions: Positions | None = None):
    return audit_against(source, source.model.read(source.video), Other("the port", stages), positions=positions)


def edited(source: ClipSource, path: str, edit: Callable[[np.ndarray], np.ndarray]):
    """The model's params with one leaf changed."""
    return replaced(source.model.params, path, edit(np.array(dict(leaves(source.model.params))[path])))


def zeroed_query_and_value(bias):
    query, key, value = np.split(bias, 3, axis=-1)
    return np.concatenate([0 * query, key, 0 * value], axis=-1)


def key_first(leaf):
    query, key, value = np.split(leaf, 3, axis=-1)
    return np.concatenate([key, query, value], axis=-1)


def space_before_time(positions):
    table = positions[1:].reshape(4, 4, 6, -1)
    return np.concatenate([positions[:1], np.moveaxis(table, 0, 2).reshape(96, -1)])


def second_layer(edit):
    return lambda leaf: np.stack([leaf[0], edit(leaf[1])])


QKV = "encoder/blocks/attention/qkv"
PLANTED = {
    "the biases of query and value are zero": (f"{QKV}/bias", zeroed_query_and_value, "encoder/0/weights"),
    "the biases of query and value are zero in layer encoder/1": (
        f"{QKV}/bias", second_layer(zeroed_query_and_value), "encoder/1/weights",
    ),
    "the kernel of the attention's output is transposed": (
        "encoder/blocks/attention/out/kernel", lambda leaf: leaf.swapaxes(1, 2), "encoder/0/attention",
    ),
    "the embedding's kernel is transposed: height and width are exchanged": (
        "embedding/kernel", lambda leaf: leaf.swapaxes(1, 2), "tokens",
    ),
    "the positions are in another order: space before time": (
        "encoder/positions", space_before_time, "encoder/tokens",
    ),
    "the class token is zero": ("encoder/class_token", lambda leaf: 0 * leaf, "encoder/tokens"),
    "the bias of the MLP's second layer is zero": (
        "encoder/blocks/mlp/out/bias", lambda leaf: 0 * leaf, "encoder/0/mlp",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_wrong_leaf_is_named(fault, sound):
    path, edit, stage = PLANTED[fault]
    found = audited(sound, port(sound, params=edited(sound, path, edit)))
    assert [row.stage for row in found.departures] == [stage]
    assert [(cause.stage, cause.fault) for cause in found.causes] == [(stage, fault)]
    assert found.causes[0].agree == found.causes[0].stages


def test_the_order_of_query_key_and_value_is_named(sound):
    params = edited(sound, f"{QKV}/kernel", key_first)
    params = replaced(params, f"{QKV}/bias", key_first(np.array(sound.model.params.encoder.blocks.attention.qkv.bias)))
    (cause,) = audited(sound, port(sound, params=params)).causes
    assert cause.fault == "the order of query, key and value is key, query, value"


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        (dict(gelu="erf"), "the GELU is the exact one: it must be its tanh approximation"),
        (dict(epsilon=1e-5), "the epsilon of the layer norms is 1e-05: it must be 1e-06"),
        (dict(heads=2), "the heads are 2: they must be 4"),
    ],
)
def test_another_config_is_named(fields, fault, sound):
    (cause,) = audited(sound, port(sound, config=replace(CONFIG, **fields))).causes
    assert cause.fault == fault


def test_a_dropped_class_token_is_named_though_the_shapes_differ(sound):
    encoder = sound.model.params.encoder
    params = sound.model.params._replace(encoder=encoder._replace(class_token=None, positions=encoder.positions[1:]))
    found = audited(sound, port(sound, params=params, config=replace(CONFIG, pooling="mean")))
    assert "shape (1, 96, 48): it must be (1, 97, 48)" in found.departures[0].worst
    assert [cause.fault for cause in found.causes] == ["the class token is dropped"]


@pytest.mark.parametrize(
    ("order", "fault"),
    [
        ([5, 6, 7, 0, 1, 2, 3, 4], "the heads are in another order: 2, 1"),
        ([0, 1, 2, 3, 4], "the head is wrong: head 1 alone"),
        ([3, 1, 4, 0, 2, 7, 6, 5], "the head is wrong: its classes are in another order"),
    ],
)
def test_a_wrong_head_is_named(order, fault, sound):
    stages = port(sound)
    stages["logits"] = stages["logits"][:, order]
    found = audited(sound, stages)
    assert [row.stage for row in found.departures] == ["logits"]
    assert [cause.fault for cause in found.causes] == [fault]


@pytest.mark.parametrize("how", ["nearest", "linear between corners"])
def test_positions_that_were_interpolated_differently_are_named(how, sound):
    small, grid = np.random.default_rng(3).standard_normal((1 + 2 * 4 * 3, 48)), (2, 4, 3)
    ours = np.float32(np.concatenate([small[:1], resize(small[1:], grid, CONFIG.grid)]))
    table = small[1:].reshape(*grid, -1)
    for axis, (old, new) in enumerate(zip(grid, CONFIG.grid, strict=True)):
        points = np.arange(new) * old / new if how == "nearest" else np.linspace(0, old - 1, new)
        low = np.floor(points).astype(int)
        share = (points - low if how != "nearest" else 0 * points).reshape([-1 if axis == i else 1 for i in range(4)])
        high = np.minimum(low + 1, grid[axis] - 1)
        table = (1 - share) * np.take(table, low, axis) + share * np.take(table, high, axis)
    theirs = np.concatenate([small[:1], table.reshape(96, -1)])
    one = replace(sound, model=replace(sound.model, params=replaced(sound.model.params, "encoder/positions", ours)))
    stages = port(one, params=replaced(one.model.params, "encoder/positions", theirs))
    assert [cause.fault for cause in audited(one, stages).causes] == []
    (cause,) = audited(one, stages, Positions(small, grid)).causes
    assert cause.fault == f"the positions are interpolated differently: {how}"


def frames_of(source, indices):
    return source.frames(np.asarray(indices), fitted=True)[np.newaxis]


def normalised(values):
    return np.float32(values / 127.5 - 1)


PIXELS = {
    "the colors are in the order blue, green, red": lambda one: normalised(frames_of(one, one.indices)[..., ::-1]),
    "the pixels are rescaled twice": lambda one: normalised(frames_of(one, one.indices) / 127.5),
    "the pixels are rescaled twice, first by 1/255": lambda one: normalised(frames_of(one, one.indices) / 255),
    "the pixels have another range: 0…1, not -1…1": lambda one: np.float32(frames_of(one, one.indices) / 255),
    "the frames are sampled differently: every frame is 1 after the one before it, not 2": (
        lambda one: normalised(frames_of(one, range(8)))
    ),
    "the frames are sampled differently: from the middle of the video": (
        lambda one: normalised(frames_of(one, range(7, 22, 2)))
    ),
    "the frames are sampled differently: in reverse; the colors are in the order blue, green, red": (
        lambda one: normalised(frames_of(one, range(14, -1, -2))[..., ::-1])
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PIXELS)
def test_other_pixels_are_named_and_hide_no_fault_of_the_model(fault, sound):
    pixels = PIXELS[fault](sound)
    found = audited(sound, port(sound, pixels=pixels))
    assert [row.stage for row in found.departures] == ["pixels"]
    assert (found.pixel_cause, found.causes) == (fault, ())
    wrong = port(sound, pixels=pixels, params=edited(sound, "embedding/bias", lambda leaf: 0 * leaf))
    found = audited(sound, wrong)
    assert [row.stage for row in found.departures] == ["pixels", "tokens"]
    assert [cause.fault for cause in found.causes] == ["the bias of the embedding is zero"]


def test_frames_that_were_resized_differently_are_named(video):
    own = Preprocessing(resize=(24, 32), crop=(16, 24), stride=2)
    config = replace(CONFIG, height=16, width=24)
    source = ClipSource(model=model(config, preprocessing=own), video=video, limits=Limits())
    rows, columns = ((np.arange(24) * 10 + 5) // 6, (np.arange(32) * 14 + 7) // 8)
    frames = source.frames(source.indices)[np.newaxis]
    pixels = normalised(frames[:, :, rows][:, :, :, columns][:, :, 4:20, 4:28])
    found = audited(source, {"pixels": pixels})
    assert found.pixel_cause == "the frames are resized differently: nearest"
    assert "encoder/0/weights" in found.not_given


def test_colors_that_the_model_itself_exchanges_are_named(sound):
    pixels = port(sound)["pixels"]
    stages = port(sound, pixels=pixels[..., ::-1]) | {"pixels": pixels}
    (cause,) = audited(sound, stages).causes
    assert (cause.stage, cause.fault) == ("tokens", "the colors are read in the order blue, green, red")


def test_a_sound_port_passes_and_what_it_did_not_give_is_said(sound):
    stages = port(sound)
    del stages["encoder/0/mlp"]
    found = audited(sound, stages)
    assert found.passed
    assert (found.departures, found.causes, found.pixel_cause) == ((), (), None)
    assert found.not_given == ("encoder/0/mlp",)


def test_two_faults_are_named_one_after_the_other(sound):
    params = edited(sound, "encoder/positions", space_before_time)
    params = replaced(params, "head/bias", 0 * np.array(params.head.bias))
    found = audited(sound, port(sound, params=params))
    assert [(cause.stage, cause.fault) for cause in found.causes] == [
        ("encoder/tokens", "the positions are in another order: space before time"),
        ("logits", "the head is wrong: its bias is zero"),
    ]


def test_from_the_logits_alone_the_fault_is_named_too(sound):
    stages = port(sound, config=replace(CONFIG, gelu="erf"))
    (cause,) = audited(sound, {"logits": stages["logits"]}).causes
    assert cause.fault == "the GELU is the exact one: it must be its tanh approximation"


def test_a_fault_that_is_in_no_list_is_said_to_be_unknown(sound):
    noise = np.random.default_rng(4).standard_normal
    params = edited(sound, "encoder/blocks/mlp/out/kernel", lambda leaf: leaf + noise(leaf.shape) / 100)
    found = audited(sound, port(sound, params=params))
    assert [row.stage for row in found.departures] == ["encoder/0/mlp"]
    assert found.causes == ()


@pytest.mark.fast
@pytest.mark.parametrize("name", [name for name in variants() if "tubelet, mean" in name or "averaged" in name])
def test_the_parts_of_a_model_give_the_references_stages_bit_for_bit(name):
    config = variants()[name]
    params = convert(random_params(config), lambda _, leaf: np.float64(leaf))
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, config.frames, config.height, config.width, 3))
    expected: dict[str, np.ndarray] = {}
    reference.forward(params, pixels, config, capture=expected)
    found: dict[str, np.ndarray] = {"pixels": pixels}
    for part in chain(config):
        compute(part.name, found[part.source], params_of(part.name, params), config, found)
    assert list(found) == ["pixels", *expected]
    assert all(np.array_equal(found[stage], value) for stage, value in expected.items())


MODULE = """
import numpy as np, vivit
from vivit.reference import models

def stages(video, frames, checkpoint):
    assert frames.shape == (8, 40, 56, 3) and frames.dtype == np.uint8 and video.endswith("film.mkv")
    model, found = vivit.load(checkpoint), {}
    found["pixels"] = model.preprocessing.normalise(frames[np.newaxis, :, 4:-4, 4:-4])
    models.forward(model.params, found["pixels"], model.config, capture=found)
    found["tokens"] = found["tokens"].reshape(1, 96, 48)  # without an axis for time
    return found
"""


@pytest.mark.fast
def test_a_module_by_name_and_by_file_and_an_npz_give_the_same_stages(sound, tmp_path, monkeypatch):
    vivit.save(sound.model, tmp_path / "model")
    (tmp_path / "my_port.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    found = [stages_of(name, "model", sound) for name in ("my_port", "my_port.py")]
    np.savez("captured.npz", **found[0].stages)
    found.append(stages_of("captured.npz", "model", sound))
    expected = port(sound)
    assert [one.name for one in found] == ["my_port", "my_port.py", "captured.npz"]
    for one in found:
        assert one.stages.keys() == expected.keys()
        assert all(one.stages[name].shape == value.shape for name, value in expected.items())


@pytest.mark.fast
@pytest.mark.parametrize(
    ("against", "text", "message"),
    [
        ("none.npz", None, "none.npz is not a file: it must be an npz of stages"),
        ("no_such_module", None, "no_such_module cannot be imported: ModuleNotFoundError"),
        ("empty.py", "", "empty.py has no function stages(video, frames, checkpoint)"),
        ("bad.py", "def stages(*_):\n raise KeyError('x')", "bad.py: stages() raised KeyError: 'x'"),
        ("none.py", "def stages(*_):\n return {}", "none.py gives no stages: it must give a dict of arrays"),
        ("typo.py", "def stages(*_):\n return {'logit': 1}", "stage is 'logit': did you mean 'logits'?"),
        (
            "text.py",
            "def stages(*_):\n return {'logits': 'x'}",
            "text.py: logits has dtype 'str32': it must be numbers",
        ),
    ],
)
def test_what_is_no_other_implementation_is_one_line(against, text, message, sound, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / against).write_text(text)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        stages_of(against, "model", sound)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_command_prints_the_cause_and_returns_1(sound, tmp_path, capsys):
    vivit.save(sound.model, tmp_path / "model")
    stages = port(sound, params=edited(sound, "encoder/positions", space_before_time))
    np.savez(tmp_path / "captured.npz", **stages)
    arguments = ["audit", str(sound.video), "--checkpoint", str(tmp_path / "model")]
    assert main([*arguments, "--against", str(tmp_path / "captured.npz")]) == 1
    out = capsys.readouterr().out
    assert "FAIL captured.npz: first departs at encoder/tokens: error " in out
    cause = "the positions are in another order: space before time"
    assert f"cause: {cause} (with it the reference agrees at 13 of 13 stages from encoder/tokens on)" in out


TINY = replace(CONFIG, width=32, classes=(5,))


def test_transformers_passes_and_its_planted_faults_are_named(video, tmp_path, monkeypatch, capsys):
    torch, _ = peers.transformers()
    vivit.save(model(TINY), tmp_path / "port", to="huggingface")
    arguments = ["audit", str(video), "--checkpoint", str(tmp_path / "port"), "--against", "transformers"]
    assert main(arguments) == 1  # it scales 40 x 56 to 37 x 51, and not to 37 x 52
    out = capsys.readouterr().out
    assert ": 14 of 15 stages pass" in out
    assert "cause: the frames are resized differently: the longer side is rounded down" in out
    right = capture_torch.load

    def without_biases(checkpoint):
        loaded, processor = right(checkpoint)
        with torch.no_grad():
            for name, parameter in loaded.named_parameters():
                if name.endswith(("q_proj.bias", "v_proj.bias", "query.bias", "value.bias")):
                    parameter.zero_()
        return loaded, processor

    monkeypatch.setattr(capture_torch, "load", without_biases)
    assert main(arguments) == 1
    assert "cause: the biases of query and value are zero (with it the reference agrees" in capsys.readouterr().out


def test_the_script_writes_what_transformers_computes_from_frames_and_from_pixels(video, tmp_path):
    peers.transformers()
    made = model(TINY)
    vivit.save(made, tmp_path / "port", to="huggingface")
    clip = made.read(video)
    np.savez(tmp_path / "frames.npz", frames=clip)
    np.savez(tmp_path / "pixels.npz", pixels=np.float32(made.preprocessing.normalise(clip)[np.newaxis]))
    source = ClipSource(model=made, video=video, limits=Limits())
    for name in ("frames", "pixels"):
        capture_torch.main(*(str(tmp_path / file) for file in ("port", f"{name}.npz", "captured.npz")))
        found = audited(source, stages_of(str(tmp_path / "captured.npz"), "", source).stages)
        assert [row.stage for row in found.rows if not row.passed and row.stage != "pixels"] == []
        assert found.not_given == ()


@pytest.mark.fast
def test_a_model_that_the_script_does_not_know_is_refused():
    with pytest.raises(ValueError, match="SimpleNamespace is neither transformers' ViViT nor lucidrains'"):
        capture_torch.capture(SimpleNamespace(named_modules=dict), np.zeros((1, 2, 4, 4, 3), np.float32))
