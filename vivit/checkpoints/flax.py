"""The published Flax trees, out of msgpack or npz files: which Config they are of, and their arrays as ours.

A tree's names are joined by "/". flax_names.py says what they mean.
"""

import math
import re
from collections import Counter
from typing import Any

import jax

from vivit.checkpoints.files import Arrays
from vivit.checkpoints.flax_names import ROOTS, kind, spellings
from vivit.checkpoints.hints import Hints, Questions, settle_size
from vivit.checkpoints.renaming import Renamed, under
from vivit.checkpoints.report import Report
from vivit.checkpoints.spelling import read, write
from vivit.model import Model
from vivit.reference.config import COLORS, Config

IMAGE_MODEL = "is an image model: start from it with vivit.from_image_model"


def load_tree(arrays: Arrays, config: Config | None, hints: Hints, source: str) -> Model:
    """The model in a published tree, wherever in the file its root is. The Config is inferred if none is given.

    Raises ValueError that names every argument which the tree leaves open, or lists every leaf that does not fit.
    """
    tree, root = parameters_of(arrays, source)
    flat = _is_flat(tree.arrays)
    if flat and kind(tree.arrays) == "image":
        raise ValueError(f"{source} {IMAGE_MODEL}")
    if config is None:
        config = infer(tree.arrays, hints, source)
    spelled = spellings(config, image=flat and config.tubelet[0] == 1)
    params, origins = read(tree, spelled, config, source, jax.device_put)
    where = f", the tree under {root}" if root else ""
    notes = (f"{source}: a published Flax tree{where}", "preprocessing: −1…1, as the published code's")
    return Model(config=config, params=params, report=Report(origins, notes))


def tree_of(model: Model) -> Arrays:
    """A model as the arrays of a published tree."""
    return write(model.params, spellings(model.config), model.config)


def parameters_of(arrays: Arrays, source: str) -> tuple[Renamed, str]:
    """The part of a file that is parameters, not optimizer state, and the prefix that its names have there."""
    for root in ROOTS:
        tree = under(arrays, root)
        if any(re.match(r"((Spatial|Temporal)?Transformer/|embedding/kernel$)", name) for name in tree.arrays):
            return tree, root
    seen = sorted({name.partition("/")[0] for name in arrays})[:8]
    raise ValueError(f"{source} has {', '.join(seen) or 'nothing'}: it must have a Transformer under one of {ROOTS}")


def _is_flat(tree: Arrays) -> bool:
    """Whether the embedding's kernel is an image's, [height width colors c]: of sampled frames, each a picture."""
    kernel = tree.get("embedding/kernel")
    return kernel is not None and kernel.ndim == 4


def infer(tree: Arrays, hints: Hints, source: str) -> Config:
    """The Config of a published tree by its names and shapes; `hints` say what those leave open.

    Raises ValueError if it is no such tree, or naming the arguments for all that stays open.
    """
    kernel = tree.get("embedding/kernel")
    if kernel is None or kernel.ndim not in (4, 5) or kernel.shape[-2] != COLORS or 0 in kernel.shape:
        raise ValueError(
            f"{source} has embedding/kernel {None if kernel is None else kernel.shape}: it must be "
            f"[time height width {COLORS} c], or [height width {COLORS} c] where frames are sampled"
        )
    questions = Questions(source)
    factorised = any(name.startswith("SpatialTransformer/") for name in tree)
    first = "SpatialTransformer" if factorised else "Transformer"
    tubelet = (*((1,) if kernel.ndim == 4 else ()), *(int(size) for size in kernel.shape[:-2]))
    values: dict[str, Any] = dict(tubelet=tubelet, channels=_commonest(tree, r".*/scale", 0), **_blocks(tree, first))
    if "layers" not in values:
        raise ValueError(f"{source} has no {first}/encoderblock_0: it must have the layers of a published tree")
    token = "cls_SpatialTransformer" if factorised else "cls"
    values["pooling"] = "token" if token in tree else hints.pooling
    values["model"] = "factorised_encoder" if factorised else _model(tree, values, hints, questions)
    if values["model"] == "factorised_self_attention":
        values["order"] = hints.order or questions.ask("order=", "time_space or space_time")
    if values["pooling"] is None:
        blocks = values["model"] in ("factorised_self_attention", "factorised_dot_product")
        questions.ask("pooling=", "mean, max or sum" if blocks else "first, mean, max or sum")
    values |= _representation(tree, hints, source)
    if factorised:
        temporal = _blocks(tree, "TemporalTransformer")
        values |= {f"temporal_{name}": temporal.get(name) for name in ("heads", "hidden")}
        values["temporal_layers"] = temporal.get("layers", 0)
    values |= _positions(tree, first, values, hints, questions)
    doubtful = kernel.ndim == 4 and kind(tree) is None and hints.sampled_frames is None and hints.model is None
    if doubtful and values.get("sampled_frames") == 1:
        raise ValueError(f"{source} {IMAGE_MODEL}; if it samples one frame of a video, pass sampled_frames=1")
    places = _places(tree, first, values)
    square = places is None or math.isqrt(places) ** 2 == places
    questions.answer(f"; if it {IMAGE_MODEL}" if doubtful and square else "")
    return Config(**values)


def _model(tree: Arrays, values: dict[str, Any], hints: Hints, questions: Questions) -> str | None:
    if any("LayerNorm_time" in name for name in tree):
        return "factorised_self_attention"
    if values["pooling"] in ("token", "first") or values["heads"] % 2:
        return "spatio_temporal"
    if hints.model is None:
        questions.ask("model=", "spatio_temporal or factorised_dot_product, whose parameters are the same")
    return hints.model


def _blocks(tree: Arrays, encoder: str) -> dict[str, int]:
    """layers, heads and hidden of an encoder; nothing if it is not there."""
    indices = {int(found[1]) for name in tree if (found := re.match(rf"{encoder}/encoderblock_(\d+)/", name))}
    if not indices:
        return {}
    heads = _commonest(tree, rf"{encoder}/encoderblock_\d+/MultiHeadDotProductAttention_\w+/query/bias", 0)
    hidden = _commonest(tree, rf"{encoder}/encoderblock_\d+/MlpBlock\w*/Dense_0/bias", 0)
    return dict(layers=len(indices), heads=heads, hidden=hidden)


def _representation(tree: Arrays, hints: Hints, source: str) -> dict[str, Any]:
    values: dict[str, Any] = {"classes": ()}
    if "pre_logits/bias" in tree:
        values["representation"] = _commonest(tree, "pre_logits/bias", 0)
    if "output_projection/bias" in tree:
        total = _commonest(tree, "output_projection/bias", 0)
        values["classes"] = hints.classes or (total,)
        if sum(values["classes"]) != total:
            raise ValueError(f"classes is {values['classes']}: {source} has {total} in all")
    return values


def _positions(tree: Arrays, first: str, values: dict[str, Any], hints: Hints, questions: Questions) -> dict[str, Any]:
    """positions, frames, height and width; sampled_frames where the tree or the hints say that frames are sampled."""
    n = _places(tree, first, values)
    found: dict[str, Any] = {}
    if n is None:
        found["positions"] = hints.positions
        if hints.positions in (None, "learned"):
            questions.ask("positions=", "sinusoidal_1d, sinusoidal_3d or none: it has no learned ones")
    counts: list[tuple[int | None, int | None]]
    if n is None or values["model"] == "factorised_encoder":
        counts = [(_places(tree, "TemporalTransformer", values), n)]
    else:
        counts = [(time, n // time) for time in range(1, n + 1) if n % time == 0]
    if not _is_flat(tree) and hints.sampled_frames is None:
        return found | settle_size(values["tubelet"], counts, hints, questions)
    found |= settle_size(values["tubelet"], counts, hints, questions, time="sampled_frames")
    return found | {"frames": hints.frames or questions.ask("frames=", "of the clips that frames are sampled from")}


def _places(tree: Arrays, encoder: str, values: dict[str, Any]) -> int | None:
    """How many tokens an encoder has learned positions for, the class token aside; None: it has none."""
    table = tree.get(f"{encoder}/posembed_input/pos_embedding")
    if table is None:
        return None
    return max(int(table.shape[-2]) - (values["pooling"] == "token"), 0) if table.ndim >= 2 else 0


def _commonest(tree: Arrays, pattern: str, axis: int) -> int:
    """The size that most leaves of these names have on an axis, so that one wrong leaf is found, not believed."""
    sizes = Counter(
        array.shape[axis] for name, array in tree.items() if re.fullmatch(pattern, name) and array.ndim > axis
    )
    if not sizes:
        raise ValueError(f"no leaf is named {pattern}: it must be a published tree")
    return int(sizes.most_common(1)[0][0])
