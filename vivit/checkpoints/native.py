"""Reads and writes our own format: a folder with config.json (config, labels, preprocessing) and model.safetensors.

config.json names the file of the weights, so replacing config.json, which is atomic, replaces the checkpoint. The
arrays are named by the paths of their leaves ("encoder/blocks/mlp/out/kernel") and have the layout of the computation.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vivit.checkpoints.files import read_safetensors, write_safetensors
from vivit.checkpoints.name_map import FileLeaf, read_params, renamed
from vivit.files.atomic import atomic_dir, check_folder, write_file, write_text
from vivit.files.json_files import read_object
from vivit.labels import as_labels, check_heads
from vivit.model_data import ModelData, Report
from vivit.reference.config import Config
from vivit.reference.params import Params, convert, leaves, shapes
from vivit.video.preprocessing import Preprocessing

FORMAT, VERSION = "vivit", 1
ALIGNMENT = 64  # bytes; JAX on a CPU uses arrays at multiples of it without a copy
DESCRIPTION, WEIGHTS, NEXT_WEIGHTS = "config.json", "model.safetensors", "model.next.safetensors"


def save_native(path: Path, model: ModelData) -> None:
    """Writes a model as a folder: config.json and model.safetensors. An older checkpoint there is replaced.

    If it is interrupted, the folder holds the complete old checkpoint or the complete new one. Raises ValueError if
    path is a file, or a folder with another program's config.json.
    """
    arrays = {name: np.asarray(leaf, np.float32) for name, leaf in leaves(model.params)}
    if path.exists():
        _replace(path, model, arrays)
        return
    with atomic_dir(path) as folder:
        _write_weights(folder / WEIGHTS, arrays)
        _write_description(folder, model, WEIGHTS)


def load_native(path: Path) -> ModelData:
    """Returns the model in a folder that save_native wrote.

    Weights stay in the mapped file where JAX can use them there.
    """
    description = read_object(path / DESCRIPTION)
    description.choice("version", (VERSION,))
    weights = description.choice("weights", (WEIGHTS, NEXT_WEIGHTS))
    if not (path / weights).is_file():
        raise ValueError(f"{path} has no {weights}: its config.json names it")
    config = description.object("config").build(Config)
    preprocessing = description.object("preprocessing").build(Preprocessing)
    stated = description.values.get("labels")
    labels = None if stated is None else as_labels(stated, f"{description.source}: labels")
    heads = description.values.get("heads")
    if heads is not None:
        heads = tuple(heads) if isinstance(heads, list) else (heads,)
        description.call(check_heads, heads=heads, config=config)
    file_leaves = _name_map(config)
    arrays = renamed(read_safetensors(path / weights).arrays)
    params, origins = read_params(arrays, file_leaves, config, str(path), jax.device_put)
    return ModelData(
        config=config,
        params=params,
        labels=labels,
        heads=heads,
        preprocessing=preprocessing,
        report=Report(origins, (f"{path}: a checkpoint of this package",)),
    )


def read_config_fields(path: Path) -> dict[str, Any]:
    """Returns the Config fields in a folder of our format, unchecked, without reading weights; {} for other sources."""
    description = read_object(path / DESCRIPTION).values if (path / DESCRIPTION).is_file() else {}
    stated = description.get("config") if description.get("format") == FORMAT else None
    return stated if isinstance(stated, dict) else {}


def _name_map(config: Config) -> Params:
    """Returns the FileLeaf tree of our own format: every leaf under its path, with its shape."""
    return convert(shapes(config), lambda path, leaf: FileLeaf(((path,),), leaf.shape, tuple(range(len(leaf.shape)))))


def _replace(path: Path, model: ModelData, arrays: dict[str, np.ndarray]) -> None:
    """Writes into an existing folder. The new weights get the file name that the old ones do not have."""
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
    _write_description(path, model, new)  # from here on the new checkpoint is valid
    if new == NEXT_WEIGHTS:
        try:
            write_file(path / WEIGHTS, lambda temporary: _hard_link(path / NEXT_WEIGHTS, temporary))
        except OSError:  # no hard links: config.json keeps the name of the other file
            (path / WEIGHTS).unlink()
            return
        _write_description(path, model, WEIGHTS)
    (path / NEXT_WEIGHTS).unlink(missing_ok=True)


def _write_weights(path: Path, arrays: dict[str, np.ndarray]) -> None:
    write_file(path, lambda temporary: _save_aligned(temporary, arrays, {"format": FORMAT}))


def _save_aligned(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes a safetensors file whose arrays begin at multiples of ALIGNMENT, by padding an entry of its metadata."""
    header: dict[str, Any] = {"__metadata__": {**metadata, "padding": ""}}
    offset = 0
    for name in sorted(arrays):  # the library's order of arrays of one dtype
        end = offset + arrays[name].nbytes
        header[name] = {"dtype": "F32", "shape": list(arrays[name].shape), "data_offsets": [offset, end]}
        offset = end
    length = 8 + len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    write_safetensors(path, arrays, {**metadata, "padding": " " * (-length % ALIGNMENT)})


def _write_description(folder: Path, model: ModelData, weights: str) -> None:
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


def _hard_link(path: Path, other: Path) -> None:
    other.unlink()
    os.link(path, other)
