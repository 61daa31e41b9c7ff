"""bench device and bench attention: the whole path on a CPU, small, with kernels in the interpreter."""

import io
import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from accuracy import assert_same
from cores import Problem
from strategies import CORES

from bench import attention, device, device_programs, peers
from bench.chips import CHIPS, chip_of
from bench.device_predictions import predictions
from bench.harness import markdown, product_dtype
from vivit.cli.table import Table
from vivit.reference import attention as reference
from vivit.reference import gradients

ROOT = Path(__file__).parent.parent
ONLY = (  # a check and a program of each kind
    "core spatial, dropout, float32", "residual_mlp, erf, float32", "temporal bfloat16 forward",
    "layer plain temporal bfloat16 gradient", "scanned model 2 bfloat16 forward",
)  # fmt: skip


def bench(*arguments, **options):
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


@pytest.mark.thorough
def test_the_whole_path_runs_on_a_cpu_and_says_that_its_kernels_were_interpreted(tmp_path):
    done = bench("device", "-o", tmp_path / "report", "--only", *ONLY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(os.listdir(tmp_path / "report")) == ["device.json", "device.md"]
    report = json.loads((tmp_path / "report" / "device.json").read_text())
    assert (report["kernels"], report["sizes"], report["chip"]) == ("interpreted", "small", "v5e")
    assert [check["what"] for check in report["checks"]] == ["core spatial, dropout", "residual_mlp, erf"]
    assert all(check["passed"] and 0 < check["error"] <= check["bound"] for check in report["checks"])
    assert len(report["rows"]) == 3 + 2 + 1 + 1
    for row in report["rows"]:
        assert row["timing"]["passed"]
        assert 0 < row["timing"]["fastest"] <= row["timing"]["milliseconds"] <= row["timing"]["slowest"]
        if find_spec("libtpu") is not None:
            assert row["schedule"]["cycles"] > 0
    text = (tmp_path / "report" / "device.md").read_text()
    assert "No TPU here: kernels ran in Pallas's interpreter, on small sizes." in text
    for kind in ("Against the float64 reference", "Attention cores", "Attention layers", "Models"):
        assert f"### {kind}" in text


def test_what_is_not_done_in_time_is_left_out_and_what_fails_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(device_programs, "program", lambda *_, **__: 1 / 0)
    text = ("core pallas spatial bfloat16",)
    assert device.main(["-o", str(tmp_path / "failed"), "--only", *text]) == 1
    report = json.loads((tmp_path / "failed" / "device.json").read_text())
    assert [row["timing"] for row in report["rows"]] == ["division by zero"] * 2
    monkeypatch.setattr(device_programs, "program", lambda *_, **__: time.sleep(1.5))
    assert device.main(["-o", str(tmp_path / "late"), "--minutes", "0.01", "--only", *text]) == 0
    report = json.loads((tmp_path / "late" / "device.json").read_text())
    assert [row["timing"] for row in report["rows"]] == [device.NO_TIME] * 2
    assert all(isinstance(row["schedule"], str) for row in report["rows"])


@pytest.mark.fast
def test_a_models_gradient_is_compared_with_the_plain_graphs():
    plain, ours = device_programs.jobs("v5e", ("model 2 bfloat16 gradient",))
    session, kept = device.Session(True, True, CHIPS["v5e"], time.monotonic()), {}
    gradient = [np.ones((2, 3), np.float32), np.full(5, 2, np.float32)]
    assert device._compare(ours, gradient, kept, session) == (None, True)
    assert device._compare(plain, gradient, kept, session) == (0, True)
    near, far = ([leaf * factor for leaf in gradient] for factor in (1.01, 1.2))
    assert device._compare(ours, near, kept, session) == (pytest.approx(0.01, rel=1e-3), True)
    assert device._compare(ours, far, kept, session) == (pytest.approx(0.2, rel=1e-3), False)


@pytest.mark.fast
def test_a_kernel_that_is_wrong_fails_its_check(monkeypatch):
    from bench import device_checks

    (check,) = (
        one
        for one in device_checks.checks(small=True, interpret=True)
        if one.what == "model vivit-tiny/8x2" and one.dtype == "float32"
    )
    exact = check.expected()
    assert device_checks.judge(check, lambda *_: exact, lambda *_: exact).passed
    wrong = device_checks.judge(check, lambda *_: exact * 1.001, lambda *_: exact)
    assert not wrong.passed
    assert "exceeds bound" in wrong.message


@pytest.mark.fast
@pytest.mark.parametrize("backend", ["tpu", "gpu"])
def test_a_float32_product_is_judged_as_bfloat16_on_tpu_and_gpu_unless_it_is_asked_to_be_exact(backend, monkeypatch):
    assert product_dtype("float32") == "float32"
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    assert (product_dtype("float32"), product_dtype("float32", "highest")) == ("bfloat16", "float32")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("kind", "chip"),
    [("TPU v3", "v3"), ("TPU v5 lite", "v5e"), ("TPU v6 lite", "v6e"), ("TPU v5", None), ("cpu", None)],
)
def test_a_device_is_known_by_its_kind(kind, chip):
    assert chip_of(kind) == CHIPS.get(chip)


@pytest.mark.fast
def test_every_kind_of_program_is_there_ours_after_the_plain_one():
    jobs = device_programs.jobs("v5e", ())
    assert len(jobs) == len(set(jobs)) == 2 * (4 * 2 * 3 + 4 * 2 * 2) + 4 * 2 * 2
    titles = list(map(device_programs.title, jobs))
    assert titles.index("plain model 2 bfloat16 forward") < titles.index("scanned model 2 bfloat16 forward")
    assert titles.index("scanned model 2 bfloat16 forward") < titles.index("plain model 1 bfloat16 forward")


@pytest.mark.fast
def test_calls_are_timed_in_rows_long_enough_for_the_clock(monkeypatch):
    now = [0.0]
    calls = []

    def call():
        now[0] += 0.03
        calls.append(now[0])
        return np.zeros(1)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    assert device.rounds(call, 5) == pytest.approx([0.03] * 5)
    assert len(calls) == 1 + 3 * 5


@pytest.mark.fast
@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ([], "-o is missing: it must be a folder for the report"),
        (["-o", "x", "--minutes", "0"], "--minutes is 0.0: it must be positive"),
        (["-o", "x", "--only", "nothing"], "no program's name contains nothing"),
        (["-o", "x", "--chip", "v9"], "invalid choice: 'v9'"),
    ],
)
def test_a_bad_option_of_device_is_one_line(options, fault, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as raised:
        device.main(options)
    assert raised.value.code == 2
    assert fault in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.fast
@pytest.mark.parametrize("shape", ["1,2,3,4", "1,2,3,10,4", "1,0,3,8,4", "1,2,3,8,x", ""])
def test_a_shape_that_is_none_is_one_line(shape, capsys):
    with pytest.raises(SystemExit) as raised:
        attention.main(["--shape", shape])
    assert raised.value.code == 2
    message = "is no shape: it must be B,T,S,C,H, five positive integers, C a multiple of H"
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"argument --shape: {shape!r} {message}")


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_one_shape_is_checked_timed_and_traced(backend, tmp_path, monkeypatch, capsys):
    """On a CPU every row has a process, here this one; another device belongs to one process."""

    def in_turns(commands, rounds):
        assert (backend, rounds) == ("cpu", 1)
        found = {}
        for name, (*program, folder) in commands.items():
            assert program[:3] == ["-m", "bench", "attention"]
            attention.main([*program[3:], folder])
            found[name] = json.loads(capsys.readouterr().out)
        return found

    monkeypatch.setattr(attention, "in_turns", in_turns)
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    chosen = ["--workload", "spatial", "--dtype", "float32", "--runs", "1", "--rounds", "1", "--shape", "2,3,5,8,4"]
    code = attention.main([*chosen, "--trace", str(tmp_path / "trace"), "-o", str(tmp_path / "x.json")])
    assert code == 0, capsys.readouterr().out
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [(row["implementation"], row["direction"]) for row in rows] == [
        ("xla", "forward"), ("xla", "forward+backward"), ("plain", "forward"), ("plain", "forward+backward")
    ]  # fmt: skip
    assert all(0 < row["result"]["error"] < 1e-5 for row in rows)
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
    assert f"wrote {tmp_path / 'trace'}" in capsys.readouterr().out


@pytest.mark.fast
@pytest.mark.parametrize(
    ("backend", "dtype", "options", "expected"),
    [
        ("cpu", "bfloat16", {}, ["xla", "plain"]),
        ("cpu", "float32", {"interpret": True}, ["pallas", "xla", "plain"]),
        ("tpu", "float32", {}, ["pallas", "xla", "plain"]),
        ("gpu", "float32", {}, ["xla", "plain"]),
        ("gpu", "bfloat16", {"peers": True}, ["cudnn", "xla", "plain", "sdpa"]),
    ],
)
def test_each_device_has_its_implementations(backend, dtype, options, expected, monkeypatch):
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    assert attention._implementations(dtype, Namespace(**{"interpret": False, "peers": False} | options)) == expected


@pytest.mark.parametrize("core", CORES)
def test_pytorchs_attention_does_the_same_work_forward_and_backward(core):
    pytest.importorskip("torch")
    qkv, cotangent, heads, _ = Problem((2, 3, 5, 4, 6)).arrays(core)
    out, gradient = peers.attention(core, qkv, cotangent, heads, "float32", backward=True)()
    exact = [np.float64(values) for values in (qkv, cotangent)]
    assert_same(out.detach().numpy(), getattr(reference, core)(exact[0], heads), 1e-5)
    assert_same(gradient.numpy(), getattr(gradients, f"{core}_vjp")(*exact, heads), 1e-5)


@pytest.mark.fast
def test_a_table_in_markdown_has_every_cell_and_escapes_what_would_end_one():
    table = Table(("what", "ms", "MB"), [("a|b", "1", "2"), ("c", "it does not fit")], title="Title")
    assert markdown(table).splitlines() == [
        "### Title", "", "| what | ms | MB |", "|---|---:|---:|", "| a\\|b | 1 | 2 |", "| c | it does not fit |  |"
    ]  # fmt: skip


@pytest.mark.fast
def test_a_compiler_that_ends_is_a_line_and_the_next_program_gets_another(monkeypatch):
    pytest.importorskip("libtpu")
    from bench import device_predictions

    answers = iter(["import sys; sys.exit(3)", "input(); print('{\"cycles\": 5}', flush=True); input()"])

    def start(*_):
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return subprocess.Popen([sys.executable, "-c", next(answers)], **pipes)

    monkeypatch.setattr(device_predictions, "_start", start)
    jobs = device_programs.jobs("v3", ("core pallas spatial bfloat16",))
    with predictions(jobs, small=True, at_once=1) as wait:
        found = wait(60)
    assert found == {jobs[0]: "the compiler ended with exit code 3", jobs[1]: {"cycles": 5}}


def notebook_cells():
    notebook = json.loads((ROOT / "bench" / "device.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert all(cell.keys() >= {"id", "cell_type", "metadata", "source"} for cell in notebook["cells"])
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.fast
@pytest.mark.parametrize("project", ["", "https://example.org/project.git"])
def test_the_notebook_installs_the_project_runs_the_command_and_shows_its_report(
    project, tmp_path, monkeypatch, capsys
):
    install, measure, show = notebook_cells()
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: ran.append(command))

    class Process:
        def __init__(self, command, cwd, **_):
            ran.append(command)
            self.stdout = io.StringIO("a line of the report\n")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.chdir(tmp_path if project else ROOT / "bench")
    if project:
        with pytest.raises(ValueError, match="PROJECT is empty"):
            exec(install, {})
    names = {}
    exec(install.replace('PROJECT = ""', f"PROJECT = {project!r}"), names)
    assert names["folder"] == (tmp_path / "project" if project else ROOT)
    cloned = [["git", "clone", "--depth", "1", project, str(tmp_path / "project")]] if project else []
    assert ran == [
        *cloned,
        [sys.executable, "-m", "pip", "install", "--quiet", "--editable", f"{names['folder']}[tpu,train]"],
    ]
    exec(measure, names)
    assert ran[-1][1:] == ["-m", "bench", "device", "-o", "report/"]
    assert capsys.readouterr().out == "a line of the report\n"
    assert 'folder / "report/device.md"' in show
