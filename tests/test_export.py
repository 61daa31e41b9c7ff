"""`vivit export`: a program that gives the model's logits in a process that has JAX and none of our code."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from accuracy import assert_as_accurate
from checkpoints import model
from strategies import MODELS, mostly_thorough, small

import vivit
from bench import peers
from vivit.audit import baseline
from vivit.audit.bound import depth_of
from vivit.cli.main import main
from vivit.demo import demo_checkpoint
from vivit.files import atomic
from vivit.inference import export, onnx_program
from vivit.reference import models as reference
from vivit.reference.config import named
from vivit.reference.params import convert
from vivit.video.preprocessing import HUGGING_FACE

ROOT = Path(__file__).parent.parent
CLIPS = np.random.default_rng(0).integers(0, 256, (5, 6, 15, 14, 3), np.uint8)  # of small models
NAMES = (tuple(f"verb {index}" for index in range(11)), tuple(f"noun {index}" for index in range(13)))
EXPORTED = {  # name: (model, dtype, numbers of clips that one program is given)
    **{name: (model(small(name, layers=2), labels=NAMES), "float32", (1, 2, 5)) for name in MODELS},
    "bfloat16": (model(small("factorised_dot_product", layers=2)), "bfloat16", (2,)),
    "other preprocessing": (
        model(small("spatio_temporal", layers=1), preprocessing=replace(HUGGING_FACE, mean=(0.5, 0.4, 0.3))),
        "float32",
        (2,),
    ),
}

INSTALLED = ("jax", "jaxlib", "numpy", "ml_dtypes", "opt_einsum", "scipy", "flatbuffers")  # of which vivit is none
STRANGER = """
import json
import sys

sys.path.append(sys.argv[1])
from pathlib import Path
import jax
import jax.export
import numpy as np

folder = Path(sys.argv[2])
clips = np.load(folder / "clips.npy")
for name, sizes in json.loads(sys.argv[3]).items():
    program = jax.export.deserialize(bytearray((folder / f"{name}.stablehlo").read_bytes()))
    for size in sizes:
        np.save(folder / f"{name}-{size}", jax.jit(program.call)(clips[:size]))
try:
    import vivit
except ImportError:
    print(*[name for name in sys.modules if name.startswith(("vivit", "av", "safetensors"))])
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The folder in which a process without our code has run every program on batches of every size."""
    folder = tmp_path_factory.mktemp("programs")
    for name, (ready, dtype, _) in EXPORTED.items():
        vivit.export(ready, folder / f"{name}.stablehlo", dtype=dtype)
    np.save(folder / "clips", CLIPS)
    away = tmp_path_factory.mktemp("away")
    (away / "stranger.py").write_text(STRANGER)
    (away / "site").mkdir()
    for package in map(find_spec, INSTALLED):
        home = Path(package.origin).parent
        for part in (home, home.with_name(f"{home.name}.libs")):
            if part.exists():
                (away / "site" / part.name).symlink_to(part)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XLA"))}
    sizes = json.dumps({name: sizes for name, (_, _, sizes) in EXPORTED.items()})
    command = [sys.executable, "-I", "-S", "-W", "error", away / "stranger.py", away / "site", folder, sizes]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=away, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\n", "modules of ours were loaded"
    return folder


@pytest.mark.parametrize("name", EXPORTED)
def test_without_our_code_one_program_gives_the_logits_of_any_number_of_clips(name, elsewhere):
    ready, dtype, sizes = EXPORTED[name]
    video = ready.preprocessed(CLIPS)
    yardstick = baseline.forward(jax.tree.map(jnp.asarray, ready.params), video, ready.config, dtype=dtype)
    expected = reference.forward(ready.params, video, ready.config)
    for size in sizes:
        actual = np.load(elsewhere / f"{name}-{size}.npy")
        assert actual.dtype == np.float32
        assert_as_accurate(
            actual, yardstick[:size], expected[:size], dtype, f"{name}, {size} clips", depth=depth_of(ready.config)
        )


@pytest.mark.parametrize("name", mostly_thorough(MODELS, MODELS[1]))
def test_onnx_runtime_gives_the_logits_of_any_number_of_clips(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    ready, dtype, sizes = EXPORTED[name]
    written = vivit.export(ready, tmp_path / "program.onnx", to="onnx")
    session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    (video,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (video.name, video.type, video.shape) == ("video", "tensor(uint8)", written.description["input"]["shape"])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["b", 24])
    yardstick = baseline.forward(jax.tree.map(jnp.asarray, ready.params), CLIPS, ready.config)
    expected = reference.forward(ready.params, CLIPS, ready.config)
    for size in sizes:
        (actual,) = session.run(["logits"], {"video": CLIPS[:size]})
        where = f"{name}, {size} clips"
        assert_as_accurate(actual, yardstick[:size], expected[:size], dtype, where, depth=depth_of(ready.config))
    data = written.path.read_bytes()
    assert b"...c,...cf" not in data  # a product that would repeat its kernel for every token
    assert str(ROOT).encode() not in data


def test_an_onnx_program_of_a_fixed_batch_and_other_preprocessing_is_written_by_the_command(tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    ready, _, _ = EXPORTED["other preprocessing"]
    vivit.save(ready, tmp_path / "model")
    path = tmp_path / "program.onnx"
    assert (
        main(["export", "--to", "onnx", "-o", str(path), "--checkpoint", str(tmp_path / "model"), "--batch", "2"]) == 0
    )
    assert "uint8[2 6 15 14 3] to float32[2 24], for ONNX opset 21" in capsys.readouterr().out
    said = json.loads((tmp_path / "program.onnx.json").read_text())
    assert said["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (actual,) = session.run(["logits"], {"video": CLIPS[:2]})
    np.testing.assert_allclose(actual, ready.logits(CLIPS[:2]), atol=1e-5)


@pytest.mark.filterwarnings("ignore:os.fork")  # importing openvino forks, of which JAX warns
def test_the_engines_of_the_benchmark_give_the_logits_of_preprocessed_pixels(tmp_path):
    ready = EXPORTED["other preprocessing"][0]
    pytest.importorskip("jax2onnx")
    (tmp_path / "program.onnx").write_bytes(onnx_program.convert(ready, 2, "float32"))
    video = np.asarray(ready.preprocessed(CLIPS[:2]))
    for package, engine in (("onnxruntime", peers.onnx_runtime), ("openvino", peers.openvino)):
        pytest.importorskip(package)
        np.testing.assert_allclose(engine(tmp_path / "program.onnx", video)(), ready.logits(video), atol=1e-5)


def test_a_conversion_that_fails_is_one_line_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_program, "check_installed", lambda: None)
    monkeypatch.setattr(onnx_program.sys, "path", [str(tmp_path / "site"), *sys.path])
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "jax2onnx.py").write_text("raise NotImplementedError('this is no converter')")
    message = "the model cannot be converted to ONNX: NotImplementedError: this is no converter"
    with pytest.raises(ValueError, match=message):
        vivit.export(EXPORTED["other preprocessing"][0], tmp_path / "program.onnx", to="onnx")
    assert os.listdir(tmp_path) == ["site"]


@pytest.mark.fast
def test_without_the_extra_one_line_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(onnx_program, "find_spec", lambda name: None)
    assert main(["export", "--to", "onnx", "-o", str(tmp_path / "x.onnx")]) == 2
    assert capsys.readouterr().err == (
        'vivit export: jax2onnx is not installed: install it with: pip install "vivit[onnx]"\n'
    )


@pytest.mark.parametrize("platforms", [("tpu",), ("cpu",), ("cpu", "cuda", "tpu"), ("cuda", "rocm")])
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("suffix", ["", "-fe", "-fsa", "-fdp"])
def test_a_program_for_a_tpu_alone_has_the_kernels_and_others_have_none(suffix, batch, platforms, tmp_path):
    ready = model(named("vivit-tiny/8x2" + suffix))
    written = vivit.export(ready, tmp_path / "program.stablehlo", platforms=platforms, batch=batch)
    program = jax.export.deserialize(bytearray(written.path.read_bytes()))
    assert program.platforms == platforms
    kernels = "tpu_custom_call" in program.mlir_module()
    assert kernels == (platforms == ("tpu",))
    assert written.description["attention"] == ("pallas" if kernels else "xla")
    assert str(program.in_avals[0].shape[0]) == ("b" if batch is None else "3")


def test_a_program_with_a_fixed_batch_gives_the_same_logits(tmp_path):
    ready = EXPORTED["factorised_self_attention"][0]
    vivit.export(ready, tmp_path / "program.stablehlo", platforms=("cpu",), batch=2)
    program = jax.export.deserialize(bytearray((tmp_path / "program.stablehlo").read_bytes()))
    video = CLIPS[:2]
    yardstick = baseline.forward(jax.tree.map(jnp.asarray, ready.params), video, ready.config)
    expected = reference.forward(ready.params, video, ready.config)
    assert_as_accurate(program.call(video), yardstick, expected, "float32", depth=depth_of(ready.config))
    with pytest.raises(ValueError, match="shape"):
        program.call(CLIPS)


def test_on_a_platform_that_it_lacks_a_program_is_refused_by_jax(tmp_path):
    vivit.export(model(named("vivit-tiny/8x2")), tmp_path / "program.stablehlo", platforms=("cuda", "tpu"))
    program = jax.export.deserialize(bytearray((tmp_path / "program.stablehlo").read_bytes()))
    with pytest.raises(ValueError, match="was exported for platforms"):
        program.call(np.zeros((1, 8, 32, 32, 3), np.uint8))


def test_kernels_stored_in_bfloat16_change_no_bit():
    ready = model(named("vivit-tiny/8x2"))
    ready = replace(ready, params=convert(ready.params, lambda _, leaf: leaf * np.float32(1.001)))  # not bfloat16's own
    smaller = replace(ready, params=export.stored_params(ready.params, "bfloat16"))
    rounded, whole = (of.params.encoder.blocks.mlp.hidden.kernel for of in (smaller, ready))
    assert rounded.dtype == jnp.bfloat16
    assert not np.array_equal(rounded.astype(np.float32), whole)
    assert smaller.params.embedding.kernel.dtype == np.float32
    video = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 32, 3), np.uint8)
    assert np.array_equal(*(of.logits(video, dtype="bfloat16") for of in (smaller, ready)))


def test_the_description_of_a_program_has_all_that_its_use_requires(elsewhere):
    ready, _, _ = EXPORTED["spatio_temporal"]
    path = elsewhere / "spatio_temporal.stablehlo"
    said = json.loads((elsewhere / "spatio_temporal.stablehlo.json").read_text())
    assert said["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert said["bytes"] == path.stat().st_size
    assert said["input"]["shape"] == ["b", 6, 15, 14, 3]
    assert said["output"]["shape"] == ["b", 24]
    assert said["labels"] == [list(names) for names in NAMES]
    assert said["classes"] == [11, 13]
    assert said["platforms"] == ["cpu", "cuda", "tpu"]
    assert said["pixels"]["to_be_done"]["crop"] == [15, 14]
    assert said["pixels"]["done_inside"]["rescale"] == ready.preprocessing.rescale
    assert said["written_with"]["jax"] == jax.__version__
    assert said["config"]["hidden"] == asdict(ready.config)["hidden"]


def test_a_model_without_a_head_is_exported_and_said_to_give_features(tmp_path):
    said = vivit.export(model(small("spatio_temporal", classes=())), tmp_path / "program.stablehlo").description
    assert said["output"] == {"dtype": "float32", "shape": ["b", 30], "what": "features: there is no head"}


def test_a_program_is_the_same_on_all_machines_and_contains_no_paths(tmp_path):
    here, there = tmp_path / "here.stablehlo", tmp_path / "there.stablehlo"
    written = vivit.export(vivit.load(demo_checkpoint()), here)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-m", "vivit", "export", "-o", there]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert f"sha256 {written.description['sha256']}" in done.stdout
    assert here.read_bytes() == there.read_bytes()
    assert str(ROOT).encode() not in here.read_bytes()
    assert b"export.py" not in here.read_bytes()
    assert done.stderr.startswith("vivit export: no --checkpoint: using the demo model that ships with the package")
    assert done.stderr.count("\n") == 1


def test_the_description_is_replaced_before_the_program(tmp_path, monkeypatch):
    names, rename = [], os.replace
    monkeypatch.setattr(atomic.os, "replace", lambda old, new: (names.append(Path(new).name), rename(old, new)))
    vivit.export(vivit.load(demo_checkpoint()), tmp_path / "program.stablehlo", platforms=("cpu",))
    assert names == ["program.stablehlo.json", "program.stablehlo"]


def test_an_export_that_breaks_off_leaves_the_old_program_as_it_was(tmp_path, monkeypatch):
    demo = vivit.load(demo_checkpoint())
    vivit.export(demo, tmp_path / "program.stablehlo", platforms=("cpu",))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path, text, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        vivit.export(demo, tmp_path / "program.stablehlo", platforms=("tpu",))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    vivit.export(demo, tmp_path / "program.stablehlo", platforms=("tpu",))
    assert (tmp_path / "program.stablehlo").read_bytes() != before["program.stablehlo"]
    assert sorted(os.listdir(tmp_path)) == ["program.stablehlo", "program.stablehlo.json"]


def test_weights_beyond_the_limit_of_a_program_are_rejected_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MAX_WEIGHTS", 700_000)
    monkeypatch.setattr(export, "build_program", None)
    ready = vivit.load(demo_checkpoint())
    message = r"the weights have 8\d\d,\d\d\d bytes: a program holds at most 700,000; dtype bfloat16 takes about half"
    with pytest.raises(ValueError, match=message):
        vivit.export(ready, tmp_path / "program.stablehlo")
    with pytest.raises(TypeError, match="not callable"):  # those of bfloat16 fit, and the work begins
        vivit.export(ready, tmp_path / "program.stablehlo", dtype="bfloat16")
    assert not os.listdir(tmp_path)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """The demo model, cut in the middle of its weights."""
    folder = Path(shutil.copytree(demo_checkpoint(), tmp_path_factory.mktemp("damaged") / "model"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200_000])
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["-o", "{here}/x.stablehlo", "--platforms", "gpu"],
            "platforms is 'gpu': it must be some of cpu, cuda, rocm, tpu, each",
        ),
        (["-o", "{here}/x.stablehlo", "--platforms", ""], "platforms is '': it must be some of"),
        (["-o", "{here}/x.stablehlo", "--platforms", "cpu,cpu"], "platforms is 'cpu,cpu': it must be some of"),
        (["-o", "{here}/x.onnx", "--to", "onnx", "--platforms", "cpu"], "platforms is 'cpu': ONNX has none"),
        (["-o", "{here}/x.onnx", "--to", "onnx", "--dtype", "bfloat16"], "dtype is 'bfloat16': ONNX Runtime has no"),
        (["-o", "{here}/x.onnx"], "x.onnx must end in .stablehlo"),
        (["-o", "{here}/x.stablehlo", "--batch", "0"], "batch is 0: it must be at least 1"),
        (["-o", "{here}"], "is a folder: name a file"),
        (["-o", "{here}/no/x"], "the folder {here}/no does not exist"),
        (["-o", "{here}/taken.stablehlo"], "taken.stablehlo.json is a folder: name a file"),
        (["-o", "/proc/x.stablehlo"], "/proc/x.stablehlo cannot be written: "),
        (
            ["-o", "{here}/x.stablehlo", "--checkpoint", "{here}/nothing"],
            "nothing does not exist: it must be a folder with",
        ),
        (["-o", "{here}/x.stablehlo", "--checkpoint", "{damaged}"], "model.safetensors"),
    ],
)
def test_an_export_of_bad_input_is_one_line_and_writes_nothing(arguments, message, tmp_path, damaged, capsys):
    (tmp_path / "taken.stablehlo.json").mkdir()
    places = dict(here=tmp_path, damaged=damaged)
    assert main(["export", *(argument.format(**places) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert message.format(**places) in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == ["taken.stablehlo.json"]


@pytest.mark.fast
def test_the_command_says_which_attention_and_which_batches_a_program_has(tmp_path, capsys):
    vivit.save(model(named("vivit-tiny/8x2")), tmp_path / "model")
    command = ["export", "--checkpoint", str(tmp_path / "model"), "-o", str(tmp_path / "program.stablehlo")]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "uint8[b 8 32 32 3] to float32[b 5], for cpu, cuda, tpu" in out
    assert "attention: XLA's operations; a program for tpu alone (--platforms tpu) has the Pallas kernels" in out
    assert "any number of clips, one after the other" in out
    assert "no labels" in out
    assert main([*command, "--platforms", "tpu", "--batch", "2", "--dtype", "bfloat16"]) == 0
    out = capsys.readouterr().out
    assert "uint8[2 8 32 32 3] to float32[2 5], for tpu\nattention: the Pallas kernels\nwrote" in out
