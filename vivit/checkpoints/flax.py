"""Reads the published Flax trees of msgpack and npz files: infers their Config and maps their arrays to ours.

The names of a tree are joined by "/"; flax_names.py maps them.
"""

import math
import re
from collections import Counter
from typing import Any

import jax

from vivit.checkpoints.files import Arrays
from vivit.checkpoints.flax_names import ROOTS, image_or_video, name_map
from vivit.checkpoints.name_map import NamedArrays, read_params, subtree, write_params
from vivit.checkpoints.overrides import MissingFields, Overrides, infer_clip_size
from vivit.model_data import ModelData, Report
from vivit.reference.config import COLORS, Config

IMAGE_MODEL = "is an image model: start from it with vivit.from_image_model"


def load_tree(arrays: Arrays, config: Config | None, overrides: Overrides, source: str) -> ModelData:
    """Returns the model in a published tree, under any root of the file. Infers the Config if none is given.

    Raises ValueError that names every argument which the tree does not determine, or lists every leaf that does not
    fit.
    """
    tree, root = find_parameters(arrays, source)
    flat = _is_flat(tree.arrays)
    if flat and image_or_video(tree.arrays) == "image":
        raise ValueError(f"{source} {IMAGE_MODEL}")
    if config is None:
        config = infer(tree.arrays, overrides, source)
    file_leaves = name_map(config, image=flat and config.tubelet[0] == 1)
    params, origins = read_params(tree, file_leaves, config, source, jax.device_put)
    location = f", the tree under {root}" if root else ""
    notes = (f"{source}: a published Flax tree{location}", "preprocessing: −1…1, as in the published code")
    return ModelData(config=config, params=params, report=Report(origins, notes))


def flax_arrays(model: ModelData) -> Arrays:
    """Returns a model as the arrays of a published tree."""
    return write_params(model.params, name_map(model.config), model.config)


def find_parameters(arrays: Arrays, source: str) -> tuple[NamedArrays, str]:
    """Returns the part of a file that holds parameters, not optimizer state, and the prefix of its names there."""
    for root in ROOTS:
        tree = subtree(arrays, root)
        if any(re.match(r"((Spatial|Temporal)?Transformer/|embedding/kernel$)", name) for name in tree.arrays):
            return tree, root
    seen = sorted({name.partition("/")[0] for name in arrays})[:8]
    raise ValueError(f"{source} has {', '.join(seen) or 'nothing'}: it must have a Transformer under one of {ROOTS}")


def _is_flat(tree: Arrays) -> bool:
    """Returns whether the embedding kernel is that of an image, [height width colors c], as for sampled frames."""
    kernel = tree.get("embedding/kernel")
    return kernel is not None and kernel.ndim == 4


def infer(tree: Arrays, overrides: Overrides, source: str) -> Config:
    """Returns the Config of a published tree from its names and shapes; `overrides` determine the rest.

    Raises ValueError if it is not such a tree, or naming every argument that is still missing.
    """
    kernel = tree.get("embedding/kernel")
    if kernel is None or kernel.ndim not in (4, 5) or kernel.shape[-2] != COLORS or 0 in kernel.shape:
        raise ValueError(
            f"{source} has embedding/kernel {None if kernel is None else kernel.shape}: it must be "
            f"[time height width {COLORS} c], or [height width {COLORS} c] where frames are sampled"
        )
    missing = MissingFields(source)
    factorised = any(name.startswith("SpatialTransformer/") for name in tree)
    first = "SpatialTransformer" if factorised else "Transformer"
    tubelet = (*((1,) if kernel.ndim == 4 else ()), *(int(size) for size in kernel.shape[:-2]))
    channels = _most_common_size(tree, r".*/scale", 0)
    values: dict[str, Any] = dict(tubelet=tubelet, channels=channels, **_blocks(tree, first))
    if "layers" not in values:
        raise ValueError(f"{source} has no {first}/encoderblock_0: it must have the layers of a published tree")
    token = "cls_SpatialTransformer" if factorised else "cls"
    values["pooling"] = "token" if token in tree else overrides.pooling
    values["model"] = "factorised_encoder" if factorised else _model(tree, values, overrides, missing)
    if values["model"] == "factorised_self_attention":
        values["order"] = overrides.order or missing.add("order=", "time_space or space_time")
    if values["pooling"] is None:
        blocks = values["model"] in ("factorised_self_attention", "factorised_dot_product")
        missing.add("pooling=", "mean, max or sum" if blocks else "first, mean, max or sum")
    values |= _representation(tree, overrides, source)
    if factorised:
        temporal = _blocks(tree, "TemporalTransformer")
        values |= {f"temporal_{name}": temporal.get(name) for name in ("heads", "hidden")}
        values["temporal_layers"] = temporal.get("layers", 0)
    values |= _positions(tree, first, values, overrides, missing)
    undecided = overrides.sampled_frames is None and overrides.model is None
    ambiguous = kernel.ndim == 4 and image_or_video(tree) is None and undecided
    if ambiguous and values.get("sampled_frames") == 1:
        raise ValueError(f"{source} {IMAGE_MODEL}; if it samples one frame of a video, pass sampled_frames=1")
    positions = _position_count(tree, first, values)
    square = positions is None or math.isqrt(positions) ** 2 == positions
    missing.raise_if_any(f"; if it {IMAGE_MODEL}" if ambiguous and square else "")
    return Config(**values)


def _model(tree: Arrays, values: dict[str, Any], overrides: Overrides, missing: MissingFields) -> str | None:
    if any("LayerNorm_time" in name for name in tree):
        return "factorised_self_attention"
    if values["pooling"] in ("token", "first") or values["heads"] % 2:
        return "spatio_temporal"
    if overrides.model is None:
        missing.add("model=", "spatio_temporal or factorised_dot_product, which have the same parameters")
    return overrides.model


def _blocks(tree: Arrays, encoder: str) -> dict[str, int]:
    """Returns layers, heads and hidden of an encoder; an empty dict if the tree has no such encoder."""
    indices = {int(found[1]) for name in tree if (found := re.match(rf"{encoder}/encoderblock_(\d+)/", name))}
    if not indices:
        return {}
    heads = _most_common_size(tree, rf"{encoder}/encoderblock_\d+/MultiHeadDotProductAttention_\w+/query/bias", 0)
    hidden = _most_common_size(tree, rf"{encoder}/encoderblock_\d+/MlpBlock\w*/Dense_0/bias", 0)
    return dict(layers=len(indices), heads=heads, hidden=hidden)


def _representation(tree: Arrays, overrides: Overrides, source: str) -> dict[str, Any]:
    values: dict[str, Any] = {"classes": ()}
    if "pre_logits/bias" in tree:
        values["representation"] = _most_common_size(tree, "pre_logits/bias", 0)
    if "output_projection/bias" in tree:
        total = _most_common_size(tree, "output_projection/bias", 0)
        values["classes"] = overrides.classes or (total,)
        if sum(values["classes"]) != total:
            raise ValueError(f"classes is {values['classes']}: {source} has {total} in all")
    return values


def _positions(
    tree: Arrays, first: str, values: dict[str, Any], overrides: Overrides, missing: MissingFields
) -> dict[str, Any]:
    """Returns positions, frames, height and width, and sampled_frames if the tree or `overrides` sample frames."""
    n = _position_count(tree, first, values)
    fields: dict[str, Any] = {}
    if n is None:
        fields["positions"] = overrides.positions
        if overrides.positions in (None, "learned"):
            missing.add("positions=", "sinusoidal_1d, sinusoidal_3d or none: the file has no learned positions")
    counts: list[tuple[int | None, int | None]]
    if n is None or values["model"] == "factorised_encoder":
        counts = [(_position_count(tree, "TemporalTransformer", values), n)]
    else:
        counts = [(time, n // time) for time in range(1, n + 1) if n % time == 0]
    if not _is_flat(tree) and overrides.sampled_frames is None:
        return fields | infer_clip_size(values["tubelet"], counts, overrides, missing)
    fields |= infer_clip_size(values["tubelet"], counts, overrides, missing, time="sampled_frames")
    return fields | {"frames": overrides.frames or missing.add("frames=", "of the clips that frames are sampled from")}


def _position_count(tree: Arrays, encoder: str, values: dict[str, Any]) -> int | None:
    """Returns the number of learned positions of an encoder, without the class token's; None: it has none."""
    table = tree.get(f"{encoder}/posembed_input/pos_embedding")
    if table is None:
        return None
    return max(int(table.shape[-2]) - (values["pooling"] == "token"), 0) if table.ndim >= 2 else 0


def _most_common_size(tree: Arrays, pattern: str, axis: int) -> int:
    """Returns the most common size on an axis of the leaves with these names, so that one wrong leaf is an error."""
    sizes = Counter(
        array.shape[axis] for name, array in tree.items() if re.fullmatch(pattern, name) and array.ndim > axis
    )
    if not sizes:
        raise ValueError(f"no leaf is named {pattern}: it must be a published tree")
    return int(sizes.most_common(1)[0][0])
