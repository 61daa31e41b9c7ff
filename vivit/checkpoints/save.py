"""A model into any format that can hold it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vivit.checkpoints.flax import tree_of
from vivit.checkpoints.huggingface_export import check_port, write_vivit
from vivit.checkpoints.native import save_native
from vivit.checkpoints.spelling import finite
from vivit.model import Model
from vivit.paths import as_path
from vivit.reference.params import leaves
from vivit.reference.values import quoted
from vivit.writing import check_folder, check_place, write_file

Format = Literal["vivit", "huggingface", "npz"]


def save(path: str | Path, model: Model, to: Format = "vivit") -> None:
    """Writes a model as a checkpoint.

    to: "vivit", our own folder, where an older checkpoint is replaced; "huggingface", a new folder for transformers
    (model 1 only); "npz", a file with the published Flax names of any of the four models, which holds weights alone.
    Whenever it is interrupted, the old checkpoint or the new one is there, whole.
    Raises ValueError if the format cannot hold the model, if weights hold NaN or infinity, or if path holds something
    else.
    """
    path = as_path(path)
    if not isinstance(model, Model):
        kind = type(model).__name__
        raise ValueError(f"model is of type {kind}: it must be a vivit.Model, such as vivit.Model(config=…, params=…)")
    check_format(to, vars(model.config))
    check_dest(path, to)
    broken = [name for name, leaf in leaves(model.params) if not finite(np.asarray(leaf))]
    if broken:
        raise ValueError(f"params hold NaN or infinity in {', '.join(broken)}: they must be finite to be saved")
    if to == "vivit":
        save_native(path, model)
    elif to == "huggingface":
        write_vivit(path, model)
    else:
        write_file(path, lambda temporary: _write_npz(temporary, tree_of(model)))


def check_format(to: str, known: Mapping[str, Any]) -> None:
    """Raises ValueError unless `to` is a format that can hold a model of which these fields of its Config are known."""
    if to not in get_args(Format):
        raise ValueError(f"to is {quoted(to)}: it must be one of {', '.join(get_args(Format))}")
    if to == "huggingface":
        check_port(known)


def check_dest(path: Path, to: str, inputs: Iterable[str | Path] = ()) -> None:
    """Raises ValueError unless a checkpoint of this format can be written there. inputs: what is read."""
    if to == "npz":
        check_place(path, suffixes=(".npz",), inputs=inputs)
    else:
        check_folder(path, inputs=inputs, new=to == "huggingface")


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # given a name, NumPy would add .npz to it
        np.savez(file, allow_pickle=False, **arrays)
