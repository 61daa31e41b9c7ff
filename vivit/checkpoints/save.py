"""Saves a model in any of the formats that can hold it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vivit.checkpoints.flax import flax_arrays
from vivit.checkpoints.huggingface_export import check_exportable, write_vivit
from vivit.checkpoints.name_map import finite
from vivit.checkpoints.native import save_native
from vivit.files.atomic import check_folder, check_writable, write_file
from vivit.files.paths import as_path
from vivit.model_data import ModelData
from vivit.reference.params import leaves
from vivit.reference.values import quoted

Format = Literal["vivit", "huggingface", "npz"]


def save(model: ModelData, path: str | Path, to: Format = "vivit") -> None:
    """Writes a model as a checkpoint.

    to: "vivit", our own folder, which replaces an older checkpoint there; "huggingface", a new folder for transformers
    (model 1 only); "npz", a file of weights alone with the published Flax names, for any of the four models.

    If it is interrupted, the complete old checkpoint or the complete new one exists. Raises ValueError if the format
    cannot hold the model, if weights hold NaN or infinity, or if path holds something other than such a checkpoint.
    """
    path = as_path(path)
    if not isinstance(model, ModelData):
        kind = type(model).__name__
        raise ValueError(f"model is of type {kind}: it must be a vivit.Model, such as vivit.Model(config=…, params=…)")
    check_format(to, vars(model.config))
    check_dest(path, to)
    invalid = [name for name, leaf in leaves(model.params) if not finite(np.asarray(leaf))]
    if invalid:
        raise ValueError(f"params hold NaN or infinity in {', '.join(invalid)}: they must be finite to be saved")
    if to == "vivit":
        save_native(path, model)
    elif to == "huggingface":
        write_vivit(path, model)
    else:
        write_file(path, lambda temporary: _write_npz(temporary, flax_arrays(model)))


def check_format(to: str, known: Mapping[str, Any]) -> None:
    """Raises ValueError unless `to` is a format that can hold a model with these Config fields.

    known: the fields known so far.
    """
    if to not in get_args(Format):
        raise ValueError(f"to is {quoted(to)}: it must be one of {', '.join(get_args(Format))}")
    if to == "huggingface":
        check_exportable(known)


def check_dest(path: Path, to: str, inputs: Iterable[str | Path] = ()) -> None:
    """Raises ValueError unless a checkpoint of this format can be written at path. inputs: files that are read."""
    if to == "npz":
        check_writable(path, suffixes=(".npz",), inputs=inputs)
    else:
        check_folder(path, inputs=inputs, new=to == "huggingface")


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # NumPy would append .npz to a file name
        np.savez(file, allow_pickle=False, **arrays)
