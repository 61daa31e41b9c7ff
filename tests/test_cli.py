"""The command line as a user runs it: output, JSON, exit codes, one-line errors."""

import hashlib
import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from videos import write_video

from vivit import encoder
from vivit.audit import variants
from vivit.cli import info
from vivit.cli.main import main
from vivit.reference.config import NAMES
from vivit.reference.params import leaves
from vivit.versions import source

PAPER = [88_954_000, 115_062_928, 117_319_312, 88_952_464, 86_696_080]


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "clip.mkv"
    write_video(path, 20)
    return path


@pytest.mark.fast
def test_an_audit_of_the_demo_video_passes_and_writes_its_table(demo_path, tmp_path, capsys):
    report = tmp_path / "variants.json"
    assert main(["audit", "--model", "factorised_dot_product", "--verbose", "-o", str(report)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "All 6 variants agree with the reference, in float32 and bfloat16."
    assert demo_path.name in out
    written = json.loads(report.read_text())
    assert written["video"] == str(demo_path)
    assert written["sha256"]["video"] == hashlib.sha256(demo_path.read_bytes()).hexdigest()
    assert written["hashed"].keys() == written["sha256"].keys() == {"video", "pixels"}
    assert written["vivit"] == source()
    assert len(written["rows"]) == 12
    for row in written["rows"]:
        assert row["passed"]
        assert 0 < row["error"] <= row["bound"]
        assert row["milliseconds"] > 0
        assert row["compiler_multiply_adds"] == pytest.approx(row["formula_multiply_adds"], rel=0.1)
        for column in (row["variant"], f"{row['parameters']:,}", f"{row['error']:.1e}"):
            assert column in out
    assert os.listdir(tmp_path) == ["variants.json"]


def test_the_audit_covers_every_model_embedding_and_pooling():
    names = list(variants.variants())
    for embedding in ("tubelet", "sampled frames"):
        for model in ("spatio_temporal", "factorised_encoder"):
            for pooling in ("token", "first", "mean", "max", "sum"):
                assert f"{model}, {embedding}, {pooling}" in names
        for pooling in ("mean", "max", "sum"):
            assert f"factorised_dot_product, {embedding}, {pooling}" in names
            for order in ("time_space", "space_time"):
                assert f"factorised_self_attention, {embedding}, {pooling}, {order}" in names
        assert f"factorised_encoder, {embedding}, token, frames averaged" in names
    base = variants.variants("base", "spatio_temporal")
    assert {config.channels for config in base.values()} == {768}
    assert {config.model for config in base.values()} == {"spatio_temporal"}


def test_an_audit_that_fails_exits_1_and_names_the_first_stage_that_departs(clip_path, monkeypatch, capsys):
    right = encoder.mlp_residual

    def wrong(tokens, *args):
        return right(tokens, *args).at[..., 0].add(0.01)

    monkeypatch.setattr(encoder, "mlp_residual", wrong)
    encoder.encode.clear_cache()
    try:
        assert main(["audit", str(clip_path), "--model", "factorised_dot_product"]) == 1
    finally:
        encoder.encode.clear_cache()
    out = capsys.readouterr().out
    assert "FAIL" in out
    assert "FAIL factorised_dot_product, tubelet, mean, float32: first departs at encoder/1/" in out


def test_random_weights_fill_every_leaf_and_bfloat16_holds_them_exactly():
    config = variants.variants()["factorised_encoder, tubelet, token"]
    for path, leaf in leaves(variants.random_params(config)):
        assert leaf.dtype == np.float32
        assert leaf.std() > 0.01, path
        assert np.array_equal(np.asarray(jnp.asarray(leaf, jnp.bfloat16), np.float32), leaf)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit", "missing.mp4"], "vivit audit: missing.mp4 is not a file: it must be a video"),
        (["audit", "--size", "huge"], "vivit audit: argument --size: invalid choice: 'huge'"),
        (["audit", "--model", "vit"], "vivit audit: argument --model: invalid choice: 'vit'"),
        (["audit", "-o", "no/such/folder/x.json"], "vivit audit: no/such/folder/x.json: the folder"),
        (["info", "vivit-q/1x1"], "'vivit-q/1x1': did you mean 'vivit-l/16x2'? it must be one of vivit-b/16x2"),
        (["dance"], "vivit: argument COMMAND: invalid choice: 'dance'"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(arguments, message):
    done = subprocess.run([sys.executable, "-m", "vivit", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_reader_that_stops_early_is_no_error():
    command = f"{sys.executable} -m vivit info --json | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[", "")


def test_an_audit_of_too_short_a_clip_says_so(tmp_path, capsys):
    short = tmp_path / "short.mkv"
    write_video(short, 9)
    assert main(["audit", str(short)]) == 2
    assert "short.mkv has 9 frames: 8 frames at stride 2 from frame 0 on need 15" in capsys.readouterr().err


@pytest.mark.fast
def test_info_prints_the_papers_five_rows(capsys):
    assert main(["info", "vivit-b/16x2"]) == 0
    out = capsys.readouterr().out
    assert all(f"{parameters:,}" in out for parameters in PAPER)
    assert main(["info", "vivit-b/16x2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["parameters"] for row in rows] == PAPER
    for row in rows:
        assert row["multiply_adds"] / 1e9 == pytest.approx(row["paper_multiply_adds_billions"], rel=0.01)
        assert row["config"]["classes"] == [400]


def test_info_of_a_suffix_is_one_row_and_without_a_name_all(capsys):
    assert [one.name for one in info.family("vivit-l/16x2-fsa")] == ["vivit-l/16x2-fsa"]
    assert [one.name for one in info.family("ViViT-B/32x2")] == [
        f"vivit-b/32x2{suffix}" for suffix in ("", "-fe", "-fsa", "-fdp", "-fe-average")
    ]
    assert [one.name for one in info.family()] == list(NAMES)
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in NAMES)
