"""Builds a video model from an image model: inflates, tiles and resizes its weights, and initialises the rest.

Source: Arnab et al. 2021, section 3.4. Where the published code is wrong (it drops a class token, tiles too few
positions, and leaves a temporal attention inactive), this module follows the paper.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast, get_args

import jax
import numpy as np

from vivit.checkpoints.image_source import ImageModel, read_image_model
from vivit.files.paths import as_path, status
from vivit.initialise import draws
from vivit.memory import check_model
from vivit.model_data import ModelData, Origin, Report
from vivit.reference import tubelet
from vivit.reference.config import Config
from vivit.reference.params import FactorisedBlock, Leaf, convert, leaves, shapes
from vivit.reference.positions import resize_space, tile
from vivit.reference.values import quoted, short_errors
from vivit.video.container import Limits
from vivit.video.preprocessing import preprocessing_for

Embedding = Literal["central_frame", "inflation"]
LeafValues = dict[str, tuple[np.ndarray, str, str]]  # leaf: (values, source, change)


@short_errors()
def from_image_model(
    path: str | Path,
    config: Config,
    embedding: Embedding = "central_frame",
    seed: int = 0,
    *,
    keep_head: bool = False,
    limits: Limits | None = None,
) -> ModelData:
    """Returns a video model of this config with the weights of an image ViT; its report names the source of each leaf.

    path: a Hugging Face ViT or timm directory, a safetensors file of either, or an .npz of vision_transformer or
    big_vision. config: any of the four models and any clip size; its GELU and epsilon are replaced by the source's.
    embedding: how the patch kernel fills the frames of the tubelet (eq. 9 or 8). seed: of the fresh leaves: the head,
    unless keep_head; model 2's temporal encoder; model 3's temporal attention, whose output projection is zero, so that
    it starts as the identity. limits: as in vivit.load.

    Positions are resized over space and tiled over time. For a still video the features equal the image model's in
    models 2 (frames averaged) and 3, and in model 1 without a class token or with a single time index: a class token
    that attends to n_t copies of an image gives itself n_t times less weight.

    Raises ValueError if sizes disagree, naming both, or if the source is not an image ViT.
    """
    if embedding not in get_args(Embedding):
        raise ValueError(f"embedding is {quoted(embedding)}: it must be one of {', '.join(get_args(Embedding))}")
    if not isinstance(config, Config):
        raise ValueError(f"config is {quoted(config)}: it must be a vivit.Config, such as vivit.named('vivit-b/16x2')")
    check_model(config, (limits or Limits()).memory)
    path = as_path(path)
    if status(path) is None:
        raise ValueError(f"{path} does not exist: it must be an image model's file or directory")
    image = read_image_model(path, heads=config.heads, head=keep_head)
    config = replace(config, gelu=image.config.gelu, epsilon=image.config.epsilon)
    _check_sizes(image, config, keep_head)
    values = _embedding(image, config, embedding) | _encoder(image, config)
    if keep_head:
        values |= _read_leaf(image, lambda leaf: leaf.startswith(("head/", "representation/")))
    fresh = draws(jax.random.key(seed), config)
    arrays, origins = {}, []
    for leaf, shape in leaves(shapes(config)):
        array, source, change = values.get(leaf) or _fresh(shape, fresh[leaf], seed)
        arrays[leaf] = jax.device_put(np.asarray(array, np.float32))
        origins.append(Origin(leaf, shape.shape, source, change))
    preprocessing = preprocessing_for(config.height, config.width)
    if image.preprocessing is not None:
        stated = image.preprocessing
        fields = dict(rescale=stated.rescale, offset=stated.offset, mean=stated.mean, std=stated.std)
        preprocessing = replace(preprocessing, **fields)
    notes = [f"{path}: an image model of {image.config.height}x{image.config.width}, {image.config.pooling} pooling"]
    notes += [f"not used: {', '.join(image.unused)}"] if image.unused else []
    notes += _dropped(image, config)
    origin = "of the image model" if image.preprocessing else "of the published code: the image model has none"
    notes.append(f"gelu {config.gelu}, epsilon {config.epsilon:g}; preprocessing: {preprocessing.range}, {origin}")
    return ModelData(
        config=config,
        params=convert(shapes(config), lambda path, _: arrays[path]),
        labels=image.labels if keep_head and len(config.classes) == 1 else None,
        preprocessing=preprocessing,
        report=Report(tuple(origins), tuple(notes)),
    )


def _check_sizes(image: ImageModel, config: Config, keep_head: bool) -> None:
    source = image.config
    faults = [
        f"{field} is {getattr(config, field)}: the image model has {getattr(source, field)}"
        for field in ("channels", "heads", "hidden", "layers")
        if getattr(config, field) != getattr(source, field)
    ]
    if config.tubelet[1:] != source.tubelet[1:]:
        faults.append(f"tubelet is {config.tubelet}: the image model's patches are {source.tubelet[1:]}")
    if keep_head and sum(config.classes) != sum(source.classes):
        faults.append(f"classes is {config.classes}: the image model's head has {source.classes}")
    if keep_head and config.representation != source.representation:
        faults.append(f"representation is {config.representation}: the image model has {source.representation}")
    if faults:
        raise ValueError(f"{image.source} does not fit the config: " + "; ".join(faults))


def _read_leaf(image: ImageModel, wanted: Callable[[str], bool]) -> LeafValues:
    """Returns the leaves of the image model that `wanted` selects, unchanged."""
    arrays = dict(leaves(image.params))
    return {one.leaf: (arrays[one.leaf], one.source, one.change) for one in image.origins if wanted(one.leaf)}


def _embedding(image: ImageModel, config: Config, embedding: Embedding) -> LeafValues:
    values = _read_leaf(image, lambda leaf: leaf.startswith("embedding/"))
    kernel, source, change = values["embedding/kernel"]
    frames = config.tubelet[0]
    fill = tubelet.central_frame if embedding == "central_frame" else tubelet.inflate
    filled = f"at frame {frames // 2} of {frames}, zeros elsewhere" if embedding == "central_frame" else None
    change = f"{change}, {filled or f'inflated over {frames} frames'}"
    values["embedding/kernel"] = (fill(kernel[0], frames), source, change)
    return values


def _encoder(image: ImageModel, config: Config) -> LeafValues:
    """Returns the spatial encoder: blocks and norm, and the class token and positions if the config has them."""
    values = _read_leaf(image, lambda leaf: leaf.startswith(("encoder/blocks/", "encoder/norm/")))
    if config.model == "factorised_self_attention":
        values = {_factorised(leaf): value for leaf, value in values.items()}
        for part, leaf in leaves(cast(FactorisedBlock, shapes(config).encoder.blocks).time_attention.out):
            path = f"encoder/blocks/time_attention/out/{part}"
            values[path] = (np.zeros(leaf.shape), "", "zeros: temporal attention starts as identity")
    if config.class_token and image.config.class_token:
        values |= _read_leaf(image, lambda leaf: leaf == "encoder/class_token")
    if config.positions == "learned":
        values["encoder/positions"] = _positions(image, config)
    return values


def _factorised(leaf: str) -> str:
    """Returns model 3's path of a leaf of the image model's attention."""
    leaf = leaf.replace("blocks/attention_norm/", "blocks/space_norm/")
    return leaf.replace("blocks/attention/", "blocks/space_attention/")


def _positions(image: ImageModel, config: Config) -> tuple[np.ndarray, str, str]:
    table, source, _ = _read_leaf(image, lambda leaf: leaf == "encoder/positions")["encoder/positions"]
    before, grid = image.config.grid, config.grid
    positions = table[1:] if image.config.class_token else table
    changes = []
    if before[1:] != grid[1:]:
        positions = resize_space(np.asarray(positions, np.float64), before, grid[1:])
        changes.append(f"resized from {before[1]}×{before[2]} to {grid[1]}×{grid[2]}")
    if config.model != "factorised_encoder" and grid[0] > 1:
        positions = tile(positions, (1, *grid[1:]), grid[0])
        changes.append(f"tiled over {grid[0]} time indices")
    if config.class_token:
        own = table[:1] if image.config.class_token else np.zeros_like(table[:1])
        positions = np.concatenate([own, positions])
        changes += [] if image.config.class_token else ["zeros for the class token"]
    elif image.config.class_token:
        changes.append("without that of the class token")
    return positions, source, ", ".join(changes) or "unchanged"


def _fresh(shape: Leaf, draw: Callable[[], jax.Array], seed: int) -> tuple[np.ndarray, str, str]:
    constant = shape.initialiser in ("zeros", "ones")
    return np.asarray(draw()), "", f"fresh: {shape.initialiser}" + ("" if constant else f", seed {seed}")


def _dropped(image: ImageModel, config: Config) -> list[str]:
    notes = []
    if image.config.class_token and not config.class_token:
        notes.append("the class token is not used: the config pools without one")
    if config.positions != "learned":
        notes.append(f"the image model's positions are not used: positions is {config.positions}")
    return notes
