"""Reads published image models as model 1 over a single frame.

An image ViT equals a video model of one frame with a tubelet of one frame, so its weights fill the same tree; image.py
turns it into a video model. Formats: Hugging Face ViT, timm, vision_transformer and big_vision.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vivit.checkpoints import flax_names, torch_names
from vivit.checkpoints.files import Arrays, file_format, read_npz, read_safetensors
from vivit.checkpoints.huggingface import (
    CONFIG,
    blocks,
    check_colors,
    class_names,
    read_weights,
    sizes,
    stated_preprocessing,
)
from vivit.checkpoints.name_map import NamedArrays, read_params, renamed, subtree
from vivit.files.json_files import Fields, read_object
from vivit.files.paths import is_file
from vivit.labels import Labels
from vivit.model_data import Origin
from vivit.reference.config import Config
from vivit.reference.params import Params
from vivit.reference.values import quoted
from vivit.video.preprocessing import Preprocessing

_NOTHING = Fields({}, "nothing")  # for weights without a description


@dataclass(frozen=True, kw_only=True)
class ImageModel:
    """An image ViT: a one-frame config, its weights as NumPy arrays, labels and preprocessing."""

    config: Config
    params: Params
    origins: tuple[Origin, ...]
    source: str
    unused: tuple[str, ...]  # names of arrays that are not used
    labels: Labels | None = None
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Arrays under the names of one naming scheme, and the Config fields that the source states."""

    arrays: NamedArrays
    name_map: Any  # flax_names.name_map or torch_names.name_map
    fields: dict[str, Any]
    description: Fields
    optional: tuple[str, ...]  # prefixes of head and pooling, which may stay unused
    preprocessing: Preprocessing | None = None
    qkv_bias: bool = True


def read_image_model(path: Path, *, heads: int, head: bool) -> ImageModel:
    """Returns the image model in a file or directory, recognised by its content.

    heads: of its attention, if neither names, shapes nor a config record them (timm). head: whether to read its
    classifier and a representation layer before it; otherwise they stay unused. Raises ValueError if it is not an image
    ViT.
    """
    source = _directory(path, heads) if path.is_dir() else _file(path, heads)
    arrays, original_names = source.arrays
    unused = [name for name in arrays if name.startswith(source.optional) and not (head and _is_head(name))]
    for name in unused:
        del arrays[name]
    config = _config(arrays, source)
    options = {} if source.qkv_bias else {"qkv_bias": False}
    file_leaves = source.name_map(config, image=True, **options)
    params, origins = read_params(source.arrays, file_leaves, config, str(path), np.asarray)
    return ImageModel(
        config=config,
        params=params,
        origins=origins,
        source=str(path),
        unused=tuple(original_names[name] for name in unused),
        labels=class_names(source.description, config),
        preprocessing=source.preprocessing,
    )


def _is_head(name: str) -> bool:
    return name.startswith(("output_projection/", "pre_logits/", "classifier."))


def _directory(path: Path, heads: int) -> _Source:
    """Reads a directory: Hugging Face's ViT is recognised by its model_type, timm's by its architecture."""
    if not is_file(path / CONFIG):
        raise ValueError(
            f"{path} has no {CONFIG}: an image model must be such a directory, an .npz or a safetensors file"
        )
    description = read_object(path / CONFIG)
    if description.values.get("model_type") in ("vit", "deit"):
        check_colors(description)
        arrays = read_weights(path)
        fields = blocks(description, torch_names.plain_names(arrays).arrays, "gelu", 1e-12)
        return _hugging_face(
            arrays, fields, description, stated_preprocessing(path), description.flag("qkv_bias", True)
        )
    if "architecture" in description or "pretrained_cfg" in description:
        return _timm(read_weights(path), heads, description)
    raise ValueError(
        f"{path} has model_type {quoted(description.values.get('model_type'))}: it must be vit, or a timm directory"
    )


def _file(path: Path, heads: int) -> _Source:
    kind = file_format(path)
    if kind == "safetensors":
        arrays = read_safetensors(path).arrays
        if any(re.match(r"blocks\.\d+\.attn\.qkv\.", name) for name in arrays):
            return _timm(arrays, heads, _NOTHING)
        fields = dict(heads=heads, gelu="erf", epsilon=1e-12)
        return _hugging_face(arrays, fields, _NOTHING, None, True)
    if kind == "zip":
        return _flax(read_npz(path), str(path))
    raise ValueError(f"{path} is no image model: it must be an .npz, a safetensors file or a directory with {CONFIG}")


def _hugging_face(
    arrays: Arrays,
    fields: dict[str, Any],
    description: Fields,
    preprocessing: Preprocessing | None,
    qkv_bias: bool,
) -> _Source:
    return _Source(
        arrays=torch_names.plain_names(arrays),
        name_map=torch_names.name_map,
        fields=fields,
        description=description,
        optional=("classifier.", "pooler."),
        preprocessing=preprocessing,
        qkv_bias=qkv_bias,
    )


def _timm(arrays: Arrays, heads: int, description: Fields) -> _Source:
    stated = description.object("pretrained_cfg", _NOTHING)
    colors: dict[str, Any] = {name: tuple(stated.numbers(name, 3)) for name in ("mean", "std") if name in stated}
    preprocessing = Preprocessing(resize=None, crop=None, rescale=1 / 255, offset=0.0, **colors) if colors else None
    return _Source(
        arrays=torch_names.timm_names(arrays),
        name_map=torch_names.name_map,
        fields=dict(heads=heads, gelu="erf", epsilon=1e-6),
        description=_NOTHING,
        optional=("classifier.",),
        preprocessing=preprocessing,
    )


def _flax(arrays: Arrays, source: str) -> _Source:
    """Reads trees of vision_transformer and big_vision, renamed to the published names of the video models."""
    for root in flax_names.ROOTS:
        tree = subtree(arrays, root)
        if "embedding/kernel" in tree.arrays:
            break
    else:
        raise ValueError(
            f"{source} has no embedding/kernel: it must be an image ViT's tree, under one of {flax_names.ROOTS}"
        )
    if flax_names.image_or_video(tree.arrays) == "video":
        raise ValueError(f"{source} is a video model: load it with vivit.load")
    tree = _unstacked(tree)
    older = any(re.match(r"Transformer/encoderblock_\d+/MlpBlock_3/", name) for name in tree.arrays)
    rules = [(r"^pos_embedding$", "Transformer/posembed_input/pos_embedding"), (r"^head/", "output_projection/")]
    if older:
        rules += [(r"/LayerNorm_2/", "/LayerNorm_1/"), (r"/MlpBlock_3/", "/MlpBlock_0/")]
        rules += [(r"/MultiHeadDotProductAttention_1/", "/MultiHeadDotProductAttention_0/")]
    tree = renamed(tree, tuple(rules))
    query = tree.arrays.get("Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/bias")
    return _Source(
        arrays=tree,
        name_map=flax_names.name_map,
        fields=dict(heads=1 if query is None else len(query), gelu="tanh", epsilon=1e-6),
        description=_NOTHING,
        optional=("output_projection/", "pre_logits/", "MAPHead_0/"),
    )


def _unstacked(tree: NamedArrays) -> NamedArrays:
    """Splits layers that are stacked under one name ("encoderblock/…") into one array per layer."""
    flat = NamedArrays({}, {})
    for name, array in tree.arrays.items():
        layers = {name: array}
        if name.startswith("Transformer/encoderblock/") and array.ndim:
            pattern = name.replace("/encoderblock/", "/encoderblock_{}/")
            layers = {pattern.format(index): layer for index, layer in enumerate(array)}
        flat.arrays.update(layers)
        flat.original_names.update(dict.fromkeys(layers, tree.original_names[name]))
    return flat


def _config(arrays: Arrays, source: _Source) -> Config:
    """Returns the one-frame config.

    If the class token's position was folded into the token, zeros are inserted for it.
    """
    flax = source.name_map is flax_names.name_map
    kernel_name = "embedding/kernel" if flax else "embeddings.patch_embeddings.projection.weight"
    token, positions = "embeddings.cls_token", "embeddings.position_embeddings"
    if flax:
        token, positions = "cls", "Transformer/posembed_input/pos_embedding"
    kernel, table = arrays.get(kernel_name), arrays.get(positions)
    if kernel is None or kernel.ndim != 4 or 0 in kernel.shape or table is None or table.ndim != 3:
        shapes = f"{getattr(kernel, 'shape', None)} and {getattr(table, 'shape', None)}"
        raise ValueError(
            f"{kernel_name} and {positions} have shapes {shapes}: an image ViT must have them, 4-D and 3-D"
        )
    channels, patch = (kernel.shape[3], kernel.shape[:2]) if flax else (kernel.shape[0], kernel.shape[2:])
    count = table.shape[1]
    if token in arrays and math.isqrt(count) ** 2 == count:  # folded: one position per patch
        arrays[positions] = np.concatenate([np.zeros_like(table[:, :1]), table], axis=1)
    elif token in arrays:
        count -= 1
    rows, columns = math.isqrt(count), math.isqrt(count)
    if isinstance(source.description.values.get("image_size"), list):
        size = sizes(source.description, "image_size", 224)
        rows, columns = size[0] // patch[0], size[1] // patch[1]
    if rows * columns != count:
        raise ValueError(f"{positions} has {count} positions: they must form a square")
    head, representation = ("output_projection/bias", "pre_logits/bias") if flax else ("classifier.bias", "")
    block = r"Transformer/encoderblock_(\d+)/" if flax else r"encoder\.layer\.(\d+)\."
    layers = {int(match[1]) for name in arrays if (match := re.match(block, name))}
    first = block.replace(r"(\d+)", "0").replace("\\", "")
    hidden = arrays.get(first + ("MlpBlock_0/Dense_0/bias" if flax else "intermediate.dense.bias"))
    if hidden is None:
        raise ValueError(f"{first}… has no first layer of an MLP: it must be an image ViT")
    return Config(
        model="spatio_temporal",
        frames=1,
        height=rows * patch[0],
        width=columns * patch[1],
        tubelet=(1, *patch),
        pooling="token" if token in arrays else "mean",
        representation=len(arrays[representation]) if representation in arrays else None,
        classes=(len(arrays[head]),) if head in arrays else (),
        **{**source.fields, "channels": channels, "layers": len(layers), "hidden": len(hidden)},
    )
