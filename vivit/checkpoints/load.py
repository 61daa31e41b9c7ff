"""Loads any video checkpoint as a Model: recognises the format by its content and checks every array.

A name "owner/name" is a checkpoint on the Hugging Face hub, downloaded and cached by huggingface_hub.
"""

import re
from dataclasses import replace
from pathlib import Path

import jax

from vivit.checkpoints import flax, huggingface, native
from vivit.checkpoints.files import UNPICKLE, file_format, read_npz, read_safetensors
from vivit.checkpoints.msgpack_file import read_msgpack
from vivit.checkpoints.name_map import read_params
from vivit.checkpoints.overrides import Overrides
from vivit.checkpoints.resizing import resized
from vivit.checkpoints.torch_names import name_map, plain_names
from vivit.files.json_files import read_object
from vivit.files.paths import as_path, is_file, is_folder, status
from vivit.labels import Labels, as_labels, check_labels, read_labels
from vivit.memory import check_model
from vivit.model_data import ModelData, Report
from vivit.reference.config import Config, Order, Pooling, Positions, named
from vivit.reference.config import Model as ModelName
from vivit.reference.values import quoted, short_errors
from vivit.video.container import Limits
from vivit.video.preprocessing import NAMED, Preprocessing, preprocessing_for

ACCEPTED = (
    "it must be a folder with config.json and model.safetensors (ours or Hugging Face's), the folder of a training, a "
    "published Flax checkpoint (msgpack), or the same tree as .npz"
)
RUN_MODELS = ("best", "model")  # written by vivit.training.loop; the first one that exists is loaded


@short_errors()
def load(
    path: str | Path,
    config: Config | str | None = None,
    *,
    model: ModelName | None = None,
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    sampled_frames: int | None = None,
    pooling: Pooling | None = None,
    order: Order | None = None,
    positions: Positions | None = None,
    classes: tuple[int, ...] | None = None,
    labels: str | Path | Labels | None = None,
    preprocessing: str | Preprocessing | None = None,
    limits: Limits | None = None,
) -> ModelData:
    """Returns the model in a checkpoint: our own folder, a Hugging Face ViViT, or a published Flax tree (msgpack or
    npz).

    path: a folder or file, recognised by its content; or "owner/name" on the Hugging Face hub. The folder of a training
        stands for its best/, the model of the best validation, or else its model/, the last.
    config: the checkpoint's Config or its name ("vivit-b/16x2-fe"); None: inferred from names, shapes and config.json.
    model, sampled_frames, pooling, order, positions, classes: Config fields that a published tree does not record. An
        error names those that are missing.
    frames, height, width: the size of your clips. If the checkpoint has another size, its positions are interpolated.
        If it records no size, this is its size.
    labels: class names, as in vivit.labels.read_labels; None: the checkpoint's.
    preprocessing: a Preprocessing, "published" (-1…1) or "hugging_face" (-3…1); None: the checkpoint's.
    limits: its memory is the limit of the model with one of its clips.

    Returns a Model with float32 weights; model.report lists the source of every leaf. Raises a one-line ValueError for
    arrays that are missing, superfluous, wrongly shaped or not finite, for damaged files, and for undetermined fields.
    """
    if classes is not None and not isinstance(classes, (tuple, list)):
        raise ValueError(f"classes is {quoted(classes)}: it must be the number of every head's classes, such as (400,)")
    overrides = Overrides(
        model=model,
        frames=frames,
        height=height,
        width=width,
        sampled_frames=sampled_frames,
        pooling=pooling,
        order=order,
        positions=positions,
        classes=None if classes is None else tuple(classes),
    )
    config = as_config(config)
    memory = (limits or Limits()).memory
    if config is not None:
        check_model(config, memory)
    named_path = as_path(path)
    path = fetch(str(path)) if is_hub_name(path) else named_path
    if status(path) is None:
        raise ValueError(f"{path} does not exist: {ACCEPTED}")
    loaded = _directory(path) if path.is_dir() else _file(path, config, overrides)
    if config is not None and config.canonical != loaded.config.canonical:
        raise ValueError(f"{path} is of {loaded.config}: config is {config}")
    overrides.check(loaded.config, str(path))
    loaded = _with_labels(loaded, labels)
    if preprocessing is not None:
        loaded = replace(loaded, preprocessing=_preprocessing(preprocessing, loaded.config))
        loaded = replace(
            loaded, report=loaded.report.with_notes(f"preprocessing: {loaded.preprocessing.range}, as requested")
        )
    frames, height, width = overrides.size(loaded.config)
    check_model(replace(loaded.config, frames=frames, height=height, width=width), memory)
    return resized(loaded, frames, height, width)


def as_config(config: Config | str | None) -> Config | None:
    """Returns a config that is given as a Config or by its name."""
    if config is not None and not isinstance(config, (Config, str)):
        raise ValueError(f"config is {quoted(config)}: it must be a vivit.Config or a name, such as vivit-b/16x2-fe")
    return named(config) if isinstance(config, str) else config


def _directory(path: Path) -> ModelData:
    if not is_file(path / native.DESCRIPTION):
        return _run_folder(path)
    description = read_object(path / native.DESCRIPTION).values
    if description.get("format") == native.FORMAT:
        return native.load_native(path)
    if description.get("model_type") == "vivit":
        return huggingface.load_vivit(path)
    if description.get("model_type") in ("vit", "deit") or "architecture" in description:
        raise ValueError(f"{path} is an image model: start from it with vivit.from_image_model")
    raise ValueError(
        f"{path} has model_type {quoted(description.get('model_type'))}: it must be vivit, or our own format"
    )


def _run_folder(path: Path) -> ModelData:
    """Returns the model in a folder of `vivit train`: of the best validation, or the last if nothing was validated."""
    found = next((path / name for name in RUN_MODELS if is_file(path / name / native.DESCRIPTION)), None)
    if found is not None:
        model = native.load_native(found)
        return replace(model, report=model.report.with_notes(f"{found.name}/ of the training in {path}"))
    if is_folder(path / "checkpoints"):
        raise ValueError(f"{path} is a training without a model yet: its first validation or last step writes one")
    raise ValueError(f"{path} has no {native.DESCRIPTION}: {ACCEPTED}")


def _file(path: Path, config: Config | None, overrides: Overrides) -> ModelData:
    kind = file_format(path)
    if kind == "safetensors":
        return _single_safetensors(path, config)
    if kind == "msgpack":
        return flax.load_tree(read_msgpack(path), config, overrides, str(path))
    if kind == "zip":
        return flax.load_tree(read_npz(path), config, overrides, str(path))
    if kind == "pickle":
        raise ValueError(f"{path} is a pickle: {UNPICKLE}")
    raise ValueError(f"{path} is {'HDF5' if kind == 'hdf5' else 'of no known format'}: {ACCEPTED}")


def _single_safetensors(path: Path, config: Config | None) -> ModelData:
    """Loads one file of weights. Its folder's config.json is used if there is one; otherwise `config` is required."""
    if (path.parent / native.DESCRIPTION).is_file():
        return _directory(path.parent)
    if config is None:
        raise ValueError(f"{path} is a file without its config.json: pass the folder, or config=")
    arrays = plain_names(read_safetensors(path).arrays)
    if config.model != "spatio_temporal":
        raise ValueError(f"model is {quoted(config.model)}: PyTorch's names exist for spatio_temporal only")
    params, origins = read_params(arrays, name_map(config), config, str(path), jax.device_put)
    notes = (f"{path}: the weights of a Hugging Face ViViT", "preprocessing: −1…1: a file of weights states none")
    return ModelData(config=config, params=params, report=Report(origins, notes))


def _with_labels(model: ModelData, labels: str | Path | Labels | None) -> ModelData:
    if labels is None:
        return model
    names = read_labels(labels) if isinstance(labels, (str, Path)) else as_labels(labels)
    if len(names) == 1 and len(model.config.classes) > 1 and len(names[0]) == sum(model.config.classes):
        raise ValueError(f"labels has one list: it must have {len(model.config.classes)}, one per head")
    check_labels(names, model.config)
    return replace(model, labels=names)


def _preprocessing(given: str | Preprocessing, config: Config) -> Preprocessing:
    if isinstance(given, Preprocessing):
        return given
    if given not in NAMED:
        raise ValueError(f"preprocessing is {quoted(given)}: it must be a Preprocessing or one of {', '.join(NAMED)}")
    size = preprocessing_for(config.height, config.width)
    return replace(NAMED[given], resize=size.resize, crop=size.crop)


def is_hub_name(path: str | Path) -> bool:
    """Returns whether a path has the form "owner/name" and neither it nor the folder `owner` exists on this machine."""
    text = str(path)
    return (
        isinstance(path, str)
        and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) is not None
        and not Path(text).exists()
        and not Path(text).parent.exists()
    )


def fetch(name: str) -> Path:
    """Returns the folder of a checkpoint in huggingface_hub's cache.

    Downloads its JSON and safetensors files if necessary.

    Raises ValueError if huggingface_hub is not installed, or with the library's message if the download fails.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(
            f"{name} is not on this machine, and downloading it from the hub needs huggingface_hub: "
            'install it with: pip install "vivit[hub]"'
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the library raises many types of errors
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{name} could not be downloaded from the hub: {reason[0] if reason else type(error).__name__}"
        ) from None
