"""Starting a video model from an image model: what is inflated, tiled, resized, restored, and what starts fresh.

Source: Arnab et al. 2021, section 3.4. Where the published code goes wrong (a forgotten class token, too few tiled
positions, a dead temporal attention) this follows the paper.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast, get_args

import jax
import numpy as np

from vivit.checkpoints.image_source import ImageModel, read_image_model
from vivit.checkpoints.report import Origin, Report
from vivit.checkpoints.spelling import rebuilt
from vivit.data.opening import Limits
from vivit.initialise import draws
from vivit.memory import check_model
from vivit.model import Model
from vivit.paths import as_path, status
from vivit.preprocessing import preprocessing_for
from vivit.reference import tubelet
from vivit.reference.config import Config
from vivit.reference.params import FactorisedBlock, Leaf, leaves, shapes
from vivit.reference.positions import resize_space, tile
from vivit.reference.values import quoted, short_errors

Embedding = Literal["central_frame", "inflation"]
MADE = dict[str, tuple[np.ndarray, str, str]]  # leaf: (values, source, change)


@short_errors()
def from_image_model(
    path: str | Path,
    config: Config,
    embedding: Embedding = "central_frame",
    seed: int = 0,
    *,
    keep_head: bool = False,
    limits: Limits | None = None,
) -> Model:
    """A video model of this config that starts from an image ViT's weights; its report says where each leaf is from.

    path: a Hugging Face ViT or timm directory, a safetensors file of either, or an .npz of vision_transformer or
    big_vision. config: any of the four models, any clip; its GELU and epsilon become the source's. embedding: how the
    patch kernel fills the tubelet's frames (eq. 9 or 8). seed: of what starts fresh: the head, unless keep_head, model
    2's temporal encoder, model 3's temporal attention, whose output projection is zero, so that it starts as identity.
    limits: as vivit.load's.

    Positions are resized over space and tiled over time. For a still video the features are the image model's in models
    2 (frames averaged) and 3, and in model 1 without a class token or with a single time index: a class token that
    attends to n_t copies of a picture sees itself n_t times less.
    Raises ValueError if sizes do not agree, naming both, or if the source is no image ViT.
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
    made = _embedding(image, config, embedding) | _encoder(image, config)
    if keep_head:
        made |= _taken(image, lambda leaf: leaf.startswith(("head/", "representation/")))
    fresh = draws(jax.random.key(seed), config)
    arrays, origins = {}, []
    for leaf, shape in leaves(shapes(config)):
        values, source, change = made.get(leaf) or _fresh(shape, fresh[leaf], seed)
        arrays[leaf] = jax.device_put(np.asarray(values, np.float32))
        origins.append(Origin(leaf, shape.shape, source, change))
    preprocessing = preprocessing_for(config.height, config.width)
    if image.preprocessing is not None:
        stated = image.preprocessing
        fields = dict(rescale=stated.rescale, offset=stated.offset, mean=stated.mean, std=stated.std)
        preprocessing = replace(preprocessing, **fields)
    notes = [f"{path}: an image model of {image.config.height}x{image.config.width}, {image.config.pooling} pooling"]
    notes += [f"left: {', '.join(image.left)}"] if image.left else []
    notes += _dropped(image, config)
    said = "as the image model states" if image.preprocessing else "the published code's: the image model states none"
    notes.append(f"gelu {config.gelu}, epsilon {config.epsilon:g}; preprocessing: {preprocessing.range}, {said}")
    return Model(
        config=config,
        params=rebuilt(shapes(config), arrays),
        labels=image.labels if keep_head and len(config.classes) == 1 else None,
        preprocessing=preprocessing,
        report=Report(tuple(origins), tuple(notes)),
    )


def _check_sizes(image: ImageModel, config: Config, keep_head: bool) -> None:
    theirs = image.config
    faults = [
        f"{field} is {getattr(config, field)}: the image model has {getattr(theirs, field)}"
        for field in ("channels", "heads", "hidden", "layers")
        if getattr(config, field) != getattr(theirs, field)
    ]
    if config.tubelet[1:] != theirs.tubelet[1:]:
        faults.append(f"tubelet is {config.tubelet}: the image model's patches are {theirs.tubelet[1:]}")
    if keep_head and sum(config.classes) != sum(theirs.classes):
        faults.append(f"classes is {config.classes}: the image model's head has {theirs.classes}")
    if keep_head and config.representation != theirs.representation:
        faults.append(f"representation is {config.representation}: the image model has {theirs.representation}")
    if faults:
        raise ValueError(f"{image.source} does not fit the config: " + "; ".join(faults))


def _taken(image: ImageModel, wanted: Callable[[str], bool]) -> MADE:
    """The image model's own leaves, as they were read."""
    values = dict(leaves(image.params))
    return {one.leaf: (values[one.leaf], one.source, one.change) for one in image.origins if wanted(one.leaf)}


def _embedding(image: ImageModel, config: Config, embedding: Embedding) -> MADE:
    made = _taken(image, lambda leaf: leaf.startswith("embedding/"))
    kernel, source, change = made["embedding/kernel"]
    frames = config.tubelet[0]
    fill = tubelet.central_frame if embedding == "central_frame" else tubelet.inflate
    how = f"at frame {frames // 2} of {frames}, zeros elsewhere" if embedding == "central_frame" else None
    made["embedding/kernel"] = (fill(kernel[0], frames), source, f"{change}, {how or f'inflated over {frames} frames'}")
    return made


def _encoder(image: ImageModel, config: Config) -> MADE:
    """The spatial encoder: blocks and norm, the class token and positions where the config has them."""
    made = _taken(image, lambda leaf: leaf.startswith(("encoder/blocks/", "encoder/norm/")))
    if config.model == "factorised_self_attention":
        made = {_factorised(leaf): values for leaf, values in made.items()}
        for part, leaf in leaves(cast(FactorisedBlock, shapes(config).encoder.blocks).time_attention.out):
            path = f"encoder/blocks/time_attention/out/{part}"
            made[path] = (np.zeros(leaf.shape), "", "zeros: temporal attention starts as identity")
    if config.class_token and image.config.class_token:
        made |= _taken(image, lambda leaf: leaf == "encoder/class_token")
    if config.positions == "learned":
        made["encoder/positions"] = _positions(image, config)
    return made


def _factorised(leaf: str) -> str:
    """Where model 3 has what an image model calls its attention."""
    leaf = leaf.replace("blocks/attention_norm/", "blocks/space_norm/")
    return leaf.replace("blocks/attention/", "blocks/space_attention/")


def _positions(image: ImageModel, config: Config) -> tuple[np.ndarray, str, str]:
    table, source, _ = _taken(image, lambda leaf: leaf == "encoder/positions")["encoder/positions"]
    before, grid = image.config.grid, config.grid
    places = table[1:] if image.config.class_token else table
    changes = []
    if before[1:] != grid[1:]:
        places = resize_space(np.asarray(places, np.float64), before, grid[1:])
        changes.append(f"resized from {before[1]}×{before[2]} to {grid[1]}×{grid[2]}")
    if config.model != "factorised_encoder" and grid[0] > 1:
        places = tile(places, (1, *grid[1:]), grid[0])
        changes.append(f"tiled over {grid[0]} time indices")
    if config.class_token:
        own = table[:1] if image.config.class_token else np.zeros_like(table[:1])
        places = np.concatenate([own, places])
        changes += [] if image.config.class_token else ["zeros for the class token"]
    elif image.config.class_token:
        changes.append("without the class token's")
    return places, source, ", ".join(changes) or "as it is"


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
