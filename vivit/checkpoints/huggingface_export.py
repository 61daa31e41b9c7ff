"""Writes model 1 as a Hugging Face directory, for use in PyTorch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivit.checkpoints.files import write_safetensors
from vivit.checkpoints.huggingface import CONFIG, PLACEHOLDER, PREPROCESSOR, WEIGHTS
from vivit.checkpoints.name_map import write_params
from vivit.checkpoints.torch_names import name_map
from vivit.files.atomic import atomic_dir, write_text
from vivit.model_data import ModelData
from vivit.reference.config import COLORS
from vivit.reference.values import quoted
from vivit.video.preprocessing import HUGGING_FACE


def write_vivit(path: Path, model: ModelData) -> None:
    """Writes model 1 as a new directory for VivitForVideoClassification.from_pretrained, or VivitModel without a head.

    The caller must have called check_exportable.
    """
    arrays = write_params(model.params, name_map(model.config), model.config)
    if model.config.classes:
        arrays = {name if name.startswith("classifier.") else f"vivit.{name}": leaf for name, leaf in arrays.items()}
    with atomic_dir(path) as folder:
        write_safetensors(folder / WEIGHTS, arrays, {"format": "pt"})
        _write_json(folder / CONFIG, _config_json(model))
        _write_json(folder / PREPROCESSOR, _preprocessor_json(model))


def check_exportable(known: Mapping[str, Any]) -> None:
    """Raises ValueError if the port cannot hold a model with these Config fields. known: the fields known so far."""
    faults = []
    for field, wanted in (("model", "spatio_temporal"), ("pooling", "token"), ("positions", "learned")):
        if known.get(field, wanted) != wanted:
            faults.append(f"{field} is {quoted(known[field])}: it must be {quoted(wanted)}")
    if known.get("sampled_frames") not in (None, known.get("frames")):
        faults.append(f"sampled_frames is {known['sampled_frames']}: it must be None")
    if known.get("classes") and known.get("representation") is not None:
        faults.append(f"representation is {known['representation']}: a classifier must have none")
    if faults:
        raise ValueError("Hugging Face's ViViT cannot hold this model: " + "; ".join(faults))


def _config_json(model: ModelData) -> dict[str, Any]:
    config = model.config
    names = [name for head in model.labels or () for name in head]
    names = names or [f"{PLACEHOLDER}{index}" for index in range(sum(config.classes))]
    config_json: dict[str, Any] = dict(
        architectures=["VivitForVideoClassification" if config.classes else "VivitModel"],
        model_type="vivit",
        image_size=config.height if config.height == config.width else [config.height, config.width],
        num_frames=config.frames,
        tubelet_size=list(config.tubelet),
        num_channels=COLORS,
        hidden_size=config.channels,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.hidden,
        hidden_act="gelu_fast" if config.gelu == "tanh" else "gelu",
        layer_norm_eps=config.epsilon,
        qkv_bias=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.02,
        dtype="float32",
    )
    if config.representation is not None:
        config_json |= dict(pooler_output_size=config.representation, pooler_act="tanh")
    if names:
        config_json["id2label"] = {str(index): name for index, name in enumerate(names)}
        config_json["label2id"] = {name: index for index, name in enumerate(names)}
    return config_json


def _preprocessor_json(model: ModelData) -> dict[str, Any]:
    """Returns the JSON for VivitImageProcessor and VivitVideoProcessor.

    The latter always shifts by −1, so another offset is included in the mean.
    """
    preprocessing = model.preprocessing
    resize, crop = preprocessing.resize, preprocessing.crop
    size = {"shortest_edge": resize} if not isinstance(resize, tuple) else {"height": resize[0], "width": resize[1]}
    return dict(
        image_processor_type="VivitImageProcessor",
        video_processor_type="VivitVideoProcessor",
        do_resize=resize is not None,
        size=size if resize is not None else {"shortest_edge": HUGGING_FACE.resize},
        resample=2,
        do_center_crop=crop is not None,
        crop_size=dict(zip(("height", "width"), crop or HUGGING_FACE.crop or (), strict=True)),
        do_rescale=True,
        rescale_factor=preprocessing.rescale,
        offset=True,
        do_normalize=True,
        image_mean=[mean + (preprocessing.offset - 1) for mean in preprocessing.mean],
        image_std=list(preprocessing.std),
        num_frames=model.config.frames,
        stride=preprocessing.stride,
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
