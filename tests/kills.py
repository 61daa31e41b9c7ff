"""Kills commands at random moments, many times: their output must be complete, either the old or the new.

`python tests/kills.py 100` kills each command 100 times and prints the outcomes. A process that has imported our code,
but not started computing, forks a child that runs a command repeatedly, alternating between two results, until it is
killed. A training is killed while it runs, started again, and must end with the weights of one that was never killed.
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
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.export
import numpy as np
from safetensors.numpy import load_file
from videos import Coding, encode, scene

import vivit.inference.features  # and jax.export: all that a command loads, so that a fork need not
from vivit.cli import main as cli
from vivit.data.camera import write_camera
from vivit.demo import demo_checkpoint
from vivit.files import atomic
from vivit.reference.config import named
from vivit.training.logs import read_metrics

SECONDS = 0.4  # within which a command is killed
TRAINING_SECONDS = 12  # within which a training is killed: it starts, resumes, updates, saves and validates


class Job(NamedTuple):
    """A command in two versions, which write different results to one place."""

    commands: tuple[list[str], list[str]]
    output: str
    read: Callable[[Path], dict[str, np.ndarray]]


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as found:
        return dict(found)


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / json.loads((folder / "config.json").read_text())["weights"])


def jobs(folder: Path) -> dict[str, Job]:
    """Returns the commands to kill. The folder contains the video film.mkv and the checkpoint other."""
    film, demo, other = str(folder / "film.mkv"), str(demo_checkpoint()), str(folder / "other")

    def features(video: str, output: str) -> Job:
        command = ["features", video, "-o", str(folder / output), "--stages", "last_tokens", "--stride", "1"]
        return Job((command, [*command, "--clip-stride", "3"]), output, arrays_of)

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
    """Prints, for every command, how often each result was found, and what was left over and removed."""
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
        print(_train_killed(folder, moments))
    return 0


def _train_killed(folder: Path, moments: int) -> str:
    """Kills one training again and again. Returns a line with how far it came; raises if a file is half written."""
    _finished(lambda: write_camera(folder / "moves", train=14, validation=7, test=7, frames=8, size=32))
    (folder / "model.json").write_text(json.dumps({**asdict(named("vivit-tiny/8x2")), "layers": 1}))

    def train(run: str) -> None:
        recipe = "--learning-rate 0.001 --warmup-steps 2 --batch-size 4 --stride 1 --resize 32 --crop 32 --mesh 1,1,1"
        often = f"--steps {40 * moments} --save-every 5 --validate-every 20 --keep 2"
        places = ["--data", str(folder / "moves"), "--model", str(folder / "model.json"), "--folder", str(folder / run)]
        assert cli.main(["train", *places, *recipe.split(), *often.split()]) == 0

    generator, killed, resumed = random.Random(1), 0, set()
    while killed < moments:
        process = os.fork()
        if not process:
            _as_child(lambda: train("killed"))
        time.sleep(generator.uniform(0, TRAINING_SECONDS))
        os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
        if status == 0:  # it reached its last step first
            break
        assert status == signal.SIGKILL
        killed += 1
        for name in ("best", "model"):
            if (folder / "killed" / name).exists():
                vivit.load(folder / "killed" / name)
        if (folder / "killed" / "metrics.jsonl").exists():
            resumed |= {event["step"] for event in read_metrics(folder / "killed" / "metrics.jsonl")}
    for run in ("killed", "whole"):
        _finished(lambda run=run: train(run))
    weights = [weights_of(folder / run / "model") for run in ("killed", "whole")]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert not _left(folder), _left(folder)
    return (
        f"train: {killed} kills up to step {max(resumed, default=0)}; then the weights of a run that was never killed"
    )


def _prepared(folder: Path) -> None:
    """Prepares the folder, in a separate process."""
    encode(folder / "film.mkv", scene(40, 32, 32), Coding("ffv1", "bgr0"))
    model = vivit.load(demo_checkpoint())
    other = replace(model, params=jax.tree.map(lambda leaf: leaf + 1, model.params))
    vivit.save(other, folder / "other")


def _run(folder: Path, command: list[str]) -> None:
    """Runs the command in a separate process."""
    with (folder / "film.mkv").open() as stream:
        sys.stdin = stream
        assert cli.main(command) == 0


def _after(folder: Path, job: Job, command: list[str]) -> str:
    _finished(lambda: _run(folder, command))
    return _digest(folder, job)


def _finished(work: Callable[[], object]) -> None:
    """Runs the command in a fork until it ends."""
    process = os.fork()
    if not process:
        _as_child(work)
    assert os.waitpid(process, 0)[1] == 0


def _killed(folder: Path, commands: Sequence[list[str]], seconds: float, *, after_one: bool) -> None:
    """Runs the commands alternately in a fork, and kills it some seconds after it first looks at an output path.

    after_one: count from the end of a command instead, because later commands are fast.
    """
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        look = atomic.remove_stale_folders
        atomic.remove_stale_folders = lambda beside: (os.write(writer, b"looks"), look(beside))

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
    """Returns the working folders that were not removed."""
    return [*folder.rglob(f"{atomic.PREFIX}*")]


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
