"""Commands that are killed at random moments again and again: what they wrote must be whole, the old or the new.

`python tests/kills.py 100` kills each of them that often, and prints what it met. A process that has loaded our code,
but not begun to compute, forks one that runs a command over and over, with two results in turn, until it is killed.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.export
import numpy as np
from safetensors.numpy import load_file
from videos import Coding, encode, scene

import vivit.inference.features  # and jax.export: all that a command loads, so that a fork need not
from vivit import cli, writing
from vivit.demonstration import demo_checkpoint

SECONDS = 0.4  # within which a command is killed


class Job(NamedTuple):
    """A command, twice, with different results in one place."""

    commands: tuple[list[str], list[str]]
    output: str
    read: Callable[[Path], dict[str, np.ndarray]]


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as found:
        return dict(found)


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / json.loads((folder / "config.json").read_text())["weights"])


def jobs(folder: Path) -> dict[str, Job]:
    """What is killed. The folder has the video film.mkv and the checkpoint other."""
    film, demo, other = str(folder / "film.mkv"), str(demo_checkpoint()), str(folder / "other")

    def features(video: str, output: str) -> Job:
        command = ["features", video, "-o", str(folder / output), "--stages", "last_tokens", "--stride", "1"]
        return Job((command, [*command, "--hop", "3"]), output, arrays_of)

    def convert(output: str, *options: str, read: Callable[[Path], dict[str, np.ndarray]]) -> Job:
        first, second = (["convert", source, str(folder / output), *options] for source in (demo, other))
        return Job((first, second), output, read)

    return {
        "features": features(film, "out.npz"),
        "features of a stream": features("-", "piped.npz"),
        "convert": convert("dest", read=weights_of),
        "convert to npz": convert("tree.npz", "--to", "npz", read=arrays_of),
    }


def main(moments: int) -> int:
    """Prints, for every command, how often its result was the one or the other, and what was left and removed."""
    warnings.filterwarnings("ignore", message="os.fork")
    generator = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tempfile.tempdir = str(folder / "tmp")
        os.mkdir(tempfile.tempdir)
        _finished(lambda: _prepared(folder))
        for title, job in jobs(folder).items():
            known = [_after(folder, job, command) for command in job.commands]
            met = dict.fromkeys((*known, "nothing"), 0)
            leaving = 0
            for _ in range(moments):
                if generator.random() < 0.2:  # where nothing is yet
                    _remove(folder / job.output)
                whole = generator.random() < 0.8  # else it compiles when it is killed
                _killed(folder, job.commands, generator.uniform(0, SECONDS), after_one=whole)
                met[_digest(folder, job)] += 1  # KeyError: it is half of something
                leaving += bool(_left(folder))
            assert _after(folder, job, job.commands[0]) == known[0]
            assert not _left(folder), _left(folder)
            counts = ", ".join(map(str, met.values()))
            print(f"{title}: {moments} kills; the first, the second, nothing: {counts}; {leaving} left something")
    return 0


def _prepared(folder: Path) -> None:
    """Runs in a process of its own."""
    encode(folder / "film.mkv", scene(40, 32, 32), Coding("ffv1", "bgr0"))
    model = vivit.load(demo_checkpoint())
    other = replace(model, params=jax.tree.map(lambda leaf: leaf + 1, model.params))
    vivit.save(folder / "other", other)


def _run(folder: Path, command: list[str]) -> None:
    """In a process of its own."""
    with (folder / "film.mkv").open() as stream:
        sys.stdin = stream
        assert cli.main(command) == 0


def _after(folder: Path, job: Job, command: list[str]) -> str:
    _finished(lambda: _run(folder, command))
    return _digest(folder, job)


def _finished(work: Callable[[], object]) -> None:
    """Runs it in a fork, to its end."""
    process = os.fork()
    if not process:
        _as_child(work)
    assert os.waitpid(process, 0)[1] == 0


def _killed(folder: Path, commands: Sequence[list[str]], seconds: float, *, after_one: bool) -> None:
    """Runs the commands in turn in a fork, and kills it so many seconds after it first looked at a place to write.

    after_one: or after one of them ended, when the next ones are quick.
    """
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        look = writing.remove_abandoned
        writing.remove_abandoned = lambda beside: (os.write(writer, b"looks"), look(beside))

        def over_and_over() -> None:
            while True:
                for command in commands:
                    _run(folder, command)
                    os.write(writer, b"ends!")

        _as_child(over_and_over)
    os.close(writer)
    while (said := os.read(reader, 5)) != (b"ends!" if after_one else b"looks"):
        assert said
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    assert os.waitpid(process, 0)[1] == signal.SIGKILL
    os.close(reader)


def _as_child(work: Callable[[], object]) -> None:
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        work()
        code = 0
    finally:
        os._exit(code)


def _digest(folder: Path, job: Job) -> str:
    path = folder / job.output
    if not path.exists():
        return "nothing"
    digest = hashlib.sha256()
    for name, array in sorted(job.read(path).items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _left(folder: Path) -> list[Path]:
    """The working folders that were not removed."""
    return [*folder.rglob(f"{writing.PREFIX}*")]


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
