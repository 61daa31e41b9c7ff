"""A model as one file that runs without this package: the program and its weights, by jax.export, and what it wants.

Whoever has JAX and flatbuffers (which jax.export needs) runs it, with `clips` uint8[b frames height width 3]:

    logits = jax.jit(jax.export.deserialize(open("FILE", "rb").read()).call)(clips)

The JAX must be of the version that wrote it or newer; JAX promises half a year of newer ones.

Weights are constants of the program. As arguments they would compile faster and be held once, however many batch sizes
are compiled (ViViT-B: a first call of 4 s instead of 8, 0.9 GB instead of 2.3), but a second file could be mistaken for
another model's, and its user would have to load it.

Batch: unless one size is asked for, the number of clips is a symbol, and clips go through one after the other: so the
Pallas kernels and the grouping of attention (vivit/attention.py) know every shape, a clip's logits do not depend on the
others, and memory does not grow. A fixed batch goes through at once.

Attention: the Pallas kernels where the program is for a TPU alone, else XLA's form everywhere, since JAX lowers what is
for several platforms to each of them, and a kernel has none but the TPU. Kernels are for the TPU that is attached, and
without one such as every TPU can run (vivit/kernels/chip.py).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from vivit.data.opening import Limits
from vivit.memory import check_model
from vivit.model import Model
from vivit.ops import XLA
from vivit.pallas_ops import PALLAS
from vivit.paths import as_path
from vivit.reference.config import COLORS
from vivit.reference.params import Params, convert, leaves
from vivit.reference.values import MOST, is_count, quoted
from vivit.versions import versions
from vivit.writing import STANDARD_OUTPUT, check_place, write_file, write_text

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
DEFAULT_PLATFORMS = ("cpu", "cuda", "tpu")
LARGEST_WEIGHTS = 2**31 - 2**24  # bytes; a flatbuffer ends at 2³¹, and 16 MiB are left for the program
SOURCE_LINES = "jax_traceback_in_locations_limit"
SUFFIX = ".stablehlo"
FORMAT, VERSION = "vivit exported program", 1


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What `export` wrote. description: what the JSON file beside the program says; standard output has none beside."""

    path: Path
    description_path: Path | None
    description: dict[str, Any] = field(repr=False)


def export(
    model: Model,
    path: str | Path,
    *,
    platforms: Sequence[str] = DEFAULT_PLATFORMS,
    batch: int | None = None,
    dtype: str | None = None,
    inputs: Iterable[str | Path] = (),
    limits: Limits | None = None,
) -> Exported:
    """Writes a model as a program that takes uint8[b frames height width 3] and returns its logits, float32[b v].

    The model's preprocessing of pixels is inside; resizing and cropping are not. A model without a head returns its
    prelogits. Beside the program, in path + ".json", stand its labels, sizes and hash. Files there are replaced, the
    program last, each whole or as it was. path: must end in .stablehlo; "-": standard output, and no description.

    platforms: of "cpu", "cuda", "rocm" and "tpu"; this machine needs none of them. batch: clips in a call; None: any
    number. dtype: "float32" (None) or "bfloat16", of the operands of the blocks' matmuls; with bfloat16 the blocks'
    kernels are stored in it as well, which changes no result of XLA's form and nearly halves the file.
    inputs: files that are read, which neither of the two may be. limits: its memory is what the model may take with the
    clips of a call.
    Raises ValueError, before any long work, for another platform, batch or dtype, for a place that cannot be written,
    and for weights of more than LARGEST_WEIGHTS bytes.
    """
    path, platforms, inputs = as_path(path), tuple(platforms), tuple(inputs)
    check_export(path, platforms=platforms, batch=batch, dtype=dtype, inputs=inputs)
    check_model(model.config, (limits or Limits()).memory, clips=batch or 1)
    description_path = _beside(path)
    model = replace(model, params=stored(model.params, dtype))
    size = sum(leaf.size * leaf.dtype.itemsize for _, leaf in leaves(model.params))
    if size > LARGEST_WEIGHTS:
        hint = "" if dtype == "bfloat16" else "; dtype bfloat16 takes about half"
        raise ValueError(f"the weights have {size:,} bytes: a program holds at most {LARGEST_WEIGHTS:,}{hint}")
    program = lowered(model, platforms=platforms, batch=batch, dtype=dtype)
    data = program.serialize()
    description = {
        "format": FORMAT,
        "version": VERSION,
        "file": path.name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        **_described(model, program, batch, dtype),
    }
    text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"

    def write(temporary: Path) -> None:  # once the program is on the disk its description gets its name, then it does
        temporary.write_bytes(data)
        if description_path is not None:
            write_text(description_path, text, inputs=inputs)

    write_file(path, write, inputs=inputs)
    return Exported(path=path, description_path=description_path, description=description)


def check_export(
    path: Path,
    *,
    platforms: tuple[str, ...],
    batch: int | None,
    dtype: str | None,
    inputs: Iterable[str | Path] = (),
) -> None:
    """Raises ValueError for what `export` would refuse of any model. Arguments as export's."""
    if not platforms or len(set(platforms)) < len(platforms) or not set(platforms) <= set(PLATFORMS):
        raise ValueError(
            f"platforms is {quoted(','.join(platforms))}: it must be some of {', '.join(PLATFORMS)}, each once"
        )
    if batch is not None and not is_count(batch):
        raise ValueError(f"batch is {quoted(batch)}: it must be at least 1, and at most {MOST}, or None for any")
    if dtype not in (None, "float32", "bfloat16"):
        raise ValueError(f"dtype is {quoted(dtype)}: it must be float32 or bfloat16")
    check_place(path, suffixes=(SUFFIX,), inputs=inputs, piped="bytes")
    if (description_path := _beside(path)) is not None:
        check_place(description_path, inputs=inputs)


def lowered(model: Model, *, platforms: tuple[str, ...], batch: int | None, dtype: str | None) -> jax.export.Exported:
    """The program, not yet written. Arguments as export's."""
    ops = PALLAS if platforms == ("tpu",) else XLA

    def at_once(clips: jax.Array) -> jax.Array:
        return model.logits(clips, dtype=dtype, attention=ops)

    def one_by_one(clips: jax.Array) -> jax.Array:
        return jax.lax.map(lambda clip: at_once(clip[jnp.newaxis])[0], clips)

    config = model.config
    count = jax.export.symbolic_shape("b")[0] if batch is None else batch
    clips = jax.ShapeDtypeStruct((count, config.frames, config.height, config.width, COLORS), np.uint8)
    with _no_source_lines():
        return jax.export.export(jax.jit(one_by_one if batch is None else at_once), platforms=platforms)(clips)


def stored(params: Params, dtype: str | None) -> Params:
    """The weights as the program holds them: what enters a matmul in bfloat16 anyway is in bfloat16 already."""
    if dtype != "bfloat16":
        return params
    rounded = [
        leaf.astype(jnp.bfloat16) if "/blocks/" in name and name.endswith("/kernel") else leaf
        for name, leaf in leaves(params)
    ]
    remaining = iter(rounded)
    return convert(params, lambda _: next(remaining))


@contextmanager
def _no_source_lines() -> Iterator[None]:
    """Else a program names the folders of the machine that it was made on, and differs from one to the other."""
    before = getattr(jax.config, SOURCE_LINES)
    jax.config.update(SOURCE_LINES, 0)
    try:
        yield
    finally:
        jax.config.update(SOURCE_LINES, before)


def _beside(path: Path) -> Path | None:
    return None if str(path) == STANDARD_OUTPUT else path.parent / f"{path.name}.json"


def _described(model: Model, program: jax.export.Exported, batch: int | None, dtype: str | None) -> dict[str, Any]:
    """What a user of the program must know, and where it comes from, as plain values."""
    config, preprocessing = model.config, asdict(model.preprocessing)
    count = "b" if batch is None else batch
    (video,), (logits,) = program.in_avals, program.out_avals
    return {
        "use": "jax.jit(jax.export.deserialize(open(FILE, 'rb').read()).call)(video)",
        "needs": ["flatbuffers", f"jax>={jax.__version__}"],
        "input": {
            "dtype": "uint8",
            "shape": [count, *video.shape[1:]],
            "axes": ["b", "frames", "height", "width", "colors (red, green, blue)"],
        },
        "output": {
            "dtype": "float32",
            "shape": [count, *logits.shape[1:]],
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
        "platforms": program.platforms,
        "attention": "pallas" if b"tpu_custom_call" in program.mlir_module_serialized else "xla",
        "dtype": dtype or "float32",
        "config": asdict(config),
        "calling_convention": program.calling_convention_version,
        "written_with": versions(),
    }
