"""A full disk gives one line that names the file, for our own files, safetensors and TensorBoard."""

import contextlib
import errno
import io
import os
import re
import subprocess

import checkpoints
import numpy as np
import pytest

import vivit
from vivit.cli.main import main
from vivit.files.atomic import write_file, write_text
from vivit.files.npz_writer import open_npz
from vivit.training.logs import Logs, read_metrics

pytestmark = pytest.mark.fast

FULL = "No space left on device"


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 40 kB, where the system lets us have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no disk may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk):
    """Leaves no byte of it."""
    with (disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1024))


@pytest.mark.parametrize("to", ["vivit", "huggingface", "npz"])
def test_converting_onto_a_full_disk_names_the_destination(to, small_disk, tmp_path, capsys):
    vivit.save(checkpoints.model(vivit.named("vivit-tiny/8x2")), tmp_path / "source")
    dest = small_disk / f"dest{'.npz' * (to == 'npz')}"
    assert main(["convert", str(tmp_path / "source"), str(dest), "--to", to]) == 2
    said = capsys.readouterr().err
    assert said == f"vivit convert: {dest} could not be written: {FULL}\n"
    assert list(small_disk.iterdir()) == []


def test_a_checkpoint_that_is_replaced_on_a_full_disk_stays(small_disk):
    config = vivit.named("vivit-tiny/8x2")
    config = vivit.Config(**{**vars(config), "layers": 1, "channels": 8, "heads": 1, "hidden": 8, "classes": (2,)})
    vivit.save(checkpoints.model(config), small_disk / "model")
    before = vivit.load(small_disk / "model")
    fill(small_disk)
    with pytest.raises(OSError, match=rf"model/model.next.safetensors could not be written: {FULL}"):
        vivit.save(checkpoints.model(config, seed=1), small_disk / "model")
    assert (vivit.load(small_disk / "model").params.head.kernel == before.params.head.kernel).all()


def test_logs_on_a_full_disk_name_their_file_and_keep_whole_lines(small_disk):
    logs = Logs(small_disk)
    logs.write(1, {"loss": 1.0})
    fill(small_disk)
    said = ""
    for step in range(2, 2000):
        try:
            logs.write(step, {"loss": 1.0})
        except OSError as error:
            said = str(error)
            break
    assert re.fullmatch(rf"{small_disk}/(metrics.jsonl|tensorboard/events.*) could not be written: {FULL}", said)
    logs.close()
    data = (small_disk / "metrics.jsonl").read_bytes()
    assert data.endswith(b"\n")
    assert len(read_metrics(small_disk / "metrics.jsonl")) == data.count(b"\n") > 0


def outgrow(path):
    with open_npz(path) as archive:
        while True:
            archive.append({"row": np.zeros(1000)})


def test_features_that_outgrow_the_disk_name_their_file_and_leave_nothing(small_disk):
    with pytest.raises(OSError, match=rf"^{small_disk}/out.npz could not be written: {FULL}$"):
        outgrow(small_disk / "out.npz")
    assert list(small_disk.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no such device here")
def test_a_full_standard_output_is_named(monkeypatch):
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(full))
        with pytest.raises(OSError, match=f"^standard output could not be written: {FULL}$"):
            write_text("-", "text")


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_disk_that_is_full_only_at_the_end_is_named_too(moment, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, FULL)

    monkeypatch.setattr(os, moment, full)
    with pytest.raises(OSError, match=rf"out.txt could not be written: {FULL}"):
        write_text(tmp_path / "out.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_another_file_names_that_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '.*nowhere.txt'"):
        write_file(tmp_path / "out.txt", lambda temporary: (tmp_path / "nowhere.txt").read_bytes())
