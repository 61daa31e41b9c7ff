"""Builds the model that training starts from: fresh weights, a video checkpoint or an image model.

The model gets a head for the classes of the dataset.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from vivit.checkpoints.image import Embedding
from vivit.data.sources import Dataset
from vivit.initialise import draws, init
from vivit.model_data import Report
from vivit.pretrained import Model, from_image_model, load
from vivit.reference.config import Config
from vivit.reference.params import Dense
from vivit.video.container import Limits


def initial_model(
    dataset: Dataset,
    config: Config | None,
    start: str | Path | None,
    *,
    image: Embedding | None = None,
    seed: int = 0,
    limits: Limits | None = None,
    **overrides: Any,
) -> Model:
    """Returns the model that training starts from, with the labels and heads of the dataset.

    config: the model to train; None: the checkpoint's. start: None for fresh weights; else a checkpoint, loaded by
    vivit.load with `overrides`, or, if `image` is given, an image model. image: how the image model's patch kernel
    fills the tubelet (vivit.from_image_model). seed: of fresh weights. limits: as in vivit.load.

    Raises ValueError if neither config nor start is given, or if they disagree.
    """
    labels, heads = dataset.names, dataset.heads
    if config is not None:
        config = replace(config, classes=dataset.classes)
    if start is None:
        if config is None or image is not None:
            raise ValueError("neither config nor start is given: at least one of a model and a checkpoint is required")
        params = init(jax.random.key(seed), config)
        return Model(
            config=config, params=params, labels=labels, heads=heads, report=Report(notes=(f"fresh, seed {seed}",))
        )
    if image is not None:
        if config is None:
            raise ValueError(f"{start} is an image model: config is None, and must be the video model to build from it")
        image_model = from_image_model(start, config, image, seed, limits=limits)
        return replace(image_model, labels=labels, heads=heads)
    if config is not None:
        overrides = dict(frames=config.frames, height=config.height, width=config.width) | overrides
    model = with_head(load(start, limits=limits, **overrides), dataset, seed)
    if config is not None and replace(config, gelu=model.config.gelu).canonical != model.config.canonical:
        raise ValueError(f"{start} is of {model.config}: the model to train is {config}")
    return model


def with_head(model: Model, dataset: Dataset, seed: int) -> Model:
    """Returns the model with a head for the dataset's classes: its own if the labels are equal, else a fresh one."""
    labels, classes = dataset.names, dataset.classes
    if model.config.classes == classes and model.labels in (None, labels):
        return replace(model, labels=labels, heads=dataset.heads)
    config = replace(model.config, classes=classes)
    drawn = draws(jax.random.key(seed), config)
    params = model.params._replace(head=Dense(drawn["head/kernel"](), drawn["head/bias"]()))
    report = model.report.with_notes(f"head: fresh, for {classes} classes")
    return replace(model, config=config, params=params, labels=labels, heads=dataset.heads, report=report)
