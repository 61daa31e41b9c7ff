"""`python -m bench forward`: times the four models on one clip, 32x224², in float32 and bfloat16, on this device.

The same run times the baseline of plain einsums (vivit/audit/baseline.py, jitted) and what `make peers` installs:
Hugging Face's ViViT with the same weights (model 1; PyTorch's sdpa), as it is and compiled by torch.compile,
lucidrains' model 2, and the exported graph (vivit export --to onnx) in ONNX Runtime and in OpenVINO. On a TPU or GPU
the row "xla" has no kernels. Every result is first compared with the float64 reference on the same clip and weights,
which are random; times do not depend on them.
"""

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.progress import track

import vivit
from bench import peers
from bench.harness import Measurement, in_turns, machine, measure, parser, product_dtype, report
from bench.workloads import DTYPES, SUFFIXES
from vivit.audit import baseline
from vivit.audit.bound import compare, depth_of
from vivit.audit.variants import rounded
from vivit.cli.arguments import add_json
from vivit.cli.console import console
from vivit.cli.outputs import check_json
from vivit.cli.table import Table
from vivit.inference.onnx_program import convert
from vivit.model_data import ModelData
from vivit.reference import models as reference
from vivit.reference.config import Config, named
from vivit.reference.params import Params


class Key(NamedTuple):
    """One row of the table."""

    model: str
    dtype: str
    implementation: str


def main(arguments: Sequence[str]) -> int:
    asked = parser("forward", __doc__, "--models fe --rounds 1")
    asked.add_argument("--size", default="vivit-b/16x2", help="a named variant without suffix (default: vivit-b/16x2)")
    asked.add_argument("--models", nargs="*", default=SUFFIXES, metavar="SUFFIX", help="of them, such as '' fe fdp")
    asked.add_argument("--dtype", nargs="+", default=DTYPES, choices=DTYPES, metavar="NAME")
    asked.add_argument("--runs", type=int, default=3, help="calls in each process (default: 3)")
    asked.add_argument("--rounds", type=int, default=2, help="processes for each row, in turns (default: 2)")
    asked.add_argument(
        "--implementations", nargs="+", choices=_PACKAGES, metavar="NAME", help="of them (default: all installed)"
    )
    add_json(asked)
    asked.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)  # MODEL DTYPE IMPLEMENTATION FOLDER
    options = asked.parse_args(arguments)
    if options.worker:
        *key, folder = options.worker
        print(json.dumps(_work(Key(*key), Path(folder), options.runs)))
        return 0
    check_json(options)
    suffixes = (f"-{suffix.lstrip('-')}" if suffix else "" for suffix in options.models)
    configs = {options.size + suffix: named(options.size + suffix) for suffix in suffixes}
    chosen = options.implementations or _installed()
    keys = [
        Key(name, dtype, implementation)
        for name, config in configs.items()
        for dtype in options.dtype
        for implementation in chosen
        if _runs(implementation, config, dtype)
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in track(configs, description="reference", console=console(stderr=True), transient=True):
            _expect(name, Path(folder))
            if not _GRAPHS.keys().isdisjoint(chosen):
                model = ModelData(config=named(name), params=peers.weights(named(name)))
                _graph(Path(folder), name).write_bytes(convert(model, 1, "float32"))
        program = ("-m", "bench", "forward", "--runs", str(options.runs), "--worker")
        results = in_turns({key: (*program, *key, folder) for key in keys}, options.rounds)
    rows = [{**key._asdict(), "result": row} for key, row in results.items()]
    report([_table(results, options)], [MEANING, machine()], options, {"machine": machine(), "rows": rows})
    return 1 if any(isinstance(row, str) for row in results.values()) else 0


def _installed() -> list[str]:
    """The implementations that are installed here; "xla" where it is not what "vivit" is."""
    found = [name for name in _PACKAGES if all(map(importlib.util.find_spec, _PACKAGES[name]))]
    return [name for name in found if name != "xla" or jax.default_backend() != "cpu"]


def _runs(implementation: str, config: Config, dtype: str) -> bool:
    """Whether an implementation has this model in this dtype."""
    if "torch" in _PACKAGES[implementation]:
        return config.model == ("factorised_encoder" if implementation == "lucidrains" else "spatio_temporal")
    return implementation not in _GRAPHS or dtype == "float32"  # as `vivit export` writes them


def _clip(config: Config) -> np.ndarray:
    """Float pixels in −1…1, exact in bfloat16: [1 frames height width 3]."""
    shape = (1, config.frames, config.height, config.width, 3)
    return rounded(np.random.default_rng(1).uniform(-1, 1, shape))


def _expect(name: str, folder: Path) -> None:
    """Writes the reference's logits, and the baseline's in both dtypes, whose errors define the bound."""
    config = named(name)
    params, clip = peers.weights(config), _clip(config)
    results = {"reference": reference.forward(params, clip, config)}
    for dtype in DTYPES:
        results[dtype] = np.asarray(baseline.forward(params, clip, config, dtype=dtype))
    for result, logits in results.items():
        np.save(_expected(folder, name, result), logits)


def _expected(folder: Path, name: str, result: str) -> Path:
    return folder / f"{name.replace('/', '_')}.{result}.npy"


def _graph(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '_')}.onnx"


def _work(key: Key, folder: Path, runs: int) -> Measurement:
    """Builds one implementation in this process, compares it with the reference and measures it."""
    config = named(key.model)
    expected, yardstick = (np.load(_expected(folder, key.model, result)) for result in ("reference", key.dtype))

    rounding = product_dtype(key.dtype)

    def check(logits: Any) -> float:
        comparison = compare(logits, yardstick, expected, rounding, depth=depth_of(config))
        if "torch" in _PACKAGES[key.implementation]:
            passed = comparison.error <= peers.limit(expected, rounding)
        else:
            passed = comparison.passed
        if not passed:
            raise ValueError(f"{', '.join(key)}: {comparison}")
        return comparison.error

    if key.implementation in _GRAPHS:
        call = _GRAPHS[key.implementation](_graph(folder, key.model), _clip(config))
    else:
        call = _CALLS[key.implementation](peers.weights(config), _clip(config), config, key.dtype)
    return measure(call, check, runs)


def _ours(
    params: Params, clip: np.ndarray, config: Config, dtype: str, *, attention: str = "auto"
) -> Callable[[], Any]:
    params, pixels = jax.device_put((params, clip))
    return lambda: jax.block_until_ready(vivit.forward(params, pixels, config, dtype=dtype, attention=attention))


def _plain(params: Params, clip: np.ndarray, config: Config, dtype: str) -> Callable[[], Any]:
    params, pixels = jax.device_put((params, clip))
    jitted = jax.jit(lambda params, pixels: baseline.forward(params, pixels, config, dtype=dtype))
    return lambda: jax.block_until_ready(jitted(params, pixels))


_Build = Callable[[Params, np.ndarray, Config, str], Callable[[], Any]]
_CALLS: dict[str, _Build] = {
    "vivit": _ours,
    "xla": partial(_ours, attention="xla"),
    "plain": _plain,
    "hugging face": peers.hugging_face,
    "torch.compile": peers.compiled_hugging_face,
    "lucidrains": peers.lucidrains,
}
_GRAPHS: dict[str, Callable[[Path, np.ndarray], Callable[[], Any]]] = {
    "onnx runtime": peers.onnx_runtime,
    "openvino": peers.openvino,
}
_PACKAGES = {  # that an implementation needs
    "vivit": (),
    "xla": (),
    "plain": (),
    "hugging face": ("torch", "transformers"),
    "torch.compile": ("torch", "transformers"),
    "lucidrains": ("torch", "vit_pytorch"),
    "onnx runtime": ("jax2onnx", "onnxruntime"),
    "openvino": ("jax2onnx", "openvino"),
}


MEANING = "error: largest difference of the logits from the float64 reference, checked before timing."


def _table(results: dict[Key, Measurement | str], options: argparse.Namespace) -> Table:
    calls = f"{options.rounds} process(es) of {options.runs} calls each, taking turns"
    figures = ("seconds", "CPU seconds", "peak MB", "first call s", "error", "time ÷ vivit's")
    rows: list[tuple[str, ...]] = []
    for key, row in results.items():
        if isinstance(row, str):
            rows.append((*key, row))
            continue
        ours = results.get(key._replace(implementation="vivit"), "not measured")
        rows.append(
            (
                *key,
                f"{row['seconds']:.3g}",
                f"{row['cpu_seconds']:.3g}",
                f"{row['peak_megabytes']:,.0f}",
                f"{row['first_seconds']:.3g}",
                f"{row['error']:.1e}",
                "-" if isinstance(ours, str) else f"{row['seconds'] / ours['seconds']:.2f}",
            )
        )
    return Table((*Key._fields, *figures), rows, texts=3, title=f"One clip, batch 1: medians over {calls}")
