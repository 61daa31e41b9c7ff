"""The outputs of every command: rejected before a model is loaded, written, or sent through a pipe."""

import io
import json
import os
import socket
import stat
import sys

import checkpoints
import jax.export
import numpy as np
import pytest
from videos import Coding, encode, scene

import vivit
from vivit.cli.main import main
from vivit.demo import demo_checkpoint
from vivit.explanation import saving

DEMO = str(demo_checkpoint())
VIDEO, OTHER = "clip.mp4", "other.mp4"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with two videos, a checkpoint with its labels, data, and what is no file; it is where commands run."""
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / VIDEO, scene(16, 24, 24), Coding("ffv1", "bgr0"))
    encode(tmp_path / OTHER, scene(16, 24, 24), Coding("ffv1", "bgr0"))
    os.link(VIDEO, "linked.npz")
    os.link(VIDEO, "linked.stablehlo")
    os.link(VIDEO, "linked.html")
    os.link(VIDEO, "anim.png")
    os.link(VIDEO, "linked.json")
    os.link(VIDEO, "linked.csv")
    os.symlink(VIDEO, "soft.npz")
    os.makedirs("data/test/pan-left")
    os.link(VIDEO, "data/test/pan-left/a.mp4")
    (tmp_path / "labels.json").write_text(json.dumps([list("abcdefg")]))
    (tmp_path / "table.json").write_text(json.dumps({"path": VIDEO, "label": "pan-left", "split": "test"}))
    os.symlink(DEMO, "model")
    os.mkfifo("pipe.npz")
    os.symlink("/dev/full", "full.npz")
    os.symlink("/dev/null", "null.html")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.json")
    os.mkdir("folder.npz")
    return tmp_path


@pytest.fixture
def state(here):
    """All that is in the folder, before and after."""

    def state():
        found = {}
        for path in sorted(here.rglob("*")):
            link, file = os.lstat(path), path.stat() if path.is_file() else None
            content = None if file is None else (file.st_ino, file.st_size, file.st_mtime_ns)
            found[str(path.relative_to(here))] = link.st_mode, link.st_ino, content
        return found

    return state


def refused(arguments, capsys):
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    shown = capsys.readouterr()
    assert code == 2
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return shown.err


REFUSED = [
    (f"features {OTHER} -o {VIDEO}", "clip.mp4 must end in .npz"),  # what the shell makes of -o *.mp4
    (f"features {VIDEO} -o {VIDEO}", "clip.mp4 is read: name another file"),
    (f"features {VIDEO} -o linked.npz", "linked.npz is read, as clip.mp4"),
    (f"features {VIDEO} -o soft.npz", "soft.npz is read, as clip.mp4"),
    ("features . -o linked.npz", "linked.npz is read, as"),
    (f"features {VIDEO} -o /dev/full", "/dev/full is a device: name a file"),
    (f"features {VIDEO} -o full.npz", "full.npz is a device"),
    (f"features {VIDEO} -o pipe.npz", "pipe.npz is a pipe"),
    (f"features {VIDEO} -o folder.npz", "folder.npz is a folder"),
    (f"features {VIDEO} -o out", "out must end in .npz"),
    (f"features {VIDEO} -o model/model.safetensors --checkpoint model", "is read"),
    (f"features {VIDEO} -o ''", "'' is no path"),
    ("features '' -o x.npz", "'' is no path"),
    (f"features {VIDEO} -o x.npz --checkpoint ''", "'' is no path"),
    ("export -o b.mp4", "b.mp4 must end in .stablehlo"),
    (f"export -o {VIDEO}", "clip.mp4 must end in .stablehlo"),
    ("export -o linked.stablehlo --labels linked.stablehlo", "is read"),
    ("export -o /dev/null", "/dev/null is a device"),
    (f"explain {VIDEO} -o linked.html", "linked.html is read, as clip.mp4"),
    (f"explain {VIDEO} -o null.html", "null.html is a device"),
    ("explain anim.png --png", "anim.png is read"),
    (f"explain {VIDEO} --png {VIDEO}", "clip.mp4 is read"),
    (f"explain {OTHER} --png x.mp4", "x.mp4 must end in .html or .htm or .png"),
    (f"explain {VIDEO} --png -", "--png is -, standard output, which is for the page only"),
    (f"explain {VIDEO} --png ''", "'' is no path"),
    (f"audit {VIDEO} -o linked.json", "linked.json is read, as clip.mp4"),
    (f"audit {VIDEO} -o socket.json", "socket.json is a socket"),
    (f"audit {VIDEO} -o x.txt", "x.txt must end in .json"),
    (f"audit {VIDEO} -o -", "- is standard output, which this output cannot use"),
    (f"audit {VIDEO} --checkpoint model -o model/config.json", "config.json is read"),
    ("audit ''", "is no path"),
    ("evaluate table.json --checkpoint model -o table.json", "table.json is read"),
    ("evaluate data --checkpoint model -o linked.json", "linked.json is read, as data/test/pan-left/a.mp4"),
    ("evaluate data --checkpoint model --labels labels.json -o labels.json", "labels.json is read"),
    ("evaluate data --checkpoint model --confusion x.jpg", "x.jpg must end in .png"),
    ("evaluate data --checkpoint model --confusion anim.png", "anim.png is read, as data/test/pan-left/a.mp4"),
    ("evaluate data --checkpoint model --confusion -", "- is standard output"),
    ("evaluate table.json --checkpoint model --predictions x.txt", "x.txt must end in .csv"),
    ("evaluate data --checkpoint model --predictions linked.csv", "linked.csv is read, as data/test/pan-left/a.mp4"),
    ("evaluate '' --checkpoint model", "'' is no path"),
    ("probe --data data --checkpoint model -o model", "model is read: name another"),
    (f"probe --data data --checkpoint model -o {VIDEO}", "clip.mp4 is a file: it must be a folder"),
    ("probe --data data --checkpoint model -o -", "- is standard output, which is not a folder"),
    (f"convert demo {VIDEO} --to npz", "clip.mp4 must end in .npz"),
    ("convert demo full.npz --to npz", "full.npz is a device"),
    ("convert linked.npz linked.npz --to npz", "linked.npz is read"),
    (f"convert demo {VIDEO}", "clip.mp4 is a file: it must be a folder"),
    ("convert model model", "model is read: name another"),
    (f"convert {DEMO} model", "model is read, as"),
    ("convert demo pipe.npz", "pipe.npz is a pipe: it must be a folder"),
    ("convert demo -", "- is standard output, which is not a folder"),
    ("convert demo - --to npz", "- is standard output, which this output cannot use"),
    ("convert model ''", "'' is no path"),
    ("convert '' x", "'' is no path"),
    ("classify ''", "'' is no path"),
    ("train ''", "'' is no path"),
    (f"classify {VIDEO} --labels ''", "'' is no path"),
    ("data carousel ''", "'' is no path"),
    (f"data carousel {VIDEO}", "clip.mp4 exists already"),
]


@pytest.mark.fast
@pytest.mark.parametrize(("command", "message"), REFUSED, ids=[command for command, _ in REFUSED])
def test_no_command_overwrites_an_input_or_a_device(command, message, state, capsys, monkeypatch):
    before = state()
    if "--labels ''" not in command and "--checkpoint ''" not in command and "convert ''" not in command:
        monkeypatch.setattr("vivit.checkpoints.load.load", None)  # it is said before a model is loaded
    assert message in refused(["" if word == "''" else word for word in command.split()], capsys)
    assert state() == before


def test_a_destination_that_became_no_file_is_rejected_when_it_is_written(state, capsys, monkeypatch):
    right = saving.page

    def late(explanation):
        os.symlink(VIDEO, "late.html")
        return right(explanation)

    monkeypatch.setattr(saving, "page", late)
    before = state()
    assert "late.html is read, as clip.mp4" in refused(["explain", VIDEO, "-o", "late.html", "--views", "1x1"], capsys)
    os.unlink("late.html")
    assert state() == before


@pytest.mark.fast
def test_a_closed_standard_output_is_rejected(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["features", VIDEO, "-o", "-"]) == 2
    assert "- is standard output, which is closed: name a file" in capsys.readouterr().err
    sys.stdout.close()


def test_features_and_programs_and_pages_go_through_a_pipe(capsysbinary, here):
    names = set(os.listdir())
    assert main(["features", VIDEO, "-o", "-", "--stride", "1"]) == 0
    shown = capsysbinary.readouterr()
    with np.load(io.BytesIO(shown.out)) as found:
        assert found["videos"].tolist() == [VIDEO]
    assert b"wrote -: prelogits, frames of 1 videos" in shown.err
    assert main(["export", "-o", "-", "--platforms", "cpu"]) == 0
    shown = capsysbinary.readouterr()
    assert jax.export.deserialize(bytearray(shown.out)).platforms == ("cpu",)
    assert b"-.json" not in shown.err
    assert main(["explain", VIDEO, "-o", "-", "--png", "picture.png", "--views", "1x1"]) == 0
    shown = capsysbinary.readouterr()
    assert shown.out.startswith(b"<!DOCTYPE html>")
    assert shown.out.rstrip().endswith(b"</html>")
    assert b"wrote picture.png" in shown.err
    assert set(os.listdir()) == names | {"picture.png"}


@pytest.mark.fast
def test_a_link_is_followed_and_stays_a_link(here):
    os.mkdir("far")
    os.symlink("far/out.npz", "out.npz")
    for _ in range(2):
        assert main(["features", VIDEO, "-o", "out.npz"]) == 0
        assert os.path.islink("out.npz")
        assert os.listdir("far") == ["out.npz"]


def test_files_of_convert_have_the_mode_of_the_umask(here):
    before = os.umask(0o027)
    try:
        assert main(["convert", "demo", "copy"]) == 0
        assert main(["convert", "demo", "tree.npz", "--to", "npz"]) == 0
        vivit.save(checkpoints.model(vivit.named("vivit-tiny/8x2")), "port", to="huggingface")
        assert main(["data", "carousel", "videos", "--train", "4", "--validation", "4", "--test", "4"]) == 0
    finally:
        os.umask(before)
    inside = (path for name in ("port", "copy", "videos") for path in (here / name).rglob("*"))
    for path in (here / "tree.npz", *inside):
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640), path
    assert stat.S_IMODE(os.stat("copy").st_mode) == stat.S_IMODE(os.stat("videos").st_mode) == 0o750


def test_every_command_accepts_names_that_are_not_utf_8(here, capsys):
    name = os.fsdecode(b"b\xff.mp4")
    os.rename(VIDEO, name)
    out = os.fsdecode(b"o\xff")
    assert main(["classify", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["videos"][0]["video"] == name
    assert main(["features", name, "-o", f"{out}.npz"]) == 0
    with np.load(f"{out}.npz") as found:
        assert found["videos"].tolist() == [name]
    assert main(["explain", name, "-o", f"{out}.html", "--png", "--views", "1x1"]) == 0
    assert "b\N{REPLACEMENT CHARACTER}.mp4" in (here / f"{out}.html").read_text("utf-8")
    assert (here / f"{out}.png").read_bytes().startswith(b"\x89PNG")
    assert main(["audit", name, "--checkpoint", "model", "-o", f"{out}.json"]) == 0
    assert json.loads((here / f"{out}.json").read_text("utf-8"))["video"] == name
    capsys.readouterr()
