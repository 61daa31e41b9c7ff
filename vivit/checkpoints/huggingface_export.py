"""Writing model 1 as a Hugging Face directory, for those who go on in PyTorch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivit.checkpoints.huggingface import CONFIG, PLACEHOLDER, PREPROCESSOR, WEIGHTS
from vivit.checkpoints.safetensors_file import write_safetensors
from vivit.checkpoints.spelling import write
from vivit.checkpoints.torch_names import spellings
from vivit.model import Model
from vivit.preprocessing import HUGGING_FACE
from vivit.reference.config import COLORS
from vivit.reference.values import quoted
from vivit.writing import new_folder, write_text


def write_vivit(path: Path, model: Model) -> None:
    """Model 1 as a new directory that VivitForVideoClassification.from_pretrained loads (VivitModel without a head).

    check_port says what it cannot hold.
    """
    arrays = write(model.params, spellings(model.config), model.config)
    if model.config.classes:
        arrays = {name if name.startswith("classifier.") else f"vivit.{name}": leaf for name, leaf in arrays.items()}
    with new_folder(path) as folder:
        write_safetensors(folder / WEIGHTS, arrays, {"format": "pt"})
        _write_json(folder / CONFIG, _described(model))
        _write_json(folder / PREPROCESSOR, _stated(model))


def check_port(known: Mapping[str, Any]) -> None:
    """Raises ValueError if the port cannot hold a model of which these fields of its Config are known."""
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


def _described(model: Model) -> dict[str, Any]:
    config = model.config
    names = [name for head in model.labels or () for name in head]
    names = names or [f"{PLACEHOLDER}{index}" for index in range(sum(config.classes))]
    described: dict[str, Any] = dict(
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
        described |= dict(pooler_output_size=config.representation, pooler_act="tanh")
    if names:
        described["id2label"] = {str(index): name for index, name in enumerate(names)}
        described["label2id"] = {name: index for index, name in enumerate(names)}
    return described


def _stated(model: Model) -> dict[str, Any]:
    """For VivitImageProcessor, and for VivitVideoProcessor, which always shifts by −1: another offset goes to mean."""
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
