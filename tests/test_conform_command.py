"""`vivit conform` and the pytest plugin: what is found, what is counted, exit codes, bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vivit.cli.main import main

IMPORT = "from students import Student\n"
WRONG = """
class Wrong(Student):
    def temporal(self, qkv, heads, *, mask=None):
        return 2 * super().temporal(qkv, heads, mask=mask)

wrong = Wrong()
"""
UNABLE = """
DTYPES = ("bfloat16",)

def supports(shape, heads):
    return shape[1] == 1

def temporal(qkv, heads):
    raise NotImplementedError("no time")
"""
STILL = ["--only", "temporal, still videos", "--examples", "1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with modules."""
    (tmp_path / "student_module.py").write_text(f"{IMPORT}student = Student()\n{WRONG}")
    (tmp_path / "unable_module.py").write_text(UNABLE)
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    (tmp_path / "needy_module.py").write_text("import torch.no_such_part\n")
    (tmp_path / "odd_module.py").write_text("spatial = 3\n")
    (tmp_path / "odd_dtypes.py").write_text("DTYPES = 'float16'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.mark.fast
def test_a_right_implementation_passes_and_the_report_states_the_seed(folder, capsys):
    assert main(["conform", "student_module:student", *STILL, "--seed", "7", "-o", "report.json"]) == 0
    out = capsys.readouterr().out
    assert "student_module:student, seed 7 (vivit" in out
    assert out.splitlines()[-1] == "Of 1 properties 1 passed, 0 failed, 0 unsupported, 0 absent."
    report = json.loads((folder / "report.json").read_text())
    assert (report["implementation"], report["seed"], report["passed"]) == ("student_module:student", 7, True)
    assert [row["outcome"] for row in report["rows"]] == ["passed"]
    assert report["versions"]["numpy"]


@pytest.mark.fast
def test_a_wrong_one_fails_with_its_case_index_values_and_bound(folder, capsys):
    arguments = ["conform", f"{folder}/student_module.py:wrong", "--only", "temporal, equality", "--examples", "2"]
    assert main([*arguments, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    row, unsupported = report["rows"]
    assert row["outcome"] == "failed"
    assert row["case"].startswith("b 2, t 3, s 5, 4 heads of 7, float32, seed ")
    assert row["error"] > row["bound"] > 0
    assert row["actual"] == pytest.approx(2 * row["expected"], rel=1e-4)
    assert len(row["worst"]) == 4
    assert (unsupported["outcome"], unsupported["reason"]) == ("unsupported", "DTYPES lacks bfloat16")
    assert main([*arguments, "--verbose"]) == 1
    out = capsys.readouterr().out
    assert "FAIL temporal, equality with the oracle, float32: failed with b 2, t 3" in out


@pytest.mark.fast
def test_what_is_absent_or_unsupported_is_counted_and_if_nothing_ran_the_run_fails(folder, capsys):
    assert main(["conform", "unable_module", "--only", "temporal, masked tokens not read, bfloat16", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["outcome"], row["cases"], row["unsupported"]) == ("unsupported", 0, 6)
    assert row["reason"] == "its shape is not supported"
    assert main(["conform", "unable_module", "--only", "still videos, bfloat16"]) == 1
    assert "Nothing ran: every property is unsupported or absent." in capsys.readouterr().out


@pytest.mark.fast
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.such"], "'no.such' is not a module that can be imported: No module named 'no'"),
        (["no_such.py"], "'no_such.py' cannot be imported: ValueError: it must be a file"),
        (["broken_module"], "'broken_module' cannot be imported: ZeroDivisionError: division by zero"),
        (["student_module:teacher"], "'student_module:teacher' cannot be imported: AttributeError"),
        (["odd_module"], "odd_module: spatial is 3: it must be a function"),
        (["odd_dtypes"], "odd_dtypes: DTYPES is 'float16': it must hold names of float32, bfloat16"),
        (["needy_module"], "torch is not installed"),
        (["student_module:student", "--only", "nothing"], "--only is 'nothing': no property has it"),
        (["student_module:student", "--examples", "0"], "--examples is 0: it must be from 1 to"),
    ],
)
def test_bad_input_is_one_line(arguments, message, folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    assert main(["conform", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "seed", "code", "said"),
    [
        ("student_module:student", "7", 0, "1 passed"),
        ("student_module:wrong", "7", 1, "temporal, equality with the oracle, float32: failed with b 2, t 3"),
        ("unable_module", "0", 1, "nothing ran"),
        (None, "0", 4, "--implementation is missing"),
    ],
)
def test_the_plugin_makes_a_test_of_each_property(name, seed, code, said, folder):
    command = [sys.executable, "-m", "pytest", "-p", "vivit.conformance.plugin", "-p", "no:cacheprovider"]
    command += ["--pyargs", "vivit.conformance", "-k", "temporal-equality and float32", f"--hypothesis-seed={seed}"]
    command += ["-rs"] if name is None else ["-rs", f"--implementation={name}"]
    path = f"{Path(__file__).parent}:{Path(__file__).parent.parent}:."
    done = subprocess.run(command, env={"PYTHONPATH": path, "PATH": "", "JAX_PLATFORMS": "cpu"}, text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr
    assert name is None or f"conformance: {name}, seed {seed}" in done.stdout
