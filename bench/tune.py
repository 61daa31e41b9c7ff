"""`python -m bench tune`: searches block sizes of the attention kernels, and writes the table that they read.

One field of `BlockSizes` after another gets the candidate that is best for forward + backward: by scheduled cycles for
the chips that are named, without a device, else by time on the attached TPU. A shape whose search gains nothing loses
its row of the table. Nothing is compared with the oracle here: tests and `python -m bench attention` do that.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from bench.chips import CHIPS, environment
from bench.harness import parser, report
from vivit.cli.table import Table
from vivit.files.atomic import check_writable, write_text
from vivit.kernels.block_sizes import TABLE, BlockSizes, Shape, parsed, written

SHAPES = {  # of ViViT-B/16x2: [b t s], with class tokens in models 1 and 2
    "joint": ((1, 1, 3136), (1, 1, 3137)),
    "spatial": ((8, 16, 196), (8, 16, 197)),
    "temporal": ((8, 16, 196),),
    "factorised_dot_product": ((8, 16, 196),),
}
CANDIDATES: dict[str, dict[str, tuple[int, ...]]] = {
    "joint": {
        "keys_together": (640, 896, 1024),
        "queries": (264, 448),
        "queries_backward": (256, 512),
        "keys_together_backward": (448, 1568, 1584),
    },
    "spatial": {"windows": (1, 2, 3)},
    "temporal": {"positions": (8, 16, 24, 32), "windows": (1, 2, 3)},
    "factorised_dot_product": {"positions": (8, 16, 24, 32), "windows": (1,)},
}
GAIN = 0.01  # that a row of the table is worth


class Job(NamedTuple):
    """One search: a core at [b t s], as the bench's options name it."""

    core: str
    tokens: tuple[int, int, int]
    channels: int
    heads: int
    dtype: str


class Found(NamedTuple):
    """What a search found: the cost of `BlockSizes()`, the best sizes, and their cost."""

    usual: float
    sizes: BlockSizes
    cost: float


def main(arguments: Sequence[str]) -> int:
    asked = parser("tune", __doc__, "--chip v5e --workload joint")
    asked.add_argument("--chip", nargs="+", choices=CHIPS, metavar="NAME", help=f"{', '.join(CHIPS)}; none: attached")
    asked.add_argument("--workload", nargs="+", default=list(SHAPES), choices=SHAPES, metavar="NAME")
    asked.add_argument("--shape", type=_shape, metavar="B,T,S,C,H", help="of one workload; joint: T is 1")
    asked.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16, on v3 float32")
    asked.add_argument("-o", "--output", type=Path, default=TABLE, metavar="FILE", help="default: the kernels' table")
    asked.add_argument("--worker", nargs=2, metavar=("CHIP", "FOLDER"), help=argparse.SUPPRESS)
    options = asked.parse_args(arguments)
    if options.worker:
        return _work(*options.worker)
    if options.shape and len(options.workload) > 1:
        asked.error("--shape needs one --workload")
    check_writable(options.output, suffixes=(".json",))
    shapes = dict.fromkeys(options.workload, (options.shape[:3],)) if options.shape else SHAPES
    channels, heads = options.shape[3:] if options.shape else (768, 12)
    rows = parsed(options.output.read_text("utf-8")) if options.output.exists() else {}
    shown = []
    for chip in options.chip or [_attached()]:
        dtype = options.dtype or ("bfloat16" if chip not in CHIPS or CHIPS[chip].bfloat16_operands else "float32")
        jobs = [Job(name, tokens, channels, heads, dtype) for name in options.workload for tokens in shapes[name]]
        results = _scheduled(chip, jobs) if options.chip else map(timed, jobs)
        for job, found in zip(jobs, results, strict=True):
            shape = Shape(chip, job.core, job.tokens[1:], job.channels, job.heads, job.dtype)
            rows.pop(shape, None)
            if found.cost < (1 - GAIN) * found.usual:
                rows[shape] = found.sizes
            write_text(options.output, written(rows))  # what was found is kept if a later search is stopped
            shown.append(_cells(shape, found, "Mcycles" if options.chip else "ms"))
    columns = ("chip", "core", "tokens", "channels, heads", "dtype", "sizes", "unit", "usual", "searched", "ratio")
    report([Table(columns, shown, texts=7)], [f"The table is {options.output}.", MEANING], options)
    return 0


MEANING = "Mcycles are static schedules, not timings. usual: without a row in the table."


def search(candidates: Mapping[str, Sequence[int]], cost: Callable[[BlockSizes], float | None]) -> Found:
    """One field after another, from BlockSizes(), which must have a cost. cost: None for sizes that do not fit."""
    best = BlockSizes()
    usual = least = cost(best)
    if usual is None or least is None:
        raise ValueError("the usual block sizes do not compile: nothing can be compared with them")
    for field, values in candidates.items():
        for sizes in [best._replace(**{field: size}) for size in values]:
            found = cost(sizes)
            if found is not None and found < least:
                best, least = sizes, found
    return Found(usual, best, least)


def _shape(text: str) -> tuple[int, ...]:
    sizes = tuple(int(word) for word in text.split(","))
    if len(sizes) != 5 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"the shape is {text}: it must be B,T,S,C,H, all at least 1")
    return sizes


def _cells(shape: Shape, found: Found, unit: str) -> tuple[str, ...]:
    usual = BlockSizes()._asdict()
    sizes = [f"{name} {size}" for name, size in found.sizes._asdict().items() if size != usual[name]]
    return (
        *(str(shape.chip), shape.core, "x".join(map(str, shape.tokens)), f"{shape.channels}, {shape.heads}"),
        *(shape.dtype, ", ".join(sizes) or "usual", unit),
        *(f"{found.usual:.3f}", f"{found.cost:.3f}", f"{found.cost / found.usual:.2f}"),
    )


def _scheduled(chip: str, jobs: Sequence[Job]) -> Any:
    """A `Found` for each job, from a process that the chip's compiler has to itself."""
    with tempfile.TemporaryDirectory() as folder:
        program = (sys.executable, "-m", "bench", "tune", "--worker", chip, folder)
        process = subprocess.Popen(
            program, env=environment(Path(folder)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stdin, stdout = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
        stdin.write(json.dumps(jobs))
        stdin.close()
        for _ in jobs:
            line = stdout.readline()
            if not line:
                raise ValueError(f"the compiler for {chip} ended with exit code {process.wait()}")
            usual, sizes, cost = json.loads(line)
            yield Found(usual, BlockSizes(*sizes), cost)
        process.wait()


def _work(chip: str, folder: str) -> int:
    """The worker: jobs as JSON from standard input, a line of JSON for each search."""
    import jax

    from bench.compiler import Compiler

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the compilers write to standard output too
    compiler = Compiler(CHIPS[chip], Path(folder))
    for core, tokens, *rest in json.load(sys.stdin):
        job = Job(core, tuple(tokens), *rest)
        qkv, out_cotangent = (compiler.abstract((*_axes(job), n * job.channels), job.dtype) for n in (3, 1))

        def cost(sizes: BlockSizes, job: Job = job, arguments: tuple = (qkv, out_cotangent)) -> float | None:
            try:
                return compiler.schedule(_program(job, sizes), *arguments, layout="auto").cycles / 1e6
            except jax.errors.JaxRuntimeError:  # it does not fit
                return None

        print(json.dumps(search(CANDIDATES[job.core], cost)), file=out, flush=True)
    return 0


def _axes(job: Job) -> tuple[int, ...]:
    b, t, s = job.tokens
    return (b, s) if job.core == "joint" else (b, t, s)


def _program(job: Job, sizes: BlockSizes, interpret: bool = False) -> Callable[..., Any]:
    """(qkv, cotangent) to the core's result and the cotangent of qkv."""
    import jax

    from vivit.kernels import attention as kernels

    core = partial(getattr(kernels, job.core), heads=job.heads, block_sizes=sizes, interpret=interpret)

    def run(qkv: Any, cotangent: Any) -> Any:
        out, vjp = jax.vjp(core, qkv)
        return out, vjp(cotangent)[0]

    return run


def _attached() -> str:
    """The attached TPU, as the kernels call it. Raises ValueError if there is none."""
    import jax

    from vivit.kernels import chip

    name = chip.name() if jax.default_backend() == "tpu" else None
    if name is None:
        raise ValueError("no TPU is attached: name chips with --chip")
    return name


def timed(job: Job, runs: int = 5, *, interpret: bool = False) -> Found:
    """The search by the least milliseconds of some calls, on the attached device."""
    import jax

    keys = jax.random.split(jax.random.key(1))
    arguments = [
        jax.random.normal(key, (*_axes(job), n * job.channels), job.dtype) for key, n in zip(keys, (3, 1), strict=True)
    ]

    def cost(sizes: BlockSizes) -> float | None:
        try:
            call = jax.jit(_program(job, sizes, interpret)).lower(*arguments).compile()
        except jax.errors.JaxRuntimeError:
            return None
        return 1e3 * min(_seconds(call, arguments) for _ in range(runs))

    return search(CANDIDATES[job.core], cost)


def _seconds(call: Callable[..., Any], arguments: Sequence[Any]) -> float:
    import jax

    start = time.perf_counter()
    jax.block_until_ready(call(*arguments))
    return time.perf_counter() - start
