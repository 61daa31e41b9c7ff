"""Model, the result of `vivit.load`: ModelData with the functions that take a model as methods."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from vivit.checkpoints import image
from vivit.checkpoints import load as checkpoints
from vivit.checkpoints.save import save
from vivit.explanation.compute import explain
from vivit.inference.classification import classify
from vivit.inference.export import export
from vivit.inference.features import features
from vivit.inference.probe import probe
from vivit.inference.timeline import timeline
from vivit.model_data import ModelData

Arguments = ParamSpec("Arguments")


class Model(ModelData):
    """ModelData with methods: `model.classify(video)` is `vivit.classify(model, video)`; the others are alike."""

    classify = classify
    features = features
    timeline = timeline
    probe = probe
    explain = explain
    save = save
    export = export


def _as_model(read: Callable[Arguments, ModelData]) -> Callable[Arguments, Model]:
    """Returns the same function with a Model as its result."""

    @wraps(read)
    def loaded(*args: Arguments.args, **options: Arguments.kwargs) -> Model:
        return Model(**vars(read(*args, **options)))

    loaded.__signature__ = inspect.signature(read).replace(return_annotation=Model)  # pyright: ignore
    return loaded


load = _as_model(checkpoints.load)
from_image_model = _as_model(image.from_image_model)
