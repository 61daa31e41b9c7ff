"""Hugging Face directories: config.json, a processor's JSON file and safetensors in one or several files.

Reads ViViT (classifier or bare), and what ViT's directories share with it; huggingface_export.py writes them.
"""

import re
from pathlib import Path
from typing import Any

import jax

from vivit.checkpoints.files import UNPICKLE, Arrays, read_json, read_safetensors
from vivit.checkpoints.report import Report
from vivit.checkpoints.spelling import read
from vivit.checkpoints.torch_names import plain_names, spellings
from vivit.labels import Labels, as_labels
from vivit.model import Model
from vivit.preprocessing import Preprocessing, preprocessing_for
from vivit.reference.config import COLORS, Config

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
    description, arrays = read_json(path / CONFIG), plain_names(read_weights(path))
    try:
        config = _config(description, arrays.arrays)
        labels = class_names(description, config)
        stated = stated_preprocessing(path)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    bias = description.get("qkv_bias", True)
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
    placed = read_json(path / INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(name, str) for name in placed.values()):
        raise ValueError(f"{path / INDEX} has no weight_map: it must name the file of every array")
    arrays: Arrays = {}
    for name in sorted(set(placed.values())):
        if name != Path(name).name or "\\" in name or name in ("", ".", ".."):
            raise ValueError(f"{path / INDEX} names {name!r}: it must be a file of this directory")
        if not (path / name).is_file():
            raise ValueError(f"{path} has no {name}: {INDEX} names it")
        for key, array in read_safetensors(path / name).arrays.items():
            if placed.get(key) != name:
                raise ValueError(f"{path / name} holds {key}: {INDEX} places it in {placed.get(key)}")
            arrays[key] = array
    if missing := sorted(placed.keys() - arrays.keys()):
        raise ValueError(f"{path} has not what its {INDEX} names: {', '.join(missing)}")
    return arrays


def _config(description: dict[str, Any], arrays: Arrays) -> Config:
    size = description.get("image_size", 224)
    height, width = size if isinstance(size, list) else (size, size)
    check_colors(description)
    head = arrays.get("classifier.weight")
    pooler = arrays.get("pooler.dense.bias")
    if pooler is not None and description.get("pooler_act", "tanh") != "tanh":
        raise ValueError(f"pooler_act is {description['pooler_act']!r}: it must be tanh")
    return Config(
        model="spatio_temporal",
        frames=description.get("num_frames", 32),
        height=height,
        width=width,
        tubelet=tuple(description.get("tubelet_size", (2, 16, 16))),
        classes=() if head is None else (len(head),),
        representation=None if pooler is None else len(pooler),
        **blocks(description, arrays, "gelu_fast", 1e-6),
    )


def blocks(description: dict[str, Any], arrays: Arrays, gelu: str, epsilon: float) -> dict[str, Any]:
    """The fields of a Config that a ViViT's and a ViT's config.json share, with that architecture's defaults.

    Raises ValueError if the weights have another number of layers: what config.json says is not believed alone.
    """
    layers = description.get("num_hidden_layers", 12)
    found = {match[1] for name in arrays if (match := re.match(r"encoder\.layer\.(\d+)\.", name))}
    if layers != len(found):
        raise ValueError(f"num_hidden_layers is {layers!r}: the weights have {len(found)} layers")
    activation = description.get("hidden_act", gelu)
    if activation not in GELU:
        raise ValueError(f"hidden_act is {activation!r}: it must be one of {', '.join(GELU)}")
    return dict(
        channels=description.get("hidden_size", 768),
        layers=layers,
        heads=description.get("num_attention_heads", 12),
        hidden=description.get("intermediate_size", 3072),
        gelu=GELU[activation],
        epsilon=description.get("layer_norm_eps", epsilon),
    )


def check_colors(description: dict[str, Any]) -> None:
    """Raises ValueError unless pictures have three colors."""
    if description.get("num_channels", COLORS) != COLORS:
        raise ValueError(f"num_channels is {description['num_channels']}: it must be {COLORS}")


def class_names(description: dict[str, Any], config: Config) -> Labels | None:
    """The names in id2label, unless they are placeholders or of another number of classes."""
    stated = description.get("id2label")
    if not config.classes or not isinstance(stated, dict) or len(stated) != sum(config.classes):
        return None
    labels = as_labels(stated, "id2label")
    return None if all(name.startswith(PLACEHOLDER) for name in labels[0]) else labels


def stated_preprocessing(path: Path) -> Preprocessing | None:
    """What a directory states, in the order in which transformers looks for it; None if it states nothing."""
    together = read_json(path / PROCESSORS) if (path / PROCESSORS).is_file() else {}
    for name, file in (("video_processor", VIDEO_PREPROCESSOR), ("image_processor", PREPROCESSOR)):
        if name in together:
            if not isinstance(together[name], dict):
                raise ValueError(f"{PROCESSORS} has {name} {together[name]!r}: it must be a JSON object")
            return _preprocessing(together[name])
        if (path / file).is_file():
            return _preprocessing(read_json(path / file))
    return None


def _preprocessing(stated: dict[str, Any]) -> Preprocessing:
    """ViViT's image processor shifts by −1 unless told otherwise, its video processor always, as no offset is asked.

    ViT's never shift, and do not crop.
    """
    kind = str(stated.get("image_processor_type") or stated.get("video_processor_type") or "Vivit")
    video = kind.startswith("Vivit")
    offset = stated.get("offset", video) or kind == "VivitVideoProcessor"
    resize: Any = stated.get("size", {"shortest_edge": 256} if video else {"height": 224, "width": 224})
    if isinstance(resize, dict):
        resize = resize.get("shortest_edge") or (resize.get("height"), resize.get("width"))
    elif not video:
        resize = (resize, resize)
    crop: Any = stated.get("crop_size", {"height": 224, "width": 224})
    crop = (crop.get("height"), crop.get("width")) if isinstance(crop, dict) else (crop, crop)
    rescales, normalises = stated.get("do_rescale", True), stated.get("do_normalize", True)
    return Preprocessing(
        resize=resize if stated.get("do_resize", True) else None,
        crop=crop if stated.get("do_center_crop", video) else None,
        rescale=stated.get("rescale_factor", 1 / 127.5 if video else 1 / 255) if rescales else 1.0,
        offset=float(bool(rescales and offset)),
        mean=_colors(stated.get("image_mean", 0.5)) if normalises else (0.0, 0.0, 0.0),
        std=_colors(stated.get("image_std", 0.5)) if normalises else (1.0, 1.0, 1.0),
        stride=stated.get("stride", Preprocessing.stride),  # ours: the port's processor is given frames
    )


def _colors(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value,) * 3
