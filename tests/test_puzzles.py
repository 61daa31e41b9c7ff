"""`vivit puzzles`: what solves a puzzle and what does not, how solutions are run, and what is written."""

import csv
import functools
import json
import os
import time
from fractions import Fraction
from pathlib import Path
from pkgutil import resolve_name

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from puzzle_answers import ANSWERS

from vivit.cli.main import main
from vivit.kernels import attention as kernels
from vivit.kernels.dense import norm_dense
from vivit.numerics.hash_dropout import keep
from vivit.puzzles import array_puzzles, grading, runner
from vivit.puzzles.catalogue import PUZZLES
from vivit.puzzles.drawing import drawn
from vivit.puzzles.process import raised
from vivit.puzzles.puzzle import drawn_sizes
from vivit.reference import attention, gradients, layers, positions, relevance, tubelet
from vivit.reference.params import Dense, LayerNorm

BY_NAME = {puzzle.name: puzzle for puzzle in PUZZLES}
NAMES = {"np": np, "jax": jax, "jnp": jnp, "pl": pl, "functools": functools, "Fraction": Fraction}
IMPORTS = """from fractions import Fraction
import functools
import numpy as np
"""
IMPORTS_JAX = IMPORTS + "import jax\nimport jax.numpy as jnp\nfrom jax.experimental import pallas as pl\n"


def of_kernel(qkv, heads, mask=None):
    return kernels.spatial(qkv, heads, mask=mask, interpret=True)


def backward(qkv, out_cotangent, heads):
    return jax.vjp(lambda qkv: of_kernel(qkv, heads), qkv)[1](out_cotangent)[0]


def step(out, total, largest, query, key, value):
    """One block by the reference's weights: they times the sum of exponentials are the exponentials."""
    scores = query @ key.T / query.shape[1] ** 0.5
    new = np.maximum(largest, scores.max(axis=1, keepdims=True))
    block, _ = attention.attend(query, key, value)
    sums = np.exp(scores - new).sum(axis=1, keepdims=True)
    return out * np.exp(largest - new) + block * sums, total * np.exp(largest - new) + sums, new


OURS = {  # our own functions, with the arguments that a puzzle has
    "frame_indices": tubelet.frame_indices,
    "tubelet_embed": lambda video, kernel, bias: tubelet.embed(video, Dense(kernel, bias)),
    "sinusoidal_positions": positions.sinusoidal_1d,
    "inflate": tubelet.inflate,
    "softmax": layers.softmax,
    "attention_masks": array_puzzles.attention_masks,
    "spatial": attention.spatial,
    "temporal": attention.temporal,
    "factorised_dot_product": attention.factorised_dot_product,
    "masked_attention": lambda qkv, heads, mask: attention.joint(qkv, heads, mask=mask),
    "layer_norm_vjp": array_puzzles.layer_norm_vjp,
    "attention_vjp": gradients.spatial_vjp,
    "rollout": relevance.rollout,
    "online_softmax": step,
    "spatial_kernel": of_kernel,
    "masked_kernel": of_kernel,
    "two_heads": lambda qkv, heads: kernels.joint(qkv, heads, interpret=True),
    "spatial_kernel_vjp": backward,
    "hash_dropout": lambda first, second, counter, rate: keep((first, second), counter, rate),
    "norm_dense": lambda tokens, scale, bias, kernel, dense_bias, epsilon: norm_dense(
        tokens, LayerNorm(scale, bias), Dense(kernel, dense_bias), epsilon, "float32", interpret=True
    ),
}


def outcome(name, function):
    """The grade of a function in this process, as one in a process of its own has it."""
    puzzle = BY_NAME[name]
    run = function if puzzle.rules is None else runner.traced(function, puzzle.rules)

    def call(*arguments):
        try:
            with (
                np.errstate(all="ignore"),
                jax.numpy_rank_promotion("allow"),
                jax.numpy_dtype_promotion("standard"),
            ):
                return runner.results(run(*arguments))
        except Exception as error:
            raise raised(*runner.described(error, Path(puzzle.file))) from None

    return grading.grade(puzzle, call, seed=3)


def answer(name, change=("", "")):
    code, changed = ANSWERS[name].code, ANSWERS[name].code.replace(*change)
    assert change == ("", "") or changed != code
    module = {**NAMES}
    exec(changed, module)
    return module[name]


def write(folder, name, code, imports=IMPORTS):
    puzzle = BY_NAME[name]
    (folder / puzzle.file).write_text((IMPORTS_JAX if puzzle.rules else imports) + code)


def graded(folder, *names, seconds=30.0):
    return list(grading.check(folder, 0, [BY_NAME[name] for name in names], seconds))


@pytest.mark.parametrize("name", OURS)
def test_our_own_source_solves_a_puzzle(name):
    assert outcome(name, OURS[name]) == {"outcome": "solved"}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_students_answer_solves_a_puzzle_and_three_typical_mistakes_do_not(name):
    assert outcome(name, answer(name)) == {"outcome": "solved"}
    assert len(ANSWERS[name].mistakes) == 3
    for mistake in ANSWERS[name].mistakes:
        found = outcome(name, answer(name, mistake))
        assert found["outcome"] == "unsolved", mistake
        assert found["reason"]
        assert all(len(line) <= 76 for line in found["drawing"])


def test_there_are_puzzles_for_all_and_a_source_of_ours_for_each():
    assert ANSWERS.keys() == BY_NAME.keys()
    assert [puzzle.number for puzzle in PUZZLES] == list(range(1, len(PUZZLES) + 1))
    for puzzle in PUZZLES:
        assert callable(resolve_name(puzzle.ours)), puzzle.ours
        assert callable(runner.function_of(puzzle.template, puzzle.name))
        assert "\n\nHint: " in puzzle.template.read_text()


def test_what_is_wrong_is_said_with_the_smallest_case_and_drawn_beside_what_is_right():
    found = outcome("inflate", answer("inflate", (" / time", "")))
    assert found["reason"].startswith("equality with the oracle: error ")
    assert found["case"].startswith("time 2, height ")
    assert found["actual"] == pytest.approx(2 * found["expected"])
    assert found["error"] > found["bound"]
    assert found["drawing"][1].split() == ["actual", "expected"]
    assert any(f"[{found['actual']:.3g}]" in line and f"[{found['expected']:.3g}]" in line for line in found["drawing"])


@pytest.mark.fast
def test_a_drawing_is_a_window_around_the_worst_number():
    expected = np.arange(2 * 9 * 8).reshape(2, 9, 8)
    actual = expected.astype(float)
    actual[1, 8, 4] = np.nan
    lines = drawn(actual, expected, (1, 8, 4))
    assert lines[0] == "[1, 4:9, 3:6]"
    assert lines[-1].split() == ["139", "[nan]", "141", "139", "[140]", "141"]
    assert len(lines) == 7
    assert drawn(np.array([True, False]), np.array([True, True]), (1,))[-1].split() == [
        "True",
        "[False]",
        "True",
        "[True]",
    ]
    assert max(map(len, drawn(-expected * 1.234567e-300, expected * 1e300, (0, 0, 0)))) <= 76


@pytest.mark.fast
def test_sizes_come_from_the_seed_small_ones_first_and_differ_on_every_axis():
    for seed in range(30):
        sizes = drawn_sizes(array_puzzles.CORE, seed)
        assert sizes == drawn_sizes(array_puzzles.CORE, seed)
        assert all(len(set(each)) == 5 for each in sizes)
        assert all(len(set(axis)) > 1 for axis in zip(*sizes, strict=True))
        assert np.prod(sizes[0]) <= np.prod(sizes[-1])
    assert len({tuple(drawn_sizes(array_puzzles.CORE, seed)) for seed in range(30)}) == 30


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("tiled_softmax", lambda scores, block: jax.nn.softmax(scores), "no pl.pallas_call is made"),
        ("tiled_softmax", lambda scores, block: answer("tiled_softmax")(scores, len(scores)), "the grid has one step"),
        ("two_heads", answer("two_heads", ANSWERS["two_heads"].mistakes[2]), "an axis of 64 occurs in the kernel"),
        ("softmax", lambda scores: "a text", "it returns a str: it must be an array of numbers"),
        ("softmax", lambda scores: None, "it returns None: it must return an array"),
        ("attention_masks", lambda t, s: (np.ones((2, 2)), np.ones((3, 2))), "they must differ in the last axis alone"),
        (
            "break_layer_norm",
            lambda: np.full((1, 2, 3), 4.0),
            "floats [n c] of at most a million, with axes of",
        ),
        (
            "break_layer_norm",
            lambda: np.array([[np.inf, 1.0]]),
            "floats [n c] of at most a million, with axes of",
        ),
        ("break_online_softmax", lambda: np.ones((1, 2)), "it returns 1 arrays: it must return a tuple of 3"),
        ("kill_softmax", lambda softmax: 1 / 0, "it raises ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_no_answer_is_said_in_words(name, function, message):
    found = outcome(name, function)
    assert found["outcome"] == "unsolved"
    assert message in found["reason"]


@pytest.mark.parametrize("scale", [3.0, 1e5])
def test_one_block_of_keys_does_not_show_the_fault_of_the_online_softmax(scale):
    given = scale * np.random.default_rng(0).standard_normal((3, 2, 4))
    assert "does not show the fault" in outcome("break_online_softmax", lambda: tuple(given))["reason"]


@pytest.mark.parametrize("size", [0.0, 0.3, 1e6])
def test_one_number_does_not_show_the_fault_of_the_layer_norm(size):
    assert "does not show the fault" in outcome("break_layer_norm", lambda: np.array([[size]]))["reason"]


MISBEHAVIOUR = {  # a file, and what is said of it
    "import os\ndef inflate(k, time): os._exit(3)": "its process exited with code 3",
    "import os, signal\ndef inflate(k, time): os.kill(os.getpid(), signal.SIGSEGV)": "was ended by signal 11",
    "def inflate(k, time):\n    while True: pass": "the time limit of 2 seconds is used up",
    "import sys\nsys.exit('bye')": "inflate raises SystemExit: bye (line 2)",
    "def inflate(k, time:": "SyntaxError: '(' was never closed, line 1",
    "import os, time\ndef inflate(k, _):\n    if os.fork() == 0: os.setsid(), time.sleep(9)\n    os._exit(4)": (
        "the time limit of 2 seconds is used up"
    ),
    "x = 1": "inflate raises NameError: 04_inflate.py has no function inflate",
    "def inflate(k, time): return k.sum() / 0 + [][1]": "inflate raises IndexError: list index out of range (line 1)",
    "def inflate(k, time):\n    print('k is', k.shape)\n    return k": "inflate returns float32[",
    "def inflate(k, time): return b'\\0' * 2**70": "inflate raises OverflowError",
    "import numpy as np\ndef inflate(k, time): return np.zeros(2**40)": "inflate raises MemoryError",
}
COPIES = {
    "from vivit.reference.tubelet import inflate": "it imports vivit.reference.tubelet",
    "if False:\n    import vivit": "it imports vivit",
    "import importlib\ndef inflate(k, time): return importlib.import_module('viv' + 'it.models')": "reads a file",
    "import helper\ndef inflate(k, time): return helper.inflate(k, time)": "it imports vivit",
    "def inflate(k, time):\n    try: return open(SOURCE).read()\n    except ImportError: return k": "tubelet.py",
}


@pytest.mark.parametrize("code", MISBEHAVIOUR)
def test_a_solution_that_misbehaves_is_unsolved_and_the_reason_is_said(code, tmp_path):
    (tmp_path / "04_inflate.py").write_text(code)
    (found,) = graded(tmp_path, "inflate", seconds=2.0)
    assert (found.outcome, found.points) == ("unsolved", 0)
    assert MISBEHAVIOUR[code] in found.reason
    assert ("k is (" in found.printed) == ("print" in code)
    assert os.listdir(tmp_path) == ["04_inflate.py"]


def state_of(process):
    """R, S, Z…; "" where there is no such process."""
    try:
        return Path("/proc", process, "stat").read_text().split()[2]
    except OSError:  # none, or it ends while it is read
        return ""


def test_what_a_solution_has_started_is_ended_with_it(tmp_path):
    started = tmp_path / "started"
    code = "import subprocess\ndef inflate(k, time):\n    child = subprocess.Popen(['sleep', '600'])\n"
    write(tmp_path, "inflate", f"{code}    open({str(started)!r}, 'w').write(str(child.pid))\n    return k\n")
    (found,) = graded(tmp_path, "inflate")
    assert found.outcome == "unsolved"
    end = time.monotonic() + 20  # a signal is sent at once, and heard when the process is next scheduled
    while (state := state_of(started.read_text())) not in ("", "Z") and time.monotonic() < end:
        time.sleep(0.01)
    assert state in ("", "Z")


@pytest.mark.parametrize("code", COPIES)
def test_a_solution_that_uses_vivit_is_marked_as_copied(code, tmp_path):
    (tmp_path / "helper.py").write_text("from vivit.reference.tubelet import inflate\n")
    (tmp_path / "04_inflate.py").write_text(f"SOURCE = {tubelet.__file__!r}\n{code}")
    (found,) = graded(tmp_path, "inflate")
    assert (found.outcome, found.points) == ("copied", 0)
    assert COPIES[code] in found.reason


@pytest.mark.fast
def test_puzzles_are_written_and_graded_by_the_command(tmp_path, capsys):
    folder = tmp_path / "mine"
    assert main(["puzzles", "start", str(folder)]) == 0
    assert f"wrote {len(PUZZLES)} puzzles" in capsys.readouterr().out
    assert sorted(os.listdir(folder)) == [puzzle.file for puzzle in PUZZLES]
    write(folder, "inflate", ANSWERS["inflate"].code)
    write(folder, "kill_softmax", ANSWERS["kill_softmax"].code)
    assert main(["puzzles", "check", str(folder), "--only", "inflate"]) == 0
    out = capsys.readouterr().out
    assert "Seed 0: 1 of 1 solved, 1 of 1 points" in out
    assert "inflate: compare yours with vivit.reference.tubelet.inflate" in out
    write(folder, "inflate", ANSWERS["inflate"].code.replace(" / time", ""))
    assert main(["puzzles", "check", str(folder), "--only", "fl", "--seed", "5"]) == 1
    out = capsys.readouterr().out
    assert "smallest case that fails: time 2" in out
    assert "FAIL" in out
    assert "Seed 5: 0 of 1 solved, 0 of 1 points" in out


def test_a_class_is_graded_into_one_table_and_points_as_json(tmp_path, capsys):
    for name in ("ada", "emmy"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "kill_softmax", ANSWERS["kill_softmax"].code)
    write(tmp_path / "ada", "inflate", ANSWERS["inflate"].code)
    (tmp_path / "emmy" / "04_inflate.py").write_bytes(BY_NAME["inflate"].template.read_bytes())
    (tmp_path / "empty").mkdir()
    folders = [str(tmp_path / name) for name in ("ada", "emmy", "empty")]
    table = tmp_path / "points.csv"
    assert main(["puzzles", "check", *folders, "--only", "l", "-o", str(table)]) == 1
    out = capsys.readouterr().out
    assert "emmy" in out
    with table.open(newline="") as file:
        rows = {Path(row["folder"]).name: row for row in csv.DictReader(file)}
    assert [rows[name]["inflate"] for name in rows] == ["solved", "not begun", "missing"]
    assert [rows[name]["points"] for name in rows] == ["3", "2", "0"]
    assert rows["ada"]["rollout"] == "missing"
    assert main(["puzzles", "check", folders[0], "--only", "inflate", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["folders"]
    assert (found["points"], found["possible"]) == (1, 1)
    assert found["puzzles"][0]["outcome"] == "solved"
    assert found["puzzles"][0]["seconds"] > 0


def test_a_kernel_is_graded_in_a_process_of_its_own(tmp_path):
    write(tmp_path, "tiled_softmax", ANSWERS["tiled_softmax"].code)
    (found,) = graded(tmp_path, "tiled_softmax", seconds=60.0)
    assert (found.outcome, found.points) == ("solved", 2), found.reason


@pytest.mark.fast
def test_a_folder_with_files_stays_as_it_is(tmp_path, capsys):
    (tmp_path / "05_softmax.py").write_text("mine")
    assert main(["puzzles", "start", str(tmp_path)]) == 2
    assert "exists already: name a new folder or an empty one" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such"], "no-such is not a folder: vivit puzzles start no-such writes one"),
        ([".", "--only", "dance"], "--only is 'dance': no puzzle has it in its name"),
        ([".", "--seed", "-1"], "--seed is -1: it must be from 0 to"),
        ([".", "--seconds", "nan"], "--seconds is nan: it must be more than 0"),
        ([".", "-o", "points.txt"], "points.txt must end in .csv or .json"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["puzzles", "check", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.fast
def test_an_empty_folder_has_no_puzzles_and_no_points(tmp_path, capsys):
    assert main(["puzzles", "check", str(tmp_path), "--only", "softmax"]) == 1
    out = capsys.readouterr().out
    assert "has no puzzle: vivit puzzles start DIR writes them" in out
    assert "0 of 5 solved, 0 of 10 points" in out
