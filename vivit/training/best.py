"""Which validation of a run was the best so far, and whether it has been waited for a better one long enough."""

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from vivit.training.logs import METRICS, read_metrics

SCORES = ("action/top_1", "map", "top_1")  # what decides: the first of them that there is; more is better


@dataclass
class Best:
    """score: the best so far. step: of it, 0: there was none. worse: validations since. last: the step of the last."""

    score: float = -np.inf
    step: int = 0
    worse: int = 0
    last: int = 0

    def better(self, step: int, figures: dict[str, float]) -> bool:
        """Whether the validation after this step is the best so far; of equals the first is. It is remembered."""
        self.last = step
        score = next((figures[name] for name in SCORES if figures.get(name) is not None), -np.inf)
        if isfinite(score) and score > self.score:
            self.score, self.step, self.worse = score, step, 0
            return True
        self.worse += 1
        return False


def best_of(folder: Path) -> Best:
    """What the log of the run in a folder says; in a cluster all processes are told what the first one read."""
    best = Best()
    if jax.process_index() == 0 and (folder / METRICS).exists():
        for event in read_metrics(folder / METRICS):
            if event["kind"] == "validation":
                best.better(event["step"], event)
    if jax.process_count() > 1:
        told = np.array([best.score, best.step, best.worse, best.last]).view(np.uint32)  # JAX would round float64
        score, *steps = np.asarray(multihost_utils.broadcast_one_to_all(told)).view(np.float64).tolist()
        best = Best(score, *map(int, steps))
    return best
