"""The stages of another implementation: of transformers, of a Python module that a user names, or of a captured npz."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from vivit import jitted
from vivit.audit.pixel_causes import ClipSource
from vivit.audit.replay import PIXELS
from vivit.checkpoints.files import read_npz
from vivit.checkpoints.huggingface_export import check_exportable
from vivit.checkpoints.load import fetch, is_hub_name
from vivit.checkpoints.save import save
from vivit.files.json_files import read_object
from vivit.files.paths import is_file
from vivit.model_data import ModelData
from vivit.reference.values import one_line, quoted
from vivit.versions import version

TRANSFORMERS = "transformers"


class Other(NamedTuple):
    """Another implementation. name: what it is called. stages: what it computed of the clip, by name."""

    name: str
    stages: dict[str, np.ndarray]


def stages_of(against: str, checkpoint: str | Path, source: ClipSource) -> Other:
    """Runs another implementation on the frames of a clip, with the same weights.

    against: "transformers"; an npz whose keys are the names of `capture=` and "pixels"; or a module (a name that can be
    imported, or a file ending in .py) with a function

        stages(video: str, frames: uint8[n height width 3], checkpoint: str) -> {name: array}

    frames are those of the clip, in their own size, in the order red, green, blue. Every array has a batch axis of 1.
    Raises ValueError, in one line, if nothing of that can be loaded or run, or gives no stage of the model.
    """
    if against == TRANSFORMERS:
        name, stages = f"{TRANSFORMERS} {version(TRANSFORMERS)}", _of_transformers(checkpoint, source)
    elif against.endswith(".npz"):
        if not is_file(against):
            raise ValueError(f"{against} is not a file: it must be an npz of stages")
        name, stages = Path(against).name, read_npz(Path(against))
    else:
        module = _module(against)
        name = Path(against).name
        try:
            stages = module.stages(str(source.video), source.frames(source.indices), str(checkpoint))
        except Exception as error:  # whatever a user's module raises
            raise ValueError(f"{against}: stages() raised {type(error).__name__}: {one_line(str(error))}") from error
    return Other(name, _checked(stages, against, source.model))


def _of_transformers(checkpoint: str | Path, source: ClipSource) -> Mapping[str, np.ndarray]:
    from vivit.audit import capture_torch

    with TemporaryDirectory() as folder:
        path = fetch(str(checkpoint)) if is_hub_name(checkpoint) else Path(checkpoint)
        if not _is_theirs(path):
            check_exportable(vars(source.model.config))
            path = Path(folder) / "checkpoint"
            save(source.model, path, to="huggingface")
        model, processor = capture_torch.load(str(path))
    return capture_torch.capture(model, capture_torch.process(processor, source.frames(source.indices)))


def _is_theirs(path: Path) -> bool:
    """Whether transformers itself reads this folder."""
    file = path / "config.json"
    return file.is_file() and read_object(file).values.get("model_type") == "vivit"


def _module(name: str) -> ModuleType:
    """Imports a module by its name or its file. Raises ValueError unless it has a function `stages`."""
    try:
        if name.endswith(".py"):
            found = importlib.util.spec_from_file_location(Path(name).stem, name)
            module = importlib.util.module_from_spec(found)  # pyright: ignore[reportArgumentType]  # it ends in .py
            found.loader.exec_module(module)  # pyright: ignore[reportOptionalMemberAccess]
        else:
            module = _imported(name)
    except Exception as error:  # whatever a user's module raises
        raise ValueError(f"{name} cannot be imported: {type(error).__name__}: {one_line(str(error))}") from error
    if not callable(getattr(module, "stages", None)):
        raise ValueError(f"{name} has no function stages(video, frames, checkpoint): --against needs one")
    return module


def _imported(name: str) -> ModuleType:
    """Imports a module, of the current folder too, as `python -m` does."""
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(os.getcwd())


def _checked(stages: Any, name: str, model: ModelData) -> dict[str, np.ndarray]:
    """The stages in the order of computation, as arrays; merged or split axes get the reference's shape.

    Raises ValueError for a name that the model does not have, and for what is no array of numbers.
    """
    if not isinstance(stages, Mapping) or not stages:
        raise ValueError(f"{name} gives no stages: it must give a dict of arrays, such as tokens and logits")
    known = jitted.stage_shapes(model.config)
    order = (PIXELS, *known)
    jitted.check_stages(tuple(stages), order)
    found = {}
    for stage in order:
        if stage not in stages:
            continue
        array = np.asarray(stages[stage])
        if not np.issubdtype(array.dtype, np.number) and array.dtype.name != "bfloat16":
            raise ValueError(f"{name}: {stage} has dtype {quoted(array.dtype.name)}: it must be numbers")
        shape = (1, *known.get(stage, (0,)))
        same = array.ndim and (array.size, array.shape[0], array.shape[-1]) == (np.prod(shape), 1, shape[-1])
        found[stage] = np.asarray(array.reshape(shape) if same else array, np.float64)
    return found
