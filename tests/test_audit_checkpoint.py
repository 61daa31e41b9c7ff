"""`vivit audit --checkpoint`: sound weights pass, others fail at the right stage, and a signature has all it needs."""

import hashlib
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from checkpoints import model
from strategies import mostly_thorough
from trees import replaced
from videos import write_video

import vivit
from vivit import jitted
from vivit.audit import checkpoint, complete
from vivit.audit.variants import DTYPES
from vivit.cli.main import main
from vivit.demo import demo_checkpoint
from vivit.hashes import hash_of_params, hash_of_pixels
from vivit.reference.config import named
from vivit.reference.params import convert, leaves
from vivit.versions import source
from vivit.video.preprocessing import HUGGING_FACE, Preprocessing

FORMS = ("", "-fe", "-fsa", "-fdp")


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "clip.mkv"
    write_video(path, 20)
    return str(path)


def ready(form="", **fields):
    """A model, of two layers each, with weights that bfloat16 does not hold."""
    made = model(replace(named("vivit-tiny/8x2" + form), layers=2, temporal_layers=1), **fields)
    return replace(made, params=convert(made.params, lambda _, leaf: leaf * np.float32(1.0017)))


def audited(arguments, tmp_path, capsys):
    """(exit code, standard output, the JSON file) of an audit of a checkpoint."""
    code = main(["audit", *arguments, "--verbose", "-o", str(tmp_path / "audit.json")])
    return code, capsys.readouterr().out, json.loads((tmp_path / "audit.json").read_text())


@pytest.mark.parametrize("form", mostly_thorough(FORMS, "-fe", "-fsa"))
def test_a_sound_checkpoint_passes_at_every_stage_in_both_dtypes(form, clip_path, tmp_path, capsys):
    preprocessing = HUGGING_FACE if form == "-fe" else None
    if preprocessing is not None:
        preprocessing = replace(preprocessing, resize=36, crop=(32, 32))
    vivit.save(ready(form, preprocessing=preprocessing), tmp_path / "model")
    code, out, report = audited([clip_path, "--checkpoint", str(tmp_path / "model")], tmp_path, capsys)
    assert code == 0, out
    stages = list(jitted.stage_shapes(vivit.load(tmp_path / "model").config))
    assert [(row["dtype"], row["stage"]) for row in report["rows"]] == [
        (dtype, name) for dtype in DTYPES for name in stages
    ]
    assert stages[-1] == "logits"
    assert report["passed"]
    assert all(row["passed"] and row["error"] <= row["bound"] and row["worst"] == "" for row in report["rows"])
    assert max(row["error"] for row in report["rows"]) > 0
    assert f"{2 * len(stages)} of {2 * len(stages)} stages pass, 1 of 1 heads agree" in out


def test_an_audit_of_the_demo_model_names_the_class_of_each_head(demo_path, tmp_path, capsys):
    code, out, report = audited(["--checkpoint", str(demo_checkpoint())], tmp_path, capsys)
    assert code == 0
    demo = vivit.load(demo_checkpoint())
    clip = demo.read(demo_path)
    for decision, best in zip(report["decisions"], demo.classify(clip, top=1), strict=True):
        assert decision["agrees"]
        assert decision["lead"] > 0
        said = [decision["reference"], *decision["production"].values()]
        assert [one["label"] for one in said] == [best[0].label] * 3
        assert out.count(best[0].label) == 3
    assert len(report["decisions"]) == 1


def test_the_json_has_all_that_a_signature_needs(clip_path, tmp_path, capsys):
    made = ready()
    vivit.save(made, tmp_path / "model")
    _, out, report = audited([clip_path, "--checkpoint", str(tmp_path / "model")], tmp_path, capsys)
    assert sorted(os.listdir(tmp_path)) == ["audit.json", "model"]
    clip = made.read(clip_path)
    assert report["clip"] == {
        "shape": [8, 32, 32, 3], "start": 0, "stride": 2, "sha256": hashlib.sha256(clip.tobytes()).hexdigest()
    }  # fmt: skip
    assert report["weights"]["sha256"] == hash_of_params(made.params)
    assert report["weights"]["parameters"] == sum(leaf.size for _, leaf in leaves(made.params))
    assert report["config"]["layers"] == 2
    assert report["preprocessing"]["crop"] == [32, 32]
    assert report["labels"] is None
    assert report["video"] == clip_path
    assert report["checkpoint"] == str(tmp_path / "model")
    assert report["software"]["jax"] == jax.__version__
    assert report["software"]["numpy"] == np.__version__
    assert report["software"].keys() == {"vivit", "jax", "jaxlib", "numpy", "python", "system"}
    assert report["device"] == {"platform": "cpu", "kind": jax.devices()[0].device_kind}
    assert report["date"].endswith("+00:00")
    assert report["weights"]["sha256"] in out
    assert report["clip"]["sha256"] in out
    assert report["vivit"] == source()
    assert f"vivit: {report['vivit']['version']}, commit {report['vivit']['commit'] or 'unknown'}" in out
    number = report["decisions"][0]["reference"]["number"]
    assert report["decisions"][0]["reference"]["label"] is None
    assert out.count(f"class {number} (") == 3


@pytest.fixture
def nothing_compared(monkeypatch):
    """Audits whose verdict is empty, for what stands beside it."""
    nearest = checkpoint.NearestStage("tokens", np.zeros((1, 4, 16, 48), np.float32), 1.0, 0.5)
    empty = checkpoint.CheckpointAudit(rows=(), decisions=(), covered={}, nearest=nearest)
    monkeypatch.setattr(complete, "audit_checkpoint", lambda *_, **__: empty)


@pytest.mark.usefixtures("nothing_compared")
def test_every_hash_of_an_audit_is_of_the_bytes_that_it_says(clip_path, tmp_path, capsys):
    made = ready(labels=(tuple("ßbcde"),))
    vivit.save(made, tmp_path / "model")
    _, out, report = audited([clip_path, "--checkpoint", str(tmp_path / "model")], tmp_path, capsys)
    weights = b""
    for path, leaf in leaves(made.params):
        weights += f"{path} float32 {leaf.shape} ".encode() + np.asarray(leaf, "<f4").tobytes("C")
    hashed = {"weights": weights, "video": Path(clip_path).read_bytes(), "pixels": made.read(clip_path).tobytes()}
    for name in ("config", "labels", "preprocessing"):
        text = json.dumps(report[name], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        hashed[name] = text.encode("utf-8")
    assert report["sha256"] == {name: hashlib.sha256(data).hexdigest() for name, data in hashed.items()}
    assert report["hashed"].keys() == hashed.keys()
    for name, digest in report["sha256"].items():
        assert f"{name}, sha256: {digest}" in out
        assert report["hashed"][name] in out


@pytest.mark.usefixtures("nothing_compared")
def test_the_hashes_of_one_model_do_not_depend_on_its_format(clip_path, tmp_path, capsys):
    made = ready(labels=(tuple("abcde"),), preprocessing=Preprocessing(resize=36, crop=(32, 32), mean=(0, 1, 2)))
    made = replace(made, config=replace(made.config, order="space_time"))  # which model 1 does not look at
    reports = []
    for to in ("vivit", "huggingface"):
        vivit.save(made, tmp_path / to, to=to)
        reports.append(audited([clip_path, "--checkpoint", str(tmp_path / to)], tmp_path, capsys)[2])
    assert reports[0]["sha256"] == reports[1]["sha256"]


@pytest.mark.parametrize(
    ("path", "layer", "stage"),
    [
        ("embedding/kernel", None, "tokens"),
        ("encoder/positions", None, "encoder/tokens"),
        ("encoder/blocks/attention/qkv/kernel", 1, "encoder/1/weights"),
        ("encoder/blocks/attention/out/kernel", 0, "encoder/0/attention"),
        ("encoder/blocks/mlp/out/kernel", 1, "encoder/1/mlp"),
        ("encoder/norm/scale", None, "encoder/norm"),
        ("head/kernel", None, "logits"),
    ],
)
def test_one_leaf_that_production_has_otherwise_fails_at_its_own_stage(
    path, layer, stage, clip_path, tmp_path, capsys, monkeypatch
):
    """Rounded to bfloat16: what float32 must not bear, and bfloat16 alone may."""
    made = ready()
    vivit.save(made, tmp_path / "model")
    leaf = np.array(dict(leaves(made.params))[path])
    leaf[layer] = leaf[layer].astype(ml_dtypes.bfloat16).astype(np.float32)  # None is all of it
    for name in ("stages", "logits"):
        right = getattr(jitted, name)
        monkeypatch.setattr(
            checkpoint.jitted,
            name,
            lambda params, *rest, right=right, **options: right(replaced(params, path, leaf), *rest, **options),
        )
    code, out, report = audited([clip_path, "--checkpoint", str(tmp_path / "model")], tmp_path, capsys)
    assert code == 1
    assert not report["passed"]
    assert f"FAIL float32: first departs at {stage}: error " in out
    failed = next(row for row in report["rows"] if not row["passed"])
    assert (failed["dtype"], failed["stage"]) == ("float32", stage)
    assert "exceeds bound" in failed["worst"]


def test_what_is_no_number_fails_and_is_null_in_the_json(clip_path, tmp_path, capsys, monkeypatch):
    vivit.save(ready(), tmp_path / "model")
    right = jitted.logits
    monkeypatch.setattr(checkpoint.jitted, "logits", lambda *rest, **options: right(*rest, **options) * np.nan)
    path = tmp_path / "x.json"
    assert main(["audit", clip_path, "--checkpoint", str(tmp_path / "model"), "-o", str(path)]) == 1
    assert "FAIL float32: first departs at logits: error nan exceeds bound" in capsys.readouterr().out
    report = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert [row["error"] for row in report["rows"] if not row["passed"]] == [None, None]


def test_another_class_than_the_references_fails(clip_path, tmp_path, capsys, monkeypatch):
    vivit.save(ready(), tmp_path / "model")
    right = jitted.logits
    monkeypatch.setattr(checkpoint.jitted, "logits", lambda *rest, **options: -right(*rest, **options))
    code, out, report = audited([clip_path, "--checkpoint", str(tmp_path / "model")], tmp_path, capsys)
    assert code == 1
    (decision,) = report["decisions"]
    assert not decision["agrees"]
    assert "FAIL head 1: production has another class than the reference, which leads by" in out
    assert "0 of 1 heads agree" in out


def test_stages_too_large_to_be_held_are_never_asked_for_and_said_to_be_covered(
    clip_path, tmp_path, capsys, monkeypatch
):
    vivit.save(ready("-fsa"), tmp_path / "model")
    monkeypatch.setattr(checkpoint, "LARGEST_STAGE", 64 * 48 - 1)
    asked, right = [], jitted.stages
    monkeypatch.setattr(
        checkpoint.jitted,
        "stages",
        lambda *rest, names, **options: (asked.extend(names), right(*rest, names=names, **options))[1],
    )
    code, out, report = audited([clip_path, "--checkpoint", str(tmp_path / "model")], tmp_path, capsys)
    shapes = jitted.stage_shapes(vivit.load(tmp_path / "model").config)
    large = {name for name, shape in shapes.items() if math.prod(shape) >= 64 * 48}
    assert code == 0
    assert large == report["covered"].keys()
    assert large.isdisjoint(asked)
    assert {row["stage"] for row in report["rows"]} == shapes.keys() - large
    for name, through in report["covered"].items():
        assert list(shapes).index(name) < list(shapes).index(through)
        assert through not in large
    assert "stages too large to store, compared through" in out


def test_attention_weights_of_vivit_b_are_covered_by_the_attention_of_their_layer():
    names, covered = checkpoint.compared_stages(named("vivit-b/16x2"))
    assert covered == {f"encoder/{layer}/weights": f"encoder/{layer}/attention" for layer in range(12)}
    assert "encoder/11/out" in names
    names, covered = checkpoint.compared_stages(named("vivit-b/16x2-fe"))
    assert not covered
    assert "temporal_encoder/3/weights" in names


def test_a_digest_of_weights_is_that_of_their_numbers_and_not_of_a_file(tmp_path):
    made = ready()
    for to in ("vivit", "huggingface"):
        vivit.save(made, tmp_path / to, to=to)
    digests = [hash_of_params(vivit.load(tmp_path / to).params) for to in ("vivit", "huggingface")]
    assert digests == [hash_of_params(made.params)] * 2
    for path, leaf in leaves(made.params):
        other = np.array(leaf)
        other.flat[-1] = np.nextafter(other.flat[-1], np.float32(9))
        assert hash_of_params(replaced(made.params, path, other)) != digests[0]


def test_a_digest_of_pixels_sees_every_pixel_and_no_layout_of_memory():
    clip = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), np.uint8)
    assert hash_of_pixels(np.asfortranarray(clip)) == hashlib.sha256(clip.tobytes()).hexdigest()
    changed = clip.copy()
    changed[1, 2, 3, 2] ^= 1
    assert hash_of_pixels(changed) != hash_of_pixels(clip)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{clip}", "--checkpoint", "{demo}", "--model", "spatio_temporal"], "--model and --size select random"),
        (["{clip}", "--checkpoint", "{demo}", "--size", "tiny"], "omit them with --checkpoint"),
        (["{clip}", "--checkpoint", "{here}/nothing"], "nothing does not exist: it must be a folder"),
        (["{short}", "--checkpoint", "{demo}"], "short.mkv has 7 frames: 8 frames at stride 2 from frame 0 on need 15"),
        (["{clip}", "--frames", "16"], "--frames applies to a checkpoint: pass --checkpoint as well"),
        (["{here}/none.mp4", "--checkpoint", "{demo}"], "none.mp4 is not a file: it must be a video"),
        (["{clip}", "--checkpoint", "{demo}", "-o", "{here}/no/x"], "the folder {here}/no does not exist"),
    ],
)
def test_an_audit_of_bad_input_is_one_line(arguments, message, clip_path, tmp_path, capsys):
    write_video(tmp_path / "short.mkv", 7)
    places = dict(clip=clip_path, demo=demo_checkpoint(), here=tmp_path, short=tmp_path / "short.mkv")
    assert main(["audit", *(argument.format(**places) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert message.format(**places) in error
    assert error.count("\n") == 1
