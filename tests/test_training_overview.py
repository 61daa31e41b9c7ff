"""What `vivit train` says before, while and after it trains, and what it doubts."""

import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from vivit.cli.train_progress import TrainProgress, describe_data, describe_plan, questionable_choices
from vivit.data.sources import Dataset, Example
from vivit.training.recipe import Recipe, Steps

pytestmark = pytest.mark.fast

RECIPE = Recipe(learning_rate=0.1, steps=100, warmup_steps=20, batch_size=8)


def dataset(labels, names=("run", "sit", "walk"), heads=("verb",)):
    examples = tuple(Example(f"{number}.mp4", ((label,),) * len(heads)) for number, label in enumerate(labels))
    return Dataset(examples, heads, (names,) * len(heads))


def test_what_is_going_to_happen_is_said_in_numbers():
    splits = {"train": dataset([0, 1, 2] * 20), "validation": dataset([0, 1, 2])}
    assert list(describe_data(splits, RECIPE, Steps(100, 20))) == [
        "classes: 3",
        "clips: 60 in train, 3 in validation",
        "steps: 100 of 8 clips, 13.3 epochs, the first 20 of them warm-up",
    ]
    both = {"train": dataset([0, 1], heads=("verb", "noun"))}
    assert list(describe_data(both, RECIPE, Steps(1000, 0)))[::2] == [
        "classes: 3 of verb, 3 of noun",
        "steps: 1,000 of 8 clips, 4e+03 epochs, no warm-up",
    ]
    assert not list(questionable_choices(splits, RECIPE))


@pytest.mark.parametrize(
    ("splits", "doubt"),
    [
        ({"train": dataset([0, 1, 2])}, "batch_size is 8, but there are only 3 training clips"),
        ({"train": dataset([0] * 9, ("run",))}, "verb has one class, 'run': there is nothing to classify"),
        ({"train": dataset([0, 1] * 9)}, "train has no clip of 'walk', of 3 classes of verb"),
        (
            {"train": dataset([0, 1, 2] * 9), "validation": dataset([1])},
            "validation has no clip of 'run', 'walk', of 3 classes of verb",
        ),
        (
            {"train": dataset(range(20), tuple(map(str, range(30))))},
            "train has no clip of '20', '21', '22', '23', '24' and 5 more, of 30",
        ),
    ],
)
def test_what_is_hardly_meant_is_doubted(splits, doubt):
    assert [found for found in questionable_choices(splits, RECIPE) if found.startswith(doubt)], list(
        questionable_choices(splits, RECIPE)
    )


class Update:
    """What the loop tells of one."""

    def __init__(self, step, total=1000, seconds=2.0, **validation):
        self.step, self.steps, self.broken, self.best = step, Steps(total, 0), 0, step
        self.figures = {"loss": 1.25, "seconds": seconds, "clips_per_second": 4.0}
        self.validation = validation


def test_without_a_terminal_there_is_a_line_a_minute_at_most_and_one_at_the_end(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with TrainProgress() as shown:
        for step in range(1, 101):
            now[0] += 2.0
            shown.show("training", 8, Update(step, 100, **({"top_1": 0.5} if step == 40 else {})))
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("time of")]
    steps = [int(re.match(r"training: step (\d+) of 100, loss 1.250, 4 clips/s, ", line)[1]) for line in told]
    assert steps == [30, 60, 90, 100]
    assert told[1].endswith("step 40: top_1 0.5  (the best so far)")


def test_after_ten_steps_the_hours_are_said_once(capsys):
    with TrainProgress() as shown:
        for step in range(1, 30):
            shown.show("training", 8, Update(step, 1810, seconds=200.0 if step == 1 else 2.0))
    (told,) = capsys.readouterr().err.splitlines()
    assert told == "time of a step: 2 s; about 1 h for the remaining 1,800 steps, without validation"


def test_the_memory_of_a_step_is_said_with_how_it_is_known_and_doubted_beyond_the_machine_s():
    from vivit.training.loop import Plan

    plan = Plan(steps=Steps(100, 0), begin=0, bytes=3 * 2**29, compiled=True)
    assert list(describe_plan(plan)) == ["memory of a step: 1.50 GiB per device, as the compiler reports"]
    known, huge, again = describe_plan(replace(plan, bytes=2**60, compiled=False, begin=7))
    assert known.endswith("per device, for state and batch alone: the compiler reports nothing")
    assert huge.startswith("this is more than the ")
    assert again == "resuming from step 7 of 100"


def test_a_terminal_that_hangs_up_lets_the_run_end_in_order(tmp_path):
    code = f"""
import fcntl, signal, sys, termios, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started pytest
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # it hangs up on whom it controls
from vivit.training.stopping import listen_for_stop_signals
with listen_for_stop_signals() as told:
    print("ready", flush=True)
    while not told.number:
        time.sleep(0.01)
    print("saved", flush=True)
    open({str(tmp_path / "saved")!r}, "w").close()
    sys.exit(128 + told.number)
"""
    terminal, end = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdin=end, stdout=end, stderr=end, start_new_session=True)
    os.close(end)
    with open(terminal, "rb", buffering=0) as printed:
        assert printed.readline() == b"ready\r\n"  # the whole line: a write that is cut in two by the end is an error
    assert process.wait(60) == 129
    assert (tmp_path / "saved").exists()
