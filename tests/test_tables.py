"""Tables fit the terminal: a long row becomes several lines, and no text is cut."""

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from argparse import Namespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from bench import harness, schedule_table
from bench.remaining import remaining, seconds_left
from bench.schedule import Job
from vivit.cli.table import Table, lines

pytestmark = pytest.mark.fast
WORDS = st.text("abcdefg 日", min_size=1, max_size=30).map(str.strip).filter(bool)
NUMBERS = st.integers(0, 10**9).map("{:,}".format)


@st.composite
def tables(draw):
    figures, rows = draw(st.integers(1, 9)), draw(st.integers(0, 3))
    columns = ("name", *(f"c{index}" for index in range(figures)), "")
    cells = st.tuples(WORDS, *(NUMBERS for _ in range(figures)), st.sampled_from(["pass", "FAIL"]))
    return Table(columns, [draw(cells) for _ in range(rows)])


@given(tables(), st.integers(40, 200))
def test_a_table_keeps_to_the_width_and_shows_every_cell_whole(table, width):
    shown = [line.plain for line in lines(table, width)]
    assert max(map(cell_len, shown)) <= width
    words = "\n".join(shown).split()
    for cell in (cell for row in (table.columns, *table.rows) for cell in row):
        assert all(words.count(word) for word in cell.split())
    heads = [line for line in shown if line.endswith(("pass", "FAIL"))]
    assert [(line.startswith(row[0]), line[-4:]) for line, row in zip(heads, table.rows, strict=True)] == [
        (True, row[-1]) for row in table.rows
    ]


@given(tables())
def test_outside_a_terminal_every_row_is_one_line(table):
    assert len(lines(table, None)) == 2 + len(table.rows)


def test_a_row_that_is_too_short_ends_with_a_remark_in_a_line_of_its_own():
    table = Table(("what", "seconds", "MB"), [("a", "1.0", "2"), ("b", "it does not compile")])
    assert [line.plain for line in lines(table, 80)] == [
        "what  seconds  MB", "─────────────────", "a         1.0   2", "b", "  it does not compile"
    ]  # fmt: skip


def in_terminal(columns, *arguments):
    """What a command writes to a terminal so wide."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"}
    command = [sys.executable, "-m", "vivit", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as child:
        os.close(theirs)
        found = b""
        try:
            while part := os.read(ours, 1 << 16):
                found += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert child.returncode == 0
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", found.decode()).replace("\r", "").splitlines()


def test_info_fits_eighty_columns_and_cuts_no_number():
    shown = in_terminal(80, "info", "vivit-b/16x2")
    assert max(map(len, shown[1:])) <= 80
    done = subprocess.run([sys.executable, "-m", "vivit", "info", "--json"], capture_output=True, check=True)
    for row in json.loads(done.stdout)[:5]:
        text = "\n".join(shown)
        assert row["name"] in text
        assert f"{row['parameters']:,}" in text
        assert f"{row['multiply_adds'] / 1e9:.4g}" in text


def test_the_tables_of_bench_schedule_fit_eighty_columns_and_say_why_there_is_no_schedule():
    job = Job("v3", "float32", "factorised_dot_product", "core pallas", "forward+backward")
    schedule = dict(cycles=1e9, unknown=1, busy={"XLA other": 1e9}, vmem_bytes=2**24, temporary_bytes=1e10)
    fault = "Unsupported matmul RHS type on target: vector<128x128xbf16> in a kernel with a long name"
    results = {job: schedule, job._replace(implementation="core splash"): fault}
    (table,) = schedule_table.tables(results)
    shown = [line.plain for line in lines(table, 80)]
    assert any(fault in line for line in shown)
    assert max(len(line) for line in shown if fault not in line) <= 80
    whole = {**schedule, "kernel_cycles": 1e8, "kinds": {}, "held_bytes": 1e9}
    (table,) = schedule_table.model_tables({Job("v3", "bfloat16", "-fdp", "ours", "forward"): whole})
    assert max(len(line.plain) for line in lines(table, 80)) <= 80


def test_a_bench_prints_its_table_or_its_json_and_writes_the_same(tmp_path, capsys):
    table = Table(("what", "seconds"), [("a", "1.0")])
    harness.report([table], ["a note"], Namespace(json=False, output=tmp_path / "x.json"), {"rows": [1]})
    assert capsys.readouterr().out.splitlines() == ["what  seconds", "─────────────", "a         1.0", "a note"]
    harness.report([table], ["a note"], Namespace(json=True, output=None), {"rows": [1]})
    assert json.loads(capsys.readouterr().out) == {"rows": [1]} == json.loads((tmp_path / "x.json").read_text())


def test_the_remaining_time_is_printed_at_once_and_follows_the_speed(capsys):
    with remaining("compiled", [300.0] * 4, 2) as done:
        assert capsys.readouterr().err == "0 of 4 compiled, 2 at a time, about 10 min left\n"
        done(300.0)
    assert seconds_left(1200, 0, 0, 2) == 600
    assert seconds_left(1200, 600, 300, 2) == 300
    assert 300 < seconds_left(1200, 600, 600, 2) < 600  # twice as slow
    assert seconds_left(1200, 1200, 900, 2) == 0
