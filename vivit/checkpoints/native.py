"""Our own format: a folder with config.json (what the model is, names, preprocessing) and model.safetensors.

config.json names the file of the weights, so that replacing config.json, which is atomic, replaces the checkpoint.
The arrays carry the paths of their leaves ("encoder/blocks/mlp/out/kernel") and lie as they are computed with.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vivit.checkpoints.files import read_safetensors
from vivit.checkpoints.renaming import renamed
from vivit.checkpoints.report import Report
from vivit.checkpoints.safetensors_file import write_safetensors
from vivit.checkpoints.spelling import Spelling, read
from vivit.json_files import read_object
from vivit.labels import as_labels, check_heads
from vivit.model import Model
from vivit.preprocessing import Preprocessing
from vivit.reference.config import Config
from vivit.reference.params import Params, convert, leaves, shapes
from vivit.writing import check_folder, new_folder, write_file, write_text

FORMAT, VERSION = "vivit", 1
ALIGNMENT = 64  # bytes; arrays that begin at a multiple of it in memory need no copy to become JAX's on a CPU
DESCRIPTION, WEIGHTS, NEXT_WEIGHTS = "config.json", "model.safetensors", "model.next.safetensors"


def save_native(path: Path, model: Model) -> None:
    """Writes a model as a folder: config.json and model.safetensors. An older checkpoint there is replaced.

    Whenever it is interrupted, the folder holds the old checkpoint or the new one, whole.
    Raises ValueError if path is a file or a folder with another config.json.
    """
    arrays = {name: np.asarray(leaf, np.float32) for name, leaf in leaves(model.params)}
    if path.exists():
        _replace(path, model, arrays)
        return
    with new_folder(path) as folder:
        _write_weights(folder / WEIGHTS, arrays)
        _write_description(folder, model, WEIGHTS)


def load_native(path: Path) -> Model:
    """The model in a folder that save_native wrote; weights stay in the mapped file where JAX can use them there."""
    description = read_object(path / DESCRIPTION)
    description.choice("version", (VERSION,))
    weights = description.choice("weights", (WEIGHTS, NEXT_WEIGHTS))
    if not (path / weights).is_file():
        raise ValueError(f"{path} has no {weights}: its config.json names it")
    config = description.object("config").made(Config)
    preprocessing = description.object("preprocessing").made(Preprocessing)
    stated = description.values.get("labels")
    labels = None if stated is None else as_labels(stated, f"{description.where}: labels")
    heads = description.values.get("heads")
    if heads is not None:
        heads = tuple(heads) if isinstance(heads, list) else (heads,)
        description.checked(check_heads, heads=heads, config=config)
    spelled = _spellings(config)
    arrays = renamed(read_safetensors(path / weights).arrays)
    params, origins = read(arrays, spelled, config, str(path), jax.device_put)
    return Model(
        config=config,
        params=params,
        labels=labels,
        heads=heads,
        preprocessing=preprocessing,
        report=Report(origins, (f"{path}: a checkpoint of this package",)),
    )


def stated_config(path: Path) -> dict[str, Any]:
    """The fields of Config in a folder of ours, unchecked, before its weights are read; none of any other source."""
    description = read_object(path / DESCRIPTION).values if (path / DESCRIPTION).is_file() else {}
    stated = description.get("config") if description.get("format") == FORMAT else None
    return stated if isinstance(stated, dict) else {}


def _spellings(config: Config) -> Params:
    """The Spelling of our own format: every leaf under its path, as it is."""
    tree = shapes(config)
    paths = iter([path for path, _ in leaves(tree)])
    return convert(tree, lambda leaf: Spelling(((next(paths),),), leaf.shape, tuple(range(len(leaf.shape)))))


def _replace(path: Path, model: Model, arrays: dict[str, np.ndarray]) -> None:
    """Writes into a folder that exists. The new weights get the name that the old ones do not have."""
    check_folder(path)
    old = None
    if (path / DESCRIPTION).exists():
        description = read_object(path / DESCRIPTION).values
        if description.get("format") != FORMAT:
            raise ValueError(f"{path} holds another program's {DESCRIPTION}: name another folder")
        old = description.get("weights")
    elif (path / WEIGHTS).exists():
        raise ValueError(f"{path} holds another program's {WEIGHTS}: name another folder")
    new = NEXT_WEIGHTS if old == WEIGHTS else WEIGHTS
    _write_weights(path / new, arrays)
    _write_description(path, model, new)  # from here on the checkpoint is the new one
    if new == NEXT_WEIGHTS:
        try:
            write_file(path / WEIGHTS, lambda temporary: _second_name(path / NEXT_WEIGHTS, temporary))
        except OSError:  # no hard links here: config.json goes on naming the other file
            (path / WEIGHTS).unlink()
            return
        _write_description(path, model, WEIGHTS)
    (path / NEXT_WEIGHTS).unlink(missing_ok=True)


def _write_weights(path: Path, arrays: dict[str, np.ndarray]) -> None:
    write_file(path, lambda temporary: _save_aligned(temporary, arrays, {"format": FORMAT}))


def _save_aligned(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """A safetensors file whose arrays begin at a multiple of ALIGNMENT, by the length of one entry of its metadata."""
    header: dict[str, Any] = {"__metadata__": {**metadata, "padding": ""}}
    place = 0
    for name in sorted(arrays):  # as the library lays arrays of one dtype out
        end = place + arrays[name].nbytes
        header[name] = {"dtype": "F32", "shape": list(arrays[name].shape), "data_offsets": [place, end]}
        place = end
    length = 8 + len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    write_safetensors(path, arrays, {**metadata, "padding": " " * (-length % ALIGNMENT)})


def _write_description(folder: Path, model: Model, weights: str) -> None:
    description = {
        "format": FORMAT,
        "version": VERSION,
        "weights": weights,
        "config": asdict(model.config),
        "preprocessing": asdict(model.preprocessing),
        "labels": model.labels,
        "heads": model.heads,
    }
    text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"
    write_text(folder / DESCRIPTION, text)


def _second_name(path: Path, other: Path) -> None:
    other.unlink()
    os.link(path, other)
