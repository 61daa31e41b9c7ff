"""Hugging Face directories: config.json, a processor's JSON file and safetensors in one or several files.

Reads ViViT (classifier or bare), and what ViT's directories share with it; huggingface_export.py writes them.
"""

import re
from pathlib import Path
from typing import Any

import jax

from vivit.checkpoints.files import UNPICKLE, Arrays, read_safetensors
from vivit.checkpoints.report import Report
from vivit.checkpoints.spelling import read
from vivit.checkpoints.torch_names import plain_names, spellings
from vivit.json_files import Fields, read_object
from vivit.labels import Labels, as_labels
from vivit.model import Model
from vivit.preprocessing import Preprocessing, preprocessing_for
from vivit.reference.config import COLORS, Config
from vivit.reference.values import is_count, is_number, quoted, shortened

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PREPROCESSOR = "preprocessor_config.json"
VIDEO_PREPROCESSOR, PROCESSORS = "video_preprocessor_config.json", "processor_config.json"  # newer transformers write
GELU = {  # of all activations in transformers those that are one of our forms
    **dict.fromkeys(("gelu", "gelu_python"), "erf"),
    **dict.fromkeys(("gelu_fast", "gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"), "tanh"),
}
PLACEHOLDER = "LABEL_"  # what stands for a class that has no name


def load_vivit(path: Path) -> Model:
    """The model in a directory of VivitForVideoClassification or VivitModel, whose pooler becomes a representation.

    Raises ValueError, naming the file, for what is missing, broken, or not this architecture.
    """
    description, arrays = read_object(path / CONFIG), plain_names(read_weights(path))
    config = _config(description, arrays.arrays)
    labels = class_names(description, config)
    stated = stated_preprocessing(path)
    bias = description.flag("qkv_bias", True)
    params, origins = read(arrays, spellings(config, qkv_bias=bias), config, str(path), jax.device_put)
    preprocessing = stated or preprocessing_for(config.height, config.width)
    said = "as the checkpoint states" if stated else "the published code's: the checkpoint states none"
    notes = (f"{path}: a Hugging Face ViViT", f"preprocessing: {preprocessing.range}, {said}")
    return Model(
        config=config, params=params, labels=labels, preprocessing=preprocessing, report=Report(origins, notes)
    )


def read_weights(path: Path) -> Arrays:
    """The arrays of a directory: of model.safetensors, or of all the files that its index names.

    Raises ValueError if there is neither, only a pickle, or the index names files outside or does not fit them.
    """
    if (path / WEIGHTS).is_file():
        return read_safetensors(path / WEIGHTS).arrays
    if not (path / INDEX).is_file():
        pickles = sorted(file.name for file in path.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".ckpt", ".h5"))
        if pickles:
            raise ValueError(f"{path} has its weights in {pickles[0]}, a pickle: {UNPICKLE}")
        raise ValueError(f"{path} has no weights: it must have {WEIGHTS} or {INDEX}")
    placed = read_object(path / INDEX).object("weight_map").values
    if not placed or not all(isinstance(name, str) for name in placed.values()):
        raise ValueError(f"{path / INDEX} has a weight_map of other kinds: it must name the file of every array")
    arrays: Arrays = {}
    for name in sorted(set(placed.values())):
        if len(name) > 255 or name != Path(name).name or "\\" in name or name in ("", ".", ".."):
            raise ValueError(f"{path / INDEX} names {quoted(name)}: it must be a file of this directory")
        if not (path / name).is_file():
            raise ValueError(f"{path} has no {shortened(name)}: {INDEX} names it")
        for key, array in read_safetensors(path / name).arrays.items():
            if placed.get(key) != name:
                raise ValueError(f"{path / name} holds {key}: {INDEX} places it in {placed.get(key)}")
            arrays[key] = array
    if missing := sorted(placed.keys() - arrays.keys()):
        raise ValueError(f"{path} has not what its {INDEX} names: {', '.join(missing)}")
    return arrays


def _config(description: Fields, arrays: Arrays) -> Config:
    height, width = sizes(description, "image_size", 224)
    check_colors(description)
    head = arrays.get("classifier.weight")
    pooler = arrays.get("pooler.dense.bias")
    if pooler is not None:
        description.choice("pooler_act", ("tanh",), "tanh")
    for name, array in (("classifier.weight", head), ("pooler.dense.bias", pooler)):
        if array is not None and not array.ndim:
            raise ValueError(f"{description.where}: {name} has no axis: it must have a number for each class")
    return description.checked(
        Config,
        model="spatio_temporal",
        frames=description.count("num_frames", 32),
        height=height,
        width=width,
        tubelet=tuple(description.counts("tubelet_size", 3, (2, 16, 16))),
        classes=() if head is None else (len(head),),
        representation=None if pooler is None else len(pooler),
        **blocks(description, arrays, "gelu_fast", 1e-6),
    )


def sizes(description: Fields, name: str, otherwise: int) -> tuple[int, int]:
    """(height, width) of a field that is a list of the two, or one number for both."""
    value = description.get(name, "a positive integer, or a list of two, height and width", _is_size, otherwise)
    return (value[0], value[1]) if isinstance(value, list) else (value, value)


def _is_size(value: Any) -> bool:
    return is_count(value) or (isinstance(value, list) and len(value) == 2 and all(map(is_count, value)))


def blocks(description: Fields, arrays: Arrays, gelu: str, epsilon: float) -> dict[str, Any]:
    """The fields of a Config that a ViViT's and a ViT's config.json share, with that architecture's defaults.

    Raises ValueError if the weights have another number of layers: what config.json says is not believed alone.
    """
    found = {match[1] for name in arrays if (match := re.match(r"encoder\.layer\.(\d+)\.", name))}
    layers = description.values.get("num_hidden_layers", 12)
    if layers != len(found):
        raise ValueError(f"num_hidden_layers is {quoted(layers)}: the weights have {len(found)} layers")
    return dict(
        channels=description.count("hidden_size", 768),
        layers=len(found),
        heads=description.count("num_attention_heads", 12),
        hidden=description.count("intermediate_size", 3072),
        gelu=GELU[description.choice("hidden_act", GELU, gelu)],
        epsilon=description.number("layer_norm_eps", epsilon),
    )


def check_colors(description: Fields) -> None:
    """Raises ValueError unless pictures have three colors."""
    description.choice("num_channels", (COLORS,), COLORS)


def class_names(description: Fields, config: Config) -> Labels | None:
    """The names in id2label, unless they are placeholders or of another number of classes."""
    stated = description.values.get("id2label")
    if not config.classes or not isinstance(stated, dict) or len(stated) != sum(config.classes):
        return None
    labels = as_labels(stated, f"{description.where}: id2label")
    return None if all(name.startswith(PLACEHOLDER) for name in labels[0]) else labels


def stated_preprocessing(path: Path) -> Preprocessing | None:
    """What a directory states, in the order in which transformers looks for it; None if it states nothing."""
    together = read_object(path / PROCESSORS) if (path / PROCESSORS).is_file() else Fields({}, PROCESSORS)
    for name, file in (("video_processor", VIDEO_PREPROCESSOR), ("image_processor", PREPROCESSOR)):
        if name in together:
            return _preprocessing(together.object(name))
        if (path / file).is_file():
            return _preprocessing(read_object(path / file))
    return None


def _preprocessing(stated: Fields) -> Preprocessing:
    """ViViT's image processor shifts by −1 unless told otherwise, its video processor always, as no offset is asked.

    ViT's never shift, and do not crop.
    """
    kind = stated.values.get("image_processor_type") or stated.values.get("video_processor_type") or "Vivit"
    video = isinstance(kind, str) and kind.startswith("Vivit")
    offset = stated.flag("offset", video) or kind == "VivitVideoProcessor"
    resize: Any = None
    if stated.flag("do_resize", True):
        resize = _size(stated, "size", {"shortest_edge": 256} if video else {"height": 224, "width": 224}, short=video)
    crop: Any = None
    if stated.flag("do_center_crop", video):
        crop = _size(stated, "crop_size", {"height": 224, "width": 224}, short=False)
    rescales, normalises = stated.flag("do_rescale", True), stated.flag("do_normalize", True)
    return stated.checked(
        Preprocessing,
        resize=resize,
        crop=crop,
        rescale=stated.number("rescale_factor", 1 / 127.5 if video else 1 / 255) if rescales else 1.0,
        offset=float(bool(rescales and offset)),
        mean=_colors(stated, "image_mean") if normalises else (0.0, 0.0, 0.0),
        std=_colors(stated, "image_std") if normalises else (1.0, 1.0, 1.0),
        stride=stated.count("stride", Preprocessing.stride),  # ours: the port's processor is given frames
    )


def _size(stated: Fields, name: str, otherwise: dict[str, int], *, short: bool) -> Any:
    """(height, width), or where an object says shortest_edge, or one number means it, the shorter side alone."""
    value = stated.get(
        name, "a positive integer or a JSON object", lambda one: is_count(one) or isinstance(one, dict), otherwise
    )
    if not isinstance(value, dict):
        return value if short else (value, value)
    edges = Fields(value, f"{stated.where}: {name}")
    if edges.values.get("shortest_edge") is not None and name == "size":
        return edges.count("shortest_edge")
    return edges.count("height"), edges.count("width")


def _colors(stated: Fields, name: str) -> Any:
    """Three numbers, or one for all colors."""
    value = stated.get(name, "a number, or three", _is_colors, 0.5)
    return tuple(value) if isinstance(value, list) else (value,) * 3


def _is_colors(value: Any) -> bool:
    return is_number(value) or (isinstance(value, list) and len(value) == 3 and all(map(is_number, value)))
