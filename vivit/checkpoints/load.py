"""One call for every video checkpoint: recognised by its content, checked, and made a Model."""

from dataclasses import replace
from pathlib import Path

import jax

from vivit.checkpoints import flax, huggingface, native
from vivit.checkpoints.files import UNPICKLE, kind_of, read_npz, read_safetensors
from vivit.checkpoints.hints import Hints
from vivit.checkpoints.hub import fetch, is_hub_name
from vivit.checkpoints.msgpack_file import read_msgpack
from vivit.checkpoints.report import Report
from vivit.checkpoints.resizing import resized
from vivit.checkpoints.spelling import read
from vivit.checkpoints.torch_names import plain_names, spellings
from vivit.data.opening import Limits
from vivit.json_files import read_object
from vivit.labels import Labels, as_labels, check_labels, read_labels
from vivit.memory import check_model
from vivit.model import Model
from vivit.paths import as_path, is_file, is_folder, status
from vivit.preprocessing import NAMED, Preprocessing, preprocessing_for
from vivit.reference.config import Config, Order, Pooling, Positions, named
from vivit.reference.config import Model as ModelName
from vivit.reference.values import quoted, short_errors

ACCEPTED = (
    "it must be a folder with config.json and model.safetensors (ours or Hugging Face's), that of a training, a "
    "published Flax checkpoint (msgpack), or the same tree as .npz"
)
OF_A_RUN = ("best", "model")  # what vivit.training.loop writes, the first of them that there is


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
) -> Model:
    """The model in a checkpoint: our own folder, a Hugging Face ViViT, a published Flax file or its tree as .npz.

    path: a folder or file, recognised by its content; or "owner/name" on the Hugging Face hub. Of the folder of a
    training it is best/, the model of the best validation, or else model/, the last.
    config: what the checkpoint is, a Config or a name ("vivit-b/16x2-fe"); None: as its names, shapes and config.json
    say. model, sampled_frames, pooling, order, positions, classes: what those do not say of a published tree; an error
    asks for them.
    frames, height, width: the clips that you have. If the checkpoint is for others its positions are interpolated; if
    it does not say its own, these are.
    labels: class names, as vivit.labels.read_labels takes them; None: the checkpoint's. preprocessing: a Preprocessing,
    "published" (-1…1) or "hugging_face" (-3…1); None: what the checkpoint states. limits: its memory is what the model
    may take with one of its clips.

    Returns a Model with float32 weights; model.report lists the origin of every leaf. Raises ValueError in one line,
    and nothing is half loaded, for what is missing, extra, wrongly shaped, not finite, broken, or not determined.
    """
    if classes is not None and not isinstance(classes, (tuple, list)):
        raise ValueError(f"classes is {quoted(classes)}: it must be the number of every head's classes, such as (400,)")
    hints = Hints(
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
    found = _directory(path) if path.is_dir() else _file(path, config, hints)
    if config is not None and config.canonical != found.config.canonical:
        raise ValueError(f"{path} is of {found.config}: it was said to be {config}")
    hints.check(found.config, str(path))
    found = _with_labels(found, labels)
    if preprocessing is not None:
        found = replace(found, preprocessing=_preprocessing(preprocessing, found.config))
        found = replace(found, report=found.report.noted(f"preprocessing: {found.preprocessing.range}, as you said"))
    frames, height, width = hints.size(found.config)
    check_model(replace(found.config, frames=frames, height=height, width=width), memory)
    return resized(found, frames, height, width)


def as_config(config: Config | str | None) -> Config | None:
    """The config that is meant, by itself or by its name."""
    if config is not None and not isinstance(config, (Config, str)):
        raise ValueError(f"config is {quoted(config)}: it must be a vivit.Config or a name, such as vivit-b/16x2-fe")
    return named(config) if isinstance(config, str) else config


def _directory(path: Path) -> Model:
    if not is_file(path / native.DESCRIPTION):
        return _of_a_run(path)
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


def _of_a_run(path: Path) -> Model:
    """The model in a folder of `vivit train`: the one of the best validation; if nothing was validated, the last."""
    found = next((path / name for name in OF_A_RUN if is_file(path / name / native.DESCRIPTION)), None)
    if found is not None:
        model = native.load_native(found)
        return replace(model, report=model.report.noted(f"{found.name}/ of the training in {path}"))
    if is_folder(path / "checkpoints"):
        raise ValueError(f"{path} is a training that has no model yet: its last step or first validation writes one")
    raise ValueError(f"{path} has no {native.DESCRIPTION}: {ACCEPTED}")


def _file(path: Path, config: Config | None, hints: Hints) -> Model:
    kind = kind_of(path)
    if kind == "safetensors":
        return _single_safetensors(path, config)
    if kind == "msgpack":
        return flax.load_tree(read_msgpack(path), config, hints, str(path))
    if kind == "zip":
        return flax.load_tree(read_npz(path), config, hints, str(path))
    if kind == "pickle":
        raise ValueError(f"{path} is a pickle: {UNPICKLE}")
    raise ValueError(f"{path} is {'HDF5' if kind == 'hdf5' else 'nothing known'}: {ACCEPTED}")


def _single_safetensors(path: Path, config: Config | None) -> Model:
    """The file of a folder's weights; alone, PyTorch's names say too little, and the config must be given."""
    if (path.parent / native.DESCRIPTION).is_file():
        return _directory(path.parent)
    if config is None:
        raise ValueError(f"{path} is a file without its config.json: pass the folder, or config=")
    arrays = plain_names(read_safetensors(path).arrays)
    if config.model != "spatio_temporal":
        raise ValueError(f"model is {quoted(config.model)}: PyTorch's names are those of spatio_temporal only")
    params, origins = read(arrays, spellings(config), config, str(path), jax.device_put)
    notes = (f"{path}: the weights of a Hugging Face ViViT", "preprocessing: −1…1: a file of weights states none")
    return Model(config=config, params=params, report=Report(origins, notes))


def _with_labels(model: Model, labels: str | Path | Labels | None) -> Model:
    if labels is None:
        return model
    names = read_labels(labels) if isinstance(labels, (str, Path)) else as_labels(labels)
    if len(names) == 1 and len(model.config.classes) > 1 and len(names[0]) == sum(model.config.classes):
        raise ValueError(f"labels has one list: it must have {len(model.config.classes)}, one a head")
    check_labels(names, model.config)
    return replace(model, labels=names)


def _preprocessing(said: str | Preprocessing, config: Config) -> Preprocessing:
    if isinstance(said, Preprocessing):
        return said
    if said not in NAMED:
        raise ValueError(f"preprocessing is {quoted(said)}: it must be a Preprocessing or one of {', '.join(NAMED)}")
    size = preprocessing_for(config.height, config.width)
    return replace(NAMED[said], resize=size.resize, crop=size.crop)
