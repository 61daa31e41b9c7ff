"""Output files: written atomically, with the umask's mode, never over an input or something that is no file."""

import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vivit.files import atomic
from vivit.files.atomic import atomic_dir, check_folder, check_writable, working_folder, write_file, write_text

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def a_device(path):
    Path(path).symlink_to("/dev/full")


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)


KINDS = {"a folder": os.mkdir, "a pipe": os.mkfifo, "a device": a_device, "a socket": a_socket}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("linked", [False, True])
def test_destinations_that_are_no_regular_files_are_rejected_before_the_work_and_when_written(kind, linked):
    KINDS[kind]("taken.npz")
    name = "taken.npz"
    if linked:
        os.symlink("taken.npz", "link.npz")
        name = "link.npz"
    before = os.lstat(name)
    for refused in (check_writable, lambda path: write_text(path, "new")):
        with pytest.raises(ValueError, match=f"{name} is {kind}: name a file"):
            refused(name)
    assert os.lstat(name) == before
    assert {*os.listdir()} == {"taken.npz", name}


def test_the_device_itself_stays_a_device():
    for device in ("/dev/full", "/dev/null"):
        with pytest.raises(ValueError, match=f"{device} is a device: name a file"):
            write_text(device, "new")
        assert stat.S_ISCHR(os.stat(device).st_mode)


def the_same(there, other):
    Path(other).unlink(missing_ok=True)
    return there


def hard_linked(there, other):
    os.link(there, other)
    return other


def soft_linked(there, other):
    os.symlink(there, other)
    return other


@pytest.mark.parametrize("alias", [the_same, hard_linked, soft_linked, lambda there, other: f"./{there}"])
def test_an_input_under_any_name_is_rejected_as_output(alias):
    Path("video.npz").write_text("film")
    name = alias("video.npz", "other.npz")
    for refused in (check_writable, lambda path, inputs: write_text(path, "new", inputs=inputs)):
        with pytest.raises(ValueError, match=r"npz is read.*: name another file to write"):
            refused(name, inputs=["missing.mp4", "video.npz"])
    assert Path("video.npz").read_text() == "film"
    check_writable("third.npz", inputs=["video.npz"])


def test_standard_input_is_an_input_too(monkeypatch):
    Path("video.npz").write_text("film")
    with open("video.npz") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(ValueError, match=r"video.npz is read, as -"):
            check_writable("video.npz", inputs=["-"])
    monkeypatch.setattr(sys, "stdin", None)
    check_writable("video.npz", inputs=["-"])


def test_the_suffixes_of_a_name_and_of_its_link_target_must_match_the_format():
    for name in ("x", "x.mp4", ".npz", "x.npz.gz"):
        with pytest.raises(ValueError, match=r"must end in .npz"):
            check_writable(name, suffixes=(".npz",))
    check_writable("X.NPZ", suffixes=(".npz",))
    Path("film.mp4").write_text("film")
    os.symlink("film.mp4", "x.npz")
    with pytest.raises(ValueError, match=r"film.mp4 must end in .npz"):
        check_writable("x.npz", suffixes=(".npz",))


def test_the_empty_string_is_no_path():
    for refused in (check_writable, check_folder, lambda path: write_text(path, "new")):
        with pytest.raises(ValueError, match="'' is no path: it must name a file or folder"):
            refused("")


def test_links_are_followed_also_to_files_that_do_not_exist_yet(here):
    (here / "far").mkdir()
    (here / "far/old.txt").write_text("old")
    for name in ("old.txt", "new.txt"):
        os.symlink(f"far/{name}", name)
        check_writable(name)
        write_text(name, "written")
        assert os.path.islink(name)
        assert (here / "far" / name).read_text() == "written"
    os.symlink("far/folder", "folder")
    with atomic_dir("folder") as folder:
        (folder / "x").touch()
    assert os.path.islink("folder")
    assert os.listdir("far/folder") == ["x"]
    os.symlink("loop", "loop")
    with pytest.raises(ValueError, match="loop cannot be written: Too many levels"):
        check_writable("loop")


@pytest.mark.parametrize("length", [245, 255])
def test_names_as_long_as_the_system_allows_are_written(length):
    name = "a" * (length - 4) + ".txt"
    check_writable(name)
    write_text(name, "written")
    assert os.listdir() == [name]
    with pytest.raises(ValueError, match="a path has at most 4,095, a name 255"):
        check_writable("a" * 256)


def for_its_owner_alone(path):
    """As libraries write that put another file in the place of the one they were given."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def test_files_and_folders_have_the_mode_that_the_umask_gives(umask):
    Path("old").touch()
    os.chmod("old", 0o600)
    write_text("old", "text")
    write_file("new", for_its_owner_alone)
    with atomic_dir("folder") as folder:
        for_its_owner_alone(folder / "inner")
        write_text(folder / "text", "text")
        (folder / "deep").mkdir()
        for_its_owner_alone(folder / "deep/inner")
    for path in ("old", "new", "folder/inner", "folder/text", "folder/deep/inner"):
        assert mode_of(path) == 0o666 & ~umask, path
    assert mode_of("folder") == 0o777 & ~umask


def test_names_that_are_not_utf_8_are_written_as_json_escapes():
    write_text("x.json", json.dumps([os.fsdecode(b"bad-\xff"), "\N{SNOWMAN}"], ensure_ascii=False))
    text = Path("x.json").read_text("utf-8")
    assert text == '["bad-\\udcff", "\N{SNOWMAN}"]'
    assert os.fsencode(json.loads(text)[0]) == b"bad-\xff"


def test_an_error_of_the_system_names_the_file_and_leaves_nothing():
    Path("x").write_text("old")

    def full(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device", str(temporary))

    with pytest.raises(OSError, match=r"^x could not be written: No space left on device$"):
        write_file("x", full)
    assert Path("x").read_text() == "old"
    assert os.listdir() == ["x"]


@pytest.mark.parametrize("piped", ["bytes", None])
def test_standard_output_is_accepted_where_documented_and_a_terminal_gets_no_bytes(piped, monkeypatch, capsysbinary):
    if piped is None:
        with pytest.raises(ValueError, match="- is standard output, which this output cannot use: name a file"):
            check_writable("-")
        with pytest.raises(ValueError, match="- is standard output, which is not a folder: name a folder"):
            check_folder("-")
        return
    check_writable("-", suffixes=(".npz",), piped=piped)
    write_file("-", lambda temporary: temporary.write_bytes(b"\x00\xff"))
    assert capsysbinary.readouterr().out == b"\x00\xff"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    check_writable("-", piped="text")
    with pytest.raises(ValueError, match="a terminal, which cannot show bytes: name a file, or use a pipe"):
        check_writable("-", piped="bytes")
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(ValueError, match="- is standard output, which is closed"):
        check_writable("-", piped="text")
    assert os.listdir() == []


def test_standard_output_that_is_an_input_is_refused(monkeypatch):
    with open("film.mp4", "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(ValueError, match=r"standard output is read, as film.mp4"):
            check_writable("-", piped="bytes", inputs=["film.mp4"])


HOLDER = """
import sys
from pathlib import Path
from vivit.files.atomic import working_folder
with working_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_folders_of_killed_processes_are_removed_and_those_of_running_ones_are_not(here):
    command = [sys.executable, "-c", HOLDER, str(here)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    living, killed = (subprocess.Popen(command, **pipes) for _ in range(2))
    held = [Path(process.stdout.readline().strip()) for process in (living, killed)]
    with working_folder(here):
        assert all((folder / "half").exists() for folder in held)
    killed.kill()
    killed.communicate()
    assert held[1].exists()
    write_text("x", "text")
    assert [folder.exists() for folder in held] == [True, False]
    living.communicate()
    assert os.listdir() == ["x"]


def test_a_folder_without_locks_keeps_what_is_there(monkeypatch, here):
    (here / ".vivit-other.partial").mkdir()

    def none(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    write_text("x", "text")
    assert sorted(os.listdir()) == [".vivit-other.partial", "x"]


def test_a_folder_that_was_taken_for_abandoned_before_it_was_locked_is_made_again(monkeypatch, here):
    made, locked = [], fcntl.flock

    def raced(descriptor, how):
        made.append(descriptor)
        if len(made) == 1:
            for folder in here.iterdir():
                folder.rmdir()
        locked(descriptor, how)

    monkeypatch.setattr(atomic.fcntl, "flock", raced)
    write_text("x", "text")
    assert len(made) == 2
    assert os.listdir() == ["x"]


def test_links_and_files_with_such_a_name_are_left_alone(here):
    (here / ".vivit-file.partial").touch()
    (here / "far").mkdir()
    (here / "far/mine").touch()
    (here / ".vivit-link.partial").symlink_to("far")
    write_text("x", "text")
    assert sorted(os.listdir()) == [".vivit-file.partial", ".vivit-link.partial", "far", "x"]
    assert (here / "far/mine").exists()
    assert time.time() - os.stat("x").st_mtime < 60
