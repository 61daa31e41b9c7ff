"""Computes the Explanation of a video: classifies its views, chooses a view and classes, computes their maps."""

from pathlib import Path

import numpy as np

from vivit.explanation.data import Target, ViewScores
from vivit.explanation.filters import filters
from vivit.explanation.relevance import explain_clip
from vivit.explanation.saving import Explanation
from vivit.inference.batches import BATCH
from vivit.inference.classification import class_names, probabilities, scores
from vivit.inference.view_logits import clip_logits
from vivit.memory import check_model
from vivit.model_data import ModelData, clip_spec
from vivit.reference.costs import multiply_adds
from vivit.reference.nearest import did_you_mean
from vivit.reference.params import parameters
from vivit.reference.values import is_count, quoted
from vivit.video.container import Limits
from vivit.video.crops import VIEWS
from vivit.video.inputs import video_name
from vivit.video.views import load_views

TOP_K = 5  # classes of each head that get a relevance map


def explain(
    model: ModelData,
    video: str | Path | np.ndarray,
    *,
    target: str | None = None,
    view: int | None = None,
    views: tuple[int, int] = VIEWS,
    top: int = 5,
    stride: int | None = None,
    batch: int = BATCH,
    limits: Limits | None = None,
    name: str | None = None,
    checkpoint: str = "",
) -> Explanation:
    """Returns the classification of a video and of its views, with attention and relevance maps of one view.

    video, views, stride, limits: as in classify. target: name of the class whose relevance is first; None: the most
    probable class of the first head. The TOP_K most probable classes of every head follow. view: number of the view for
    the maps, from 1, ordered by clip, then crop; None: the view with the largest probability of the target. top:
    classes per head in the result. batch: clips per batch. name, checkpoint: names of video and model in the result.
    Raises ValueError as classify does, and if the model has no such class or view, or logits are not finite.
    """
    labels = class_names(model)
    for word, value in (("top", top), ("batch", batch)):
        if not is_count(value):
            raise ValueError(f"{word} is {quoted(value)}: it must be at least 1")
    check_model(model.config, (limits or Limits()).memory, clips=batch)
    chosen = None if target is None else class_by_name(target, labels)  # before any computation
    spec = clip_spec(model, video, stride=stride, limits=limits, threads=0)
    loaded = load_views(spec, video, views)
    if view is not None and not (is_count(view) and view <= len(loaded.views)):
        raise ValueError(f"view is {quoted(view)}: it must be from 1 to {len(loaded.views)}")
    name = video_name(video) if name is None else name
    logits = clip_logits(model, loaded.pixels, name, batch=batch)
    mean = logits.mean(axis=0)
    of_mean = probabilities(model, mean)
    best = [(head, int(number)) for head, row in enumerate(of_mean) for number in np.argsort(-row)[:TOP_K]]
    classes = list(dict.fromkeys(best if chosen is None else [chosen, *best]))
    head, number = classes[0]
    pictured = int(probabilities(model, logits)[head][:, number].argmax()) if view is None else view - 1
    clip = loaded.pixels[pictured]
    maps = explain_clip(model.params, np.asarray(model.preprocessed(clip)), model.config, classes=classes)
    view_scores = tuple(
        ViewScores(
            float(one.stamps.min()), float(one.stamps.max()), one.crop, tuple(s[0] for s in scores(model, row, 1))
        )
        for one, row in zip(loaded.views, logits, strict=True)
    )
    return Explanation(
        name=name,
        checkpoint=checkpoint,
        frames=clip if clip.dtype == np.uint8 else model.preprocessing.pixels(clip),
        stamps=loaded.views[pictured].stamps,
        view=pictured,
        scores=scores(model, mean, top),
        views=view_scores,
        crops=loaded.views[pictured].crops,
        targets=tuple(Target(head, n, labels[head][n], float(of_mean[head][n])) for head, n in classes),
        attention=maps.attention,
        rollout=maps.rollout,
        relevance=maps.relevance - maps.relevance.min(axis=(1, 2), keepdims=True),
        rounding=maps.rounding,
        filters=filters(model.params),
        config=model.config,
        preprocessing=model.preprocessing,
        parameters=parameters(model.config),
        multiply_adds=multiply_adds(model.config),
        unit="frame" if isinstance(video, np.ndarray) else "s",
        head_names=model.head_names,
    )


def class_by_name(label: str, labels: tuple[tuple[str, ...], ...]) -> tuple[int, int]:
    """Returns (head, index) of a class. Raises ValueError if no head, or several heads, have a class of this name."""
    matches = [(head, names.index(label)) for head, names in enumerate(labels) if label in names]
    if not matches:
        if not isinstance(label, str):
            raise ValueError(f"class is {quoted(label)}: it must be the name of one of the model's")
        known = [name for names in labels for name in names]
        hint, few = did_you_mean(label, known), ", ".join(map(quoted, known[:3]))
        raise ValueError(f"class is {quoted(label)}: {hint}it must be one of the model's, such as {few}")
    if len(matches) > 1:
        raise ValueError(f"class is {quoted(label)}: {len(matches)} heads have a class of that name")
    return matches[0]
