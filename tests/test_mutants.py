"""bench mutants: which changes there are, that they are made at import alone, and how results go on and are counted."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import mutants
from bench.mutation import mutants as mutants_of
from bench.mutation import mutated

ROOT = Path(__file__).parent.parent

SOURCE = '''"""A docstring of 3 < 4."""

from x import y


@decorated(static_argnames="a")
def function(a: int = 1, *, b: "str | None" = None) -> int:
    """Another, 5."""
    if a < 2 and not b:
        raise ValueError(f"{a} + 1")
    record(a, name="n")
    a += -1.5
    return max(a, key(b=True)) if a is None else [x for x in "ab" if x != 0]
'''
CHANGES = {
    "def function(a: int = 1, *, b: \"str | None\" = None) -> int:": ["1 → 2"],
    "if a < 2 and not b:": ["condition negated", "and → or", "< → <=", "2 → 3", "without not"],
    'record(a, name="n")': ["statement left out"],
    "a += -1.5": ["+ → -", "without -", "1.5 → 3.0"],
    'return max(a, key(b=True)) if a is None else [x for x in "ab" if x != 0]': [
        "result → None", "is → is not", "max → min", "without b=", "True → False", "'ab' → ''", "!= → ==", "0 → 1",
    ],
}  # fmt: skip


@pytest.mark.fast
def test_every_kind_of_change_is_made_and_what_has_no_result_is_left_alone():
    found = mutants_of(SOURCE, "m.py")
    by_line = {}
    for mutant in found:
        by_line.setdefault(mutant.line, []).append(mutant.change)
    assert {line: sorted(changes) for line, changes in by_line.items()} == {
        line: sorted(changes) for line, changes in CHANGES.items()
    }
    assert {mutant.function for mutant in found} == {"function"}


@pytest.mark.fast
def test_each_mutant_differs_from_the_module_in_one_place_and_from_the_others():
    texts = [ast.unparse(mutated(SOURCE, index)) for index in range(len(mutants_of(SOURCE, "m.py")))]
    original = ast.unparse(ast.parse(SOURCE))
    assert len({*texts, original}) == len(texts) + 1
    with pytest.raises(ValueError, match="there is no mutant 99"):
        mutated(SOURCE, 99)


@pytest.mark.fast
def test_alike_changes_of_one_line_are_told_apart_and_a_moved_line_keeps_its_key():
    source = "def f(a):\n    return a + 1 + 1\n"
    found = [mutant for mutant in mutants_of(source, "m.py") if mutant.change == "1 → 2"]
    assert [mutant.nth for mutant in found] == [0, 1]
    moved = [mutant for mutant in mutants_of("\n" + source, "m.py") if mutant.change == "1 → 2"]
    assert list(map(mutants.key, moved)) == list(map(mutants.key, found))
    assert moved != found


@pytest.mark.fast
def test_a_module_is_changed_at_import_under_every_link_and_its_file_is_not():
    path = ROOT / "reference" / "costs.py"
    before = path.read_bytes()
    (index,) = (i for i, mutant in enumerate(mutants.of_file("reference/costs.py")) if mutant.change == "4 → 5")
    code = (
        "import bench.mutant_hook, vivit; from vivit.reference.costs import _projections, _mlp; "
        "print(_projections(1, 1), _mlp(1, 1, 1))"
    )
    command = [sys.executable, "-c", code]
    for environment, printed in (({}, "4 2\n"), ({"VIVIT_MUTANT": f"{index} {path}"}, "5 2\n")):
        done = subprocess.run(
            command, cwd=ROOT, env={"PATH": ""} | environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == printed
    assert path.read_bytes() == before


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one file, whose tests see one of two functions; it has four mutants, one of them equal."""
    (tmp_path / "m.py").write_text("def seen(a):\n    return a < 2\n\n\ndef hidden(a):\n    return -a\n")
    (tmp_path / "test_m.py").write_text(
        "from m import seen\n\n\ndef test_seen():\n    assert [seen(a) for a in (1, 2, 3)] == [True, False, False]\n"
    )
    (tmp_path / "equal.toml").write_text(
        '[[equal]]\nfile = "m.py"\nfunction = "hidden"\nline = "return -a"\nchange = "without -"\nreason = "unused"\n'
    )
    (tmp_path / "bench").symlink_to(ROOT / "bench")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "EQUAL_FILE", tmp_path / "equal.toml")
    monkeypatch.setattr(mutants, "GROUPS", {"one": mutants.Group(0.9, {"m.py": "test_m.py"})})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def outcome(report):
    return {(one["line"], one["change"]): one["equal"] or one["found"] for one in report["results"]}


def test_mutants_that_tests_see_are_found_others_survive_and_equal_ones_do_not_run(project, capsys):
    results = project / "results.jsonl"
    arguments = ["--results", str(results), "--jobs", "1"]
    assert mutants.main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    expected = {
        ("return a < 2", "result → None"): True,
        ("return a < 2", "< → <="): True,
        ("return a < 2", "2 → 3"): True,
        ("return -a", "result → None"): False,
        ("return -a", "without -"): "unused",
    }
    assert outcome(report) == expected
    assert report["score"] == 3 / 4
    lines = results.read_text().splitlines(keepends=True)
    assert len(lines) == 4

    results.write_text("".join(lines[:2]) + lines[2][:20])  # killed while it wrote the third
    assert mutants.main([*arguments, "--json"]) == 0
    assert outcome(json.loads(capsys.readouterr().out)) == expected
    lines = results.read_text().splitlines()
    assert len(lines) == 3 + 2
    json.loads(lines[-1])

    assert mutants.main([*arguments, "--at-least", "0.8"]) == 1
    shown = capsys.readouterr().out
    assert "m.py:6" in shown
    assert "75.0%" in shown


def test_the_seed_draws_the_mutants(project, capsys):
    drawn = set()
    for seed in "abcdefgh":
        mutants.main(["--count", "1", "--minutes", "1e-9", "--seed", seed, "--json"])
        report = json.loads(capsys.readouterr().out)
        assert report["seed"] == seed
        drawn.add(str(report["results"]))
    (project / "test_m.py").write_text("def test_m():\n    assert False\n")
    with pytest.raises(ValueError, match=r"pytest test_m.py ends with 1 where nothing is changed"):
        mutants.main(["--count", "5"])


def test_a_mutant_that_never_ends_is_found_in_time(project, monkeypatch, capsys):
    (project / "m.py").write_text("def seen(a):\n    while a < 2:\n        a += 1\n    return a < 3\n")
    monkeypatch.setattr(mutants, "STARTING", 2.0)
    (project / "equal.toml").write_text("equal = []\n")
    (project / "test_m.py").write_text("from m import seen\n\n\ndef test_seen():\n    assert seen(1)\n")
    assert mutants.main(["--json", "--jobs", "2"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert outcome(report)["a += 1", "+ → -"] is True


def test_the_tests_that_reach_the_changed_function_run_first(project):
    (project / "test_m.py").write_text(
        "from m import hidden, seen\n\n\n"
        "def note(name):\n    with open('ran', 'a') as ran:\n        ran.write(name)\n\n\n"
        "def test_hidden():\n    note('h')\n    hidden(1)\n\n\ndef test_seen():\n    note('s')\n    seen(1)\n"
    )
    (project / "equal.toml").write_text("equal = []\n")
    assert mutants.main(["--jobs", "1", "--count", "100", "--json"]) == 0
    ran = (project / "ran").read_text()
    assert ran[:2] == "hs"  # nothing is changed
    assert sorted(ran[at : at + 2] for at in range(2, len(ran), 2)) == ["hs", "hs", "sh", "sh", "sh"]


@pytest.mark.fast
def test_an_entry_of_equal_mutants_is_void_once_its_line_is_edited(project):
    assert list(mutants.equal().values()) == ["unused"]
    (project / "m.py").write_text("def hidden(a):\n    return - a\n")
    with pytest.raises(ValueError, match=r"equal.toml has a mutant that is none of m.py: 'return -a'"):
        mutants.equal()


@pytest.mark.fast
def test_the_committed_entries_are_of_mutants_and_every_file_has_tests():
    assert all(mutants.equal().values())
    for group in mutants.GROUPS.values():
        for file, tests in group.tests.items():
            assert (ROOT / file).is_file(), file
            named = [word for word in tests.split() if word.startswith("tests/")]
            assert named
            assert all((ROOT / name).is_file() for name in named), tests
    for folder in ("reference", "kernels"):
        assert {f"{folder}/{path.name}" for path in (ROOT / folder).glob("*.py")} == set(mutants.GROUPS[folder].tests)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--groups", "nothing"], "invalid choice: 'nothing'"),
        (["--file", "vivit/x.py"], "--file is vivit/x.py: it must be one of reference/attention.py"),
        (["--jobs", "0"], "--jobs is 0: it must be positive"),
        (["--minutes", "0"], "--minutes is 0.0: it must be positive"),
    ],
)
def test_a_bad_option_is_one_line(options, fault, capsys):
    with pytest.raises(SystemExit) as raised:
        mutants.main(options)
    assert raised.value.code == 2
    assert fault in capsys.readouterr().err.splitlines()[-1]
