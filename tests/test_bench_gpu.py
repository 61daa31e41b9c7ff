"""bench gpu: what it runs, in which time, and what it writes, with programs that end at once."""

import json

import pytest

from bench import gpu
from bench.gpu import Part


def program(code):
    return ("-c", code)


@pytest.fixture
def chosen(monkeypatch):
    """Replaces the parts."""

    def choose(*parts):
        monkeypatch.setattr(gpu, "parts", lambda *, small: list(parts))

    return choose


@pytest.mark.fast
def test_every_part_has_a_process_and_the_report_says_what_it_printed(chosen, tmp_path, capsys):
    rows = "import sys, json; json.dump({'rows': [{'ms': 1}]}, open(sys.argv[-1], 'w')); print('a table')"
    chosen(Part("checks", program("print('12 passed')")), Part("attention", (*program(rows), "bench")))
    assert gpu.main(["-o", str(tmp_path / "report"), "--small"]) == 0
    report = json.loads((tmp_path / "report" / "gpu.json").read_text())
    assert [report[name]["printed"] for name in ("checks", "attention")] == ["12 passed\n", "a table\n"]
    assert report["attention"]["rows"] == [{"ms": 1}]
    text = (tmp_path / "report" / "gpu.md").read_text()
    assert "### checks: exit code 0" in text
    assert "a table" in text
    assert capsys.readouterr().out == text
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["gpu.json", "gpu.md"]


@pytest.mark.fast
def test_what_fails_or_is_late_is_said_and_the_exit_code_is_1(chosen, tmp_path):
    slow, wrong = program("import time; time.sleep(60)"), program("raise SystemExit('no such thing')")
    chosen(Part("wrong", wrong), Part("slow", slow), Part("later", slow))
    assert gpu.main(["-o", str(tmp_path), "--small", "--minutes", "0.02"]) == 1
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["wrong"]["code"] == 1
    assert "no such thing" in report["wrong"]["printed"]
    assert report["slow"]["code"] is None is report["later"]["code"]
    assert "### later: the time was up" in (tmp_path / "gpu.md").read_text()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ([], "-o is missing: it must be a folder for the report"),
        (["-o", "x"], "the device is "),
        (["-o", "x", "--small", "--minutes", "-1"], "--minutes is -1.0: it must be positive"),
    ],
)
def test_a_bad_option_is_one_line(options, fault, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as raised:
        gpu.main(options)
    assert raised.value.code == 2
    assert fault in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.fast
@pytest.mark.parametrize("small", [False, True])
def test_the_parts_are_programs_that_exist(small):
    from bench.__main__ import PROGRAMS

    checks, *benches = gpu.parts(small=small)
    assert (gpu.ROOT / checks.command[-1]).is_file()
    assert {part.command[2] for part in benches} <= PROGRAMS.keys()
