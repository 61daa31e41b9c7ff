"""`python -m bench compile`: seconds to trace, lower and compile the forward of each model, B, L and H.

Nothing is run, so it needs no weights and no result to check; the tests check that layers are scanned.
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

import vivit
from bench.harness import machine
from bench.workloads import SUFFIXES
from vivit.reference.config import named


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench compile", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", nargs="*", default=["vivit-b/16x2", "vivit-l/16x2", "vivit-h/16x2"], metavar="NAME")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args(arguments)
    table = Table(title=f"Seconds to compile the forward for one clip, {options.dtype}")
    for name in ("variant", "trace and lower", "compile", "together"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in (size + suffix for size in options.sizes for suffix in SUFFIXES):
        config = named(name)
        params = jax.eval_shape(partial(vivit.init, config=config), jax.random.key(0))
        video = jax.ShapeDtypeStruct((1, config.frames, config.height, config.width, 3), jnp.float32)
        jax.clear_caches()
        start = time.perf_counter()
        lowered = jax.jit(partial(vivit.forward, config=config, dtype=options.dtype)).lower(params, video)
        middle = time.perf_counter()
        lowered.compile()
        end = time.perf_counter()
        table.add_row(name, f"{middle - start:.2f}", f"{end - middle:.2f}", f"{end - start:.2f}")
    console = Console(width=100)
    console.print(table)
    console.print(machine(), markup=False)
    return 0
