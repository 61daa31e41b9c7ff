"""Reads Hugging Face directories: config.json, a processor's JSON file, and safetensors in one or several files.

It reads ViViT, with or without a classifier, and the parts that ViT's directories share with it. huggingface_export.py
writes them.
"""

import re
from pathlib import Path
from typing import Any

import jax

from vivit.checkpoints.files import UNPICKLE, Arrays, read_safetensors
from vivit.checkpoints.name_map import read_params
from vivit.checkpoints.torch_names import name_map, plain_names
from vivit.files.json_files import Fields, read_object
from vivit.labels import Labels, as_labels
from vivit.model_data import ModelData, Report
from vivit.reference.config import COLORS, Config
from vivit.reference.values import is_count, is_number, quoted, shortened
from vivit.video.preprocessing import Preprocessing, preprocessing_for

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PREPROCESSOR = "preprocessor_config.json"
# written by newer versions of transformers
VIDEO_PREPROCESSOR, PROCESSORS = "video_preprocessor_config.json", "processor_config.json"
GELU = {  # the activations of transformers that equal one of our forms
    **dict.fromkeys(("gelu", "gelu_python"), "erf"),
    **dict.fromkeys(("gelu_fast", "gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"), "tanh"),
}
PLACEHOLDER = "LABEL_"  # prefix of generated class names


def load_vivit(path: Path) -> ModelData:
    """Returns the model in a directory of VivitForVideoClassification or VivitModel. A pooler becomes a representation.

    Raises ValueError, naming the file, if files are missing or damaged, or the architecture is another.
    """
    description, arrays = read_object(path / CONFIG), plain_names(read_weights(path))
    config = _config(description, arrays.arrays)
    labels = class_names(description, config)
    stated = stated_preprocessing(path)
    bias = description.flag("qkv_bias", True)
    params, origins = read_params(arrays, name_map(config, qkv_bias=bias), config, str(path), jax.device_put)
    preprocessing = stated or preprocessing_for(config.height, config.width)
    origin = "from the checkpoint" if stated else "of the published code: the checkpoint has none"
    notes = (f"{path}: a Hugging Face ViViT", f"preprocessing: {preprocessing.range}, {origin}")
    return ModelData(
        config=config, params=params, labels=labels, preprocessing=preprocessing, report=Report(origins, notes)
    )


def read_weights(path: Path) -> Arrays:
    """Returns the arrays of a directory: of model.safetensors, or of all files that its index names.

    Raises ValueError if there is neither, or only a pickle, or if the index names files outside the directory or does
    not match them.
    """
    if (path / WEIGHTS).is_file():
        return read_safetensors(path / WEIGHTS).arrays
    if not (path / INDEX).is_file():
        pickles = sorted(file.name for file in path.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".ckpt", ".h5"))
        if pickles:
            raise ValueError(f"{path} has its weights in {pickles[0]}, a pickle: {UNPICKLE}")
        raise ValueError(f"{path} has no weights: it must have {WEIGHTS} or {INDEX}")
    file_of = read_object(path / INDEX).object("weight_map").values
    if not file_of or not all(isinstance(name, str) for name in file_of.values()):
        raise ValueError(f"{path / INDEX} has an invalid weight_map: it must name the file of every array")
    arrays: Arrays = {}
    for name in sorted(set(file_of.values())):
        if len(name) > 255 or name != Path(name).name or "\\" in name or name in ("", ".", ".."):
            raise ValueError(f"{path / INDEX} names {quoted(name)}: it must be a file of this directory")
        if not (path / name).is_file():
            raise ValueError(f"{path} has no {shortened(name)}: {INDEX} names it")
        for key, array in read_safetensors(path / name).arrays.items():
            if file_of.get(key) != name:
                raise ValueError(f"{path / name} holds {key}: {INDEX} places it in {file_of.get(key)}")
            arrays[key] = array
    if missing := sorted(file_of.keys() - arrays.keys()):
        raise ValueError(f"{path} lacks arrays that its {INDEX} names: {', '.join(missing)}")
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
            raise ValueError(f"{description.source}: {name} is a scalar: it must have one row per class")
    return description.call(
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


def sizes(description: Fields, name: str, default: int) -> tuple[int, int]:
    """Returns (height, width) of a field that is a list of both, or one number for both."""
    value = description.get(name, "a positive integer, or a list of two, height and width", _is_size, default)
    return (value[0], value[1]) if isinstance(value, list) else (value, value)


def _is_size(value: Any) -> bool:
    return is_count(value) or (isinstance(value, list) and len(value) == 2 and all(map(is_count, value)))


def blocks(description: Fields, arrays: Arrays, gelu: str, epsilon: float) -> dict[str, Any]:
    """Returns the Config fields that ViViT's and ViT's config.json share.

    gelu, epsilon: the architecture's defaults. Raises ValueError if the weights have another number of layers than
    config.json.
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
    """Raises ValueError unless frames have three color channels."""
    description.choice("num_channels", (COLORS,), COLORS)


def class_names(description: Fields, config: Config) -> Labels | None:
    """Returns the names in id2label; None if they are placeholders or their number is not that of the classes."""
    stated = description.values.get("id2label")
    if not config.classes or not isinstance(stated, dict) or len(stated) != sum(config.classes):
        return None
    labels = as_labels(stated, f"{description.source}: id2label")
    return None if all(name.startswith(PLACEHOLDER) for name in labels[0]) else labels


def stated_preprocessing(path: Path) -> Preprocessing | None:
    """Returns the preprocessing that a directory states, from the first file in transformers' order, or None."""
    combined = read_object(path / PROCESSORS) if (path / PROCESSORS).is_file() else Fields({}, PROCESSORS)
    for name, file in (("video_processor", VIDEO_PREPROCESSOR), ("image_processor", PREPROCESSOR)):
        if name in combined:
            return _preprocessing(combined.object(name))
        if (path / file).is_file():
            return _preprocessing(read_object(path / file))
    return None


def _preprocessing(stated: Fields) -> Preprocessing:
    """Returns the preprocessing of a processor's JSON.

    ViViT's image processor shifts by −1 unless `offset` is false; its video processor always does, as it has no such
    option. ViT's processors never shift, and do not crop.
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
    return stated.call(
        Preprocessing,
        resize=resize,
        crop=crop,
        rescale=stated.number("rescale_factor", 1 / 127.5 if video else 1 / 255) if rescales else 1.0,
        offset=float(bool(rescales and offset)),
        mean=_colors(stated, "image_mean") if normalises else (0.0, 0.0, 0.0),
        std=_colors(stated, "image_std") if normalises else (1.0, 1.0, 1.0),
        stride=stated.count("stride", Preprocessing.stride),  # our own field: the port's processor receives frames
    )


def _size(stated: Fields, name: str, default: dict[str, int], *, short: bool) -> Any:
    """Returns (height, width), or the shorter side alone for shortest_edge, or for a single number if `short`."""
    value = stated.get(
        name, "a positive integer or a JSON object", lambda one: is_count(one) or isinstance(one, dict), default
    )
    if not isinstance(value, dict):
        return value if short else (value, value)
    edges = Fields(value, f"{stated.source}: {name}")
    if edges.values.get("shortest_edge") is not None and name == "size":
        return edges.count("shortest_edge")
    return edges.count("height"), edges.count("width")


def _colors(stated: Fields, name: str) -> Any:
    """Returns three numbers; a single number stands for all three colors."""
    value = stated.get(name, "a number, or three", _is_colors, 0.5)
    return tuple(value) if isinstance(value, list) else (value,) * 3


def _is_colors(value: Any) -> bool:
    return is_number(value) or (isinstance(value, list) and len(value) == 3 and all(map(is_number, value)))
