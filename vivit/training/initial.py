"""What a training starts from: fresh weights, a video checkpoint or an image model, with a head for the data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from vivit.checkpoints.image import Embedding, from_image_model
from vivit.checkpoints.load import load
from vivit.checkpoints.report import Report
from vivit.data.opening import Limits
from vivit.data.sources import Dataset
from vivit.initialise import draws, init
from vivit.model import Model
from vivit.reference.config import Config
from vivit.reference.params import Dense


def initial(
    dataset: Dataset,
    config: Config | None,
    start: str | Path | None,
    *,
    image: Embedding | None = None,
    seed: int = 0,
    limits: Limits | None = None,
    **said: Any,
) -> Model:
    """The model that training begins with; its labels and head are the data's.

    config: of what is trained; None: the checkpoint's. start: None for fresh weights; else a checkpoint, as
    vivit.load takes it with what is `said`, or, if image says how its kernel is used, an image model. limits: as
    vivit.load's.
    Raises ValueError if neither config nor start is given, or they do not fit together.
    """
    labels, heads = dataset.names, dataset.heads
    if config is not None:
        config = replace(config, classes=dataset.classes)
    if start is None:
        if config is None or image is not None:
            raise ValueError("neither a model's name nor a checkpoint is given: one of them must say what to train")
        params = init(jax.random.key(seed), config)
        return Model(
            config=config, params=params, labels=labels, heads=heads, report=Report(notes=(f"fresh, seed {seed}",))
        )
    if image is not None:
        if config is None:
            raise ValueError(f"{start} is an image model: the name of a video model must say what to make of it")
        image_model = from_image_model(start, config, image, seed, limits=limits)
        return replace(image_model, labels=labels, heads=heads)
    if config is not None:
        said = dict(frames=config.frames, height=config.height, width=config.width) | said
    model = with_head(load(start, limits=limits, **said), dataset, seed)
    if config is not None and replace(config, gelu=model.config.gelu).canonical != model.config.canonical:
        raise ValueError(f"{start} is of {model.config}: the model to train was said to be {config}")
    return model


def with_head(model: Model, dataset: Dataset, seed: int) -> Model:
    """The model with a head for the data's classes: its own if its labels are the same, else a fresh one."""
    labels, classes = dataset.names, dataset.classes
    if model.config.classes == classes and model.labels in (None, labels):
        return replace(model, labels=labels, heads=dataset.heads)
    config = replace(model.config, classes=classes)
    drawn = draws(jax.random.key(seed), config)
    params = model.params._replace(head=Dense(drawn["head/kernel"](), drawn["head/bias"]()))
    report = model.report.noted(f"head: fresh, for {classes} classes")
    return replace(model, config=config, params=params, labels=labels, heads=dataset.heads, report=report)
