"""Exports a model as one file, program and weights, that runs without this package: with jax.export, or as ONNX.

Running the first requires JAX and flatbuffers (a dependency of jax.export). clips: uint8[b frames height width 3].

    logits = jax.jit(jax.export.deserialize(open("FILE", "rb").read()).call)(clips)

JAX must have the version that wrote the file, or a newer one up to half a year later. onnx_program.py writes ONNX.

Weights are constants of the program. As arguments they would compile faster and exist once for all batch sizes
(ViViT-B: a first call of 4 s instead of 8, 0.9 GB instead of 2.3), but users would have to load a second file, and
could load that of another model.

Batch: unless the batch size is fixed, the number of clips is symbolic and clips are computed one by one. Pallas kernels
and the groups of attention (vivit/attention.py) then know every shape, the logits of a clip do not depend on other
clips, and memory does not grow. A fixed batch is computed at once.

Attention: Pallas kernels if TPU is the only platform, otherwise XLA, because JAX lowers the same program for every
platform. Kernels are compiled for the attached TPU, or without one for any TPU (vivit/kernels/chip.py).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from vivit.backend import backend
from vivit.files.atomic import STANDARD_OUTPUT, check_writable, write_file, write_text
from vivit.files.paths import as_path
from vivit.inference import onnx_program
from vivit.inference.clip_function import clip_function, clip_shape
from vivit.memory import check_model
from vivit.model_data import ModelData
from vivit.reference.params import Params, convert, leaves
from vivit.reference.values import MAX_COUNT, is_count, quoted
from vivit.versions import versions
from vivit.video.container import Limits

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
DEFAULT_PLATFORMS = ("cpu", "cuda", "tpu")
MAX_WEIGHTS = 2**31 - 2**24  # bytes: a flatbuffer holds 2³¹, of which 16 MiB are reserved for the program
SOURCE_LINES = "jax_traceback_in_locations_limit"
Format = Literal["stablehlo", "onnx"]
SUFFIXES: dict[str, str] = {"stablehlo": ".stablehlo", "onnx": ".onnx"}
FORMAT, VERSION = "vivit exported program", 1


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The files that `export` wrote. description: contents of the JSON file; no file is written for standard output."""

    path: Path
    description_path: Path | None
    description: dict[str, Any] = field(repr=False)


def export(
    model: ModelData,
    path: str | Path,
    *,
    to: Format = "stablehlo",
    platforms: Sequence[str] | None = None,
    batch: int | None = None,
    dtype: str | None = None,
    inputs: Iterable[str | Path] = (),
    limits: Limits | None = None,
) -> Exported:
    """Writes a model as a program from uint8[b frames height width 3] to logits float32[b v].

    The program includes the scaling of pixel values, but not resizing and cropping. Without a head it returns the
    prelogits. Labels, sizes and a hash are written to path + ".json". Both files are replaced atomically, the program
    last. path: must end in .stablehlo, or in .onnx; "-" is standard output, without a description.

    to: "stablehlo", for JAX; "onnx", for ONNX Runtime, OpenVINO and others (extra [onnx]), in float32. platforms: of
    "cpu", "cuda", "rocm" and "tpu", for StableHLO; None: all but rocm; none needs to be attached. batch: clips per
    call; None: any number. dtype: of the operands of the encoder's matrix products, "float32" (None) or "bfloat16",
    which also stores their kernels in bfloat16; this nearly halves the file and does not change XLA's results. inputs:
    files that are read; neither output may be one of them. limits: memory of the model with the clips of a call.
    Raises ValueError, before any long computation, if an argument is invalid, a file cannot be written, or the weights
    have more than MAX_WEIGHTS bytes; ModuleNotFoundError without jax2onnx.
    """
    path, platforms, inputs = as_path(path), None if platforms is None else tuple(platforms), tuple(inputs)
    check_export(path, to=to, platforms=platforms, batch=batch, dtype=dtype, inputs=inputs)
    check_model(model.config, (limits or Limits()).memory, clips=batch or 1)
    description_path = _description_path(path)
    model = replace(model, params=stored_params(model.params, dtype))
    size = sum(leaf.size * leaf.dtype.itemsize for _, leaf in leaves(model.params))
    if size > MAX_WEIGHTS:
        hint = "" if dtype == "bfloat16" else "; dtype bfloat16 takes about half"
        raise ValueError(f"the weights have {size:,} bytes: a program holds at most {MAX_WEIGHTS:,}{hint}")
    if to == "onnx":
        data, about = onnx_program.convert(model, batch), onnx_program.DESCRIPTION
    else:
        program = build_program(model, platforms=platforms or DEFAULT_PLATFORMS, batch=batch, dtype=dtype)
        data, about = program.serialize(), _about(program)
    description = {
        "format": FORMAT,
        "version": VERSION,
        "file": path.name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        **_description(model, batch, dtype),
        **about,
    }
    text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"

    def write(temporary: Path) -> None:  # the description is replaced first; write_file then renames the program
        temporary.write_bytes(data)
        if description_path is not None:
            write_text(description_path, text, inputs=inputs)

    write_file(path, write, inputs=inputs)
    return Exported(path=path, description_path=description_path, description=description)


def check_export(
    path: Path,
    *,
    to: str = "stablehlo",
    platforms: tuple[str, ...] | None = None,
    batch: int | None = None,
    dtype: str | None = None,
    inputs: Iterable[str | Path] = (),
) -> None:
    """Raises ValueError if `export` would reject these arguments for any model. Arguments as in export."""
    if to not in SUFFIXES:
        raise ValueError(f"to is {quoted(to)}: it must be one of {', '.join(get_args(Format))}")
    if platforms is not None and to == "onnx":
        raise ValueError(f"platforms is {quoted(','.join(platforms))}: ONNX has none, it must be omitted")
    platforms = DEFAULT_PLATFORMS if platforms is None else platforms
    if not platforms or len(set(platforms)) < len(platforms) or not set(platforms) <= set(PLATFORMS):
        raise ValueError(
            f"platforms is {quoted(','.join(platforms))}: it must be some of {', '.join(PLATFORMS)}, each once"
        )
    if batch is not None and not is_count(batch):
        raise ValueError(f"batch is {quoted(batch)}: it must be at least 1, and at most {MAX_COUNT}, or None for any")
    if dtype not in (None, "float32", "bfloat16"):
        raise ValueError(f"dtype is {quoted(dtype)}: it must be float32 or bfloat16")
    if dtype == "bfloat16" and to == "onnx":
        raise ValueError("dtype is 'bfloat16': ONNX Runtime has no such products on a CPU, it must be float32")
    if to == "onnx":
        onnx_program.check_installed()
    check_writable(path, suffixes=(SUFFIXES[to],), inputs=inputs, piped="bytes")
    if (description_path := _description_path(path)) is not None:
        check_writable(description_path, inputs=inputs)


def build_program(
    model: ModelData, *, platforms: tuple[str, ...], batch: int | None, dtype: str | None
) -> jax.export.Exported:
    """Returns the program. Arguments as in export."""
    run = clip_function(model, batch, dtype, backend("auto", "tpu" if platforms == ("tpu",) else "cpu"))
    count = jax.export.symbolic_shape("b")[0] if batch is None else batch
    clips = jax.ShapeDtypeStruct((count, *clip_shape(model.config)), np.uint8)
    with _no_source_lines():
        return jax.export.export(jax.jit(run), platforms=platforms)(clips)


def stored_params(params: Params, dtype: str | None) -> Params:
    """Returns the weights for the program: for dtype bfloat16, the kernels of the blocks are in bfloat16."""
    if dtype != "bfloat16":
        return params

    def rounded(path: str, leaf: jax.Array) -> jax.Array:
        return leaf.astype(jnp.bfloat16) if "/blocks/" in path and path.endswith("/kernel") else leaf

    return convert(params, rounded)


@contextmanager
def _no_source_lines() -> Iterator[None]:
    """Omits source locations, which contain paths of this machine, so that programs are equal on all machines."""
    before = getattr(jax.config, SOURCE_LINES)
    jax.config.update(SOURCE_LINES, 0)
    try:
        yield
    finally:
        jax.config.update(SOURCE_LINES, before)


def _description_path(path: Path) -> Path | None:
    return None if str(path) == STANDARD_OUTPUT else path.parent / f"{path.name}.json"


def _about(program: jax.export.Exported) -> dict[str, Any]:
    """Returns the description of a StableHLO program, besides that of its model."""
    return {
        "use": "jax.jit(jax.export.deserialize(open(FILE, 'rb').read()).call)(video)",
        "needs": ["flatbuffers", f"jax>={jax.__version__}"],
        "platforms": program.platforms,
        "attention": "pallas" if b"tpu_custom_call" in program.mlir_module_serialized else "xla",
        "calling_convention": program.calling_convention_version,
    }


def _description(model: ModelData, batch: int | None, dtype: str | None) -> dict[str, Any]:
    """Returns the description of the model in a program, for users of the program, as JSON data."""
    config, preprocessing = model.config, asdict(model.preprocessing)
    count = "b" if batch is None else batch
    return {
        "input": {
            "dtype": "uint8",
            "shape": [count, *clip_shape(config)],
            "axes": ["b", "frames", "height", "width", "colors (red, green, blue)"],
        },
        "output": {
            "dtype": "float32",
            "shape": [count, model.outputs],
            "what": "logits of the heads, one after the other" if config.classes else "features: there is no head",
        },
        "classes": config.classes,
        "labels": model.labels,
        "heads": model.heads,
        "pixels": {
            "to_be_done": {
                **{name: preprocessing.pop(name) for name in ("resize", "crop")},
                "how": "frames are resized (the shorter side, or [height, width]), then their centre is cut out",
            },
            "done_inside": preprocessing,
        },
        "dtype": dtype or "float32",
        "config": asdict(config),
        "written_with": versions(),
    }
