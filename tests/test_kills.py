"""Features, streams, checkpoints and a training, whose process is killed; tests/kills.py says how."""

import os
import subprocess
import sys
from pathlib import Path


def test_nothing_half_written_is_taken_for_whole_and_what_is_left_is_removed():
    here = Path(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), str(here.parents[1])])}
    command = [sys.executable, str(here.with_name("kills.py")), "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(": 2 kills;") == 4
    assert "then the weights of a run that was never killed" in done.stdout
