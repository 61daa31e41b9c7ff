"""Commands in a terminal: odd encodings, closed streams, Ctrl-C, and the texts of help."""

import argparse
import io
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import vivit
from vivit.cli import process
from vivit.cli.main import _parser, main
from vivit.cli.parser import Parser
from vivit.explanation.compute import class_by_name
from vivit.jitted import check_stages
from vivit.training.recipe import recipe

DEMO = Path(vivit.__file__).parent / "demo" / "zoom-in.mp4"
COMMANDS = (
    "audit",
    "bulk",
    "classify",
    "convert",
    "data",
    "evaluate",
    "explain",
    "export",
    "features",
    "info",
    "probe",
    "puzzles",
    "train",
)
# says "ready" when Ctrl-C is understood, which is before anything of weight is imported
READY = """
import vivit.cli.process
quiet = vivit.cli.process.quiet_libtpu
vivit.cli.process.quiet_libtpu = lambda: (print("ready", flush=True), quiet())
"""
VIVIT = READY + "from vivit.__main__ import main; main()"


def parsers():
    """The parser of every command by its name."""
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {name: parser.filled() for name, parser in commands.choices.items()}


def ascii_output(monkeypatch):
    """Standard output in ASCII, and the bytes that come out."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii", write_through=True))
    return written


@pytest.mark.fast
@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_can_be_read_in_ascii_and_ends_with_an_example(command, monkeypatch):
    written = ascii_output(monkeypatch)
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = written.getvalue().decode("ascii")
    assert "\\u" not in text
    example = re.split(r"\nexamples?:\n", text)[-1].splitlines()
    assert example
    assert all(line.startswith(f"  vivit {command} ") or line == f"  vivit {command}" for line in example)
    assert all(len(line) <= 80 for line in example)


@pytest.mark.fast
def test_names_outside_of_ascii_are_written_in_ascii(tmp_path, monkeypatch):
    written = ascii_output(monkeypatch)
    assert main(["convert", "demo", str(tmp_path / "modèle 日本.npz"), "--to", "npz"]) == 0
    assert rb"mod\xe8le \u65e5\u672c.npz: npz" in written.getvalue()


@pytest.mark.fast
@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_a_stream_that_is_closed_is_no_error(name, monkeypatch):
    monkeypatch.setattr(sys, name, None)
    assert main(["info", "vivit-b/16x2"]) == 0
    getattr(sys, name).close()


def test_nothing_goes_to_a_file_that_has_the_number_of_a_closed_stream(tmp_path):
    command = f'{sys.executable} -m vivit convert demo "{tmp_path}/port.npz" --to npz <&- >&- 2>&-'
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 0
    with np.load(tmp_path / "port.npz") as port:
        assert all(np.isfinite(port[name]).all() for name in port)


@pytest.mark.fast
@pytest.mark.parametrize("command", [["info"], ["info", "--json"], ["--version"], []])
def test_a_reader_that_has_closed_before_any_output_is_no_error(command, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(command) == 0


def test_nothing_is_printed_before_our_own_output_where_there_is_no_tpu():
    if find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed")
    hidden = ("JAX_PLATFORMS", *(name for name in os.environ if name.startswith("TPU_")))
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-m", "vivit", "classify", str(DEMO), "--views", "1x1", "--top", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith(str(DEMO))
    assert [line[:15] for line in done.stderr.splitlines()] == ["vivit classify:"]


@pytest.mark.fast
def test_libtpu_is_told_nothing_where_there_is_a_tpu_or_the_user_has(monkeypatch):
    for name in process.NO_TPU:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(process, "glob", lambda pattern: ["/dev/accel0"] * pattern.startswith("/dev/accel"))
    process.quiet_libtpu()
    assert not process.NO_TPU.keys() & os.environ.keys()
    monkeypatch.setattr(process, "glob", lambda pattern: [])
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "worker-7")
    process.quiet_libtpu()
    assert os.environ["TPU_WORKER_HOSTNAMES"] == "worker-7"
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "")  # is restored after the test, as it was


def started(code, *arguments):
    """A process that has said that it is ready; it hears SIGINT also where tests run in a shell's background."""
    pipe = subprocess.PIPE
    hearing = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    child = subprocess.Popen([sys.executable, "-c", hearing + code, *arguments], stdin=pipe, stdout=pipe, stderr=pipe)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


@pytest.mark.parametrize("moment", [0, 0.03, 0.3, 1, 2])
@pytest.mark.parametrize("what", ["-", "fifo", "file"])
def test_ctrl_c_is_exit_130_and_one_line_at_any_moment(moment, what, tmp_path):
    names = {"-": "-", "fifo": str(tmp_path / "fifo"), "file": str(DEMO)}
    os.mkfifo(tmp_path / "fifo")
    child = started(VIVIT, "features", names[what], "-o", str(tmp_path / "x.npz"), "--clip-stride", "1")
    time.sleep(moment)
    child.send_signal(signal.SIGINT)
    with child:
        assert child.stderr is not None
        error = child.stderr.read().decode()  # to the end of the process, with its standard input open
    if what == "file" and child.returncode == 0:
        return  # it was done before
    assert child.returncode == 130, error
    assert error.splitlines()[-1] in ("vivit: interrupted", "vivit features: interrupted")
    assert "Traceback" not in error
    assert not (tmp_path / "x.npz").exists()


def waiting(body):
    """A process that runs a command of our own under process.run."""
    return started(
        f"import vivit.cli.process\nvivit.cli.process.GRACE = 0.3\n{body}\nvivit.cli.process.run('x', command)"
    )


def test_ctrl_c_ends_a_process_whose_threads_never_do():
    child = waiting("""
from concurrent.futures import ThreadPoolExecutor
import time
def command():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 600)
        print("ready", flush=True)
        time.sleep(600)
""")
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=60) == (b"", b"x: interrupted\n")
    assert child.returncode == 130


def test_a_command_with_its_own_ctrl_c_handler_is_not_ended():
    child = waiting("""
import signal, time
def command():
    told = []
    def hear(*_):
        told.append(1)
        signal.signal(signal.SIGINT, before)
    before = signal.signal(signal.SIGINT, hear)
    time.sleep(1)
    print("ready", flush=True)
    while not told:
        time.sleep(0.01)
    time.sleep(1)
    print("saved", flush=True)
    return 0
""")
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=60) == (b"saved\n", b"")
    assert child.returncode == 0


@pytest.mark.fast
def test_bare_vivit_is_its_help_and_the_version_is_that_of_the_package(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vivit {vivit.__version__}\n"
    assert "__version__" in dir(vivit)


@pytest.mark.fast
def test_no_flag_can_be_abbreviated_and_json_means_one_thing():
    for name, parser in parsers().items():
        assert not parser.allow_abbrev, name
        for action in parser._actions:
            assert "--json" not in action.option_strings or action.nargs == 0, name


@pytest.mark.fast
def test_an_abbreviated_flag_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["classify", "x.mp4", "--view", "1x1"])
    assert ended.value.code == 2
    assert "vivit classify: unrecognized arguments: --view 1x1; did you mean '--views'?" in capsys.readouterr().err


@pytest.mark.fast
@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: vivit.named("vivit-b/16x2-fea"), "vivit-b/16x2-fe"),
        (lambda: vivit.named("ViViT-B/16x2-fpd"), "vivit-b/16x2-fdp"),
        (lambda: recipe("k400-b-ef"), "k400-b-fe"),
        (lambda: recipe("carousell"), "carousel"),
        (lambda: check_stages(("encoder/1/ot",), ("tokens", "encoder/1/out")), "encoder/1/out"),
        (lambda: class_by_name("abseilin", (("dance", "abseiling"),)), "abseiling"),
    ],
)
def test_an_unknown_name_gives_a_suggestion(call, meant):
    with pytest.raises(ValueError, match=f"did you mean '{meant}'\\? it must be one of"):
        call()


@pytest.mark.fast
def test_a_name_unlike_all_others_gives_no_suggestion():
    with pytest.raises(ValueError, match="no recipe is named 'zzz': it must be one of"):
        recipe("zzz")


@pytest.mark.fast
def test_a_long_word_is_not_repeated(capsys):
    with pytest.raises(SystemExit):
        Parser(prog="x").parse_args(["--" + "y" * 10**5])
    assert len(capsys.readouterr().err) < 300
