"""`python -m bench compile`: seconds to trace and lower the forward and its gradient, and to compile the forward.

Tracing and lowering are timed with attention="auto" (the default) and, alternating, with attention="xla", which does
not choose kernels. Prints medians. Nothing runs, so there are no results to check; the tests check that layers are
scanned.
"""

import time
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp

import vivit
from bench.harness import machine, parser, report
from bench.workloads import SUFFIXES
from vivit.cli.table import Table
from vivit.reference.config import Config, named


def main(arguments: Sequence[str]) -> int:
    asked = parser("compile", __doc__, "--sizes vivit-b/16x2")
    asked.add_argument("--sizes", nargs="*", default=["vivit-b/16x2", "vivit-l/16x2", "vivit-h/16x2"], metavar="NAME")
    asked.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    asked.add_argument("--rounds", type=int, default=3)
    options = asked.parse_args(arguments)
    names = [size + suffix for size in options.sizes for suffix in SUFFIXES]
    rows = [(name, *_seconds(named(name), options.dtype, options.rounds)) for name in names]
    title = f"Seconds to trace and lower, and to compile, for one clip, {options.dtype}"
    columns = ("variant", "forward", "÷ xla", "gradient", "÷ xla", "compile forward")
    report([Table(columns, rows, title=title)], [machine()], options)
    return 0


def _seconds(config: Config, dtype: str, rounds: int) -> list[str]:
    params = jax.eval_shape(partial(vivit.init, config=config), jax.random.key(0))
    video = jax.ShapeDtypeStruct((1, config.frames, config.height, config.width, 3), jnp.float32)
    taken: dict[tuple[bool, str], list[float]] = {}
    lowered: Any = None
    for _ in range(rounds):
        for gradient in (True, False):
            for attention in ("xla", "auto"):
                forward = partial(vivit.forward, config=config, dtype=dtype, attention=attention)
                function = jax.grad(lambda *inputs, forward=forward: forward(*inputs).sum()) if gradient else forward
                jax.clear_caches()
                start = time.perf_counter()
                lowered = jax.jit(function).lower(params, video)
                taken.setdefault((gradient, attention), []).append(time.perf_counter() - start)
    start = time.perf_counter()
    lowered.compile()  # the forward, as users run it
    compiling = time.perf_counter() - start
    cells = []
    for gradient in (False, True):
        auto, xla = (median(taken[gradient, attention]) for attention in ("auto", "xla"))
        cells += [f"{auto:.2f}", f"{auto / xla:.2f}"]
    return [*cells, f"{compiling:.2f}"]
