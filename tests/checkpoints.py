"""Checkpoint files for the tests, with the published formats' names: Flax msgpack, npz, Hugging Face folders."""

import json
from pathlib import Path

import msgpack
import numpy as np

import vivit
from vivit.audit.variants import random_params
from vivit.checkpoints import flax_names
from vivit.checkpoints.name_map import write_params
from vivit.pretrained import Model
from vivit.reference.config import Config
from vivit.reference.params import leaves

LARGEST_CHUNK = 1000  # numbers


def model(config: Config, seed: int = 0, **fields) -> Model:
    """A model with random weights in every leaf."""
    return Model(config=config, params=random_params(config, seed), **fields)


def tree(config: Config, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under the published names."""
    return write_params(random_params(config, seed), flax_names.name_map(config), config)


def said(config: Config) -> dict:
    """Returns the config fields that a published tree does not record, as arguments of load."""
    hints = dict(frames=config.frames, height=config.height, width=config.width)
    if config.sampled_frames is not None:
        hints["sampled_frames"] = config.sampled_frames
    if config.pooling != "token":
        hints["pooling"] = config.pooling
        hints["model"] = config.model
    if config.model == "factorised_self_attention":
        hints["order"] = config.order
    if config.positions != "learned":
        hints["positions"] = config.positions
    if config.classes:
        hints["classes"] = config.classes
    return hints


def nested(arrays: dict[str, np.ndarray]) -> dict:
    """Converts joined names to nested dicts."""
    root: dict = {}
    for name, array in arrays.items():
        *folders, last = name.split("/")
        place = root
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = array
    return root


def flax_bytes(value: dict, *, chunks: bool = False) -> bytes:
    """Serialises a dict like Flax: arrays are extension 1, NumPy scalars 3, large arrays optionally in chunks."""

    def packed(array: np.ndarray) -> bytes:
        return msgpack.packb((list(array.shape), array.dtype.name, array.tobytes()), use_bin_type=True)

    def chunked(part):
        if isinstance(part, dict):
            return {key: chunked(inner) for key, inner in part.items()}
        if isinstance(part, np.ndarray) and chunks and part.size > LARGEST_CHUNK:
            flat = part.ravel()
            pieces = [flat[start : start + LARGEST_CHUNK] for start in range(0, flat.size, LARGEST_CHUNK)]
            return {
                "__msgpack_chunked_array__": True,
                "shape": {str(axis): size for axis, size in enumerate(part.shape)},
                "chunks": {str(index): piece for index, piece in enumerate(pieces)},
            }
        return part

    def default(part):
        if isinstance(part, np.ndarray):
            return msgpack.ExtType(1, packed(part))
        return msgpack.ExtType(3, packed(np.asarray(part)))

    return msgpack.packb(chunked(value), default=default, strict_types=True)


def hugging_face_folder(folder: Path, of: Config, **files: dict) -> Path:
    """Writes a Hugging Face folder with random weights. files: further JSON files, or fields of config (config=…)."""
    vivit.save(model(of), folder, to="huggingface")
    for name, value in files.items():
        path = folder / f"{name}.json"
        old = json.loads(path.read_text()) if path.exists() and name == "config" else {}
        path.write_text(json.dumps(old | value))
    return folder


def same(one, other) -> bool:
    """Returns True if two trees have the same leaves with the same numbers."""
    one, other = dict(leaves(one)), dict(leaves(other))
    return one.keys() == other.keys() and all(np.array_equal(one[path], other[path]) for path in one)
