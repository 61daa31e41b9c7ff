"""From a video and a model to an Explanation: what the views said, which view and class are shown, and the maps."""

from pathlib import Path

import numpy as np

from vivit.data.opening import Limits
from vivit.data.views import VIEWS
from vivit.explain.explanation import Explanation, Target, ViewScores
from vivit.explain.filters import filters
from vivit.explain.relevance import explained
from vivit.inference.batches import BATCH
from vivit.inference.classification import class_names, probabilities, scores, view_logits
from vivit.inference.videos import called
from vivit.inference.views import taken
from vivit.memory import check_model
from vivit.model import Model
from vivit.reference.costs import multiply_adds
from vivit.reference.nearest import did_you_mean
from vivit.reference.params import parameters
from vivit.reference.values import is_count, quoted

BEST = 5  # classes of each head that have a relevance


def explain(
    model: Model,
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
    """What a model says of a video, what each view said, and what it looked at in one of them.

    video, views, stride, limits: as vivit.inference.views.taken's. target: the name of the class whose relevance comes
    first; None: the first head's most probable; the BEST most probable of every head follow. view: the number of the
    view that is pictured, from 1, clip by clip, crop by crop; None: the one that gives the target the largest
    probability. top: classes shown of each head. batch: clips at once.
    name, checkpoint: what the video and the model are called.
    Raises ValueError for a model without a head, a class or view that there is not, logits that are not finite, or as
    views.taken.
    """
    labels = class_names(model)
    for word, value in (("top", top), ("batch", batch)):
        if not is_count(value):
            raise ValueError(f"{word} is {quoted(value)}: it must be at least 1")
    check_model(model.config, (limits or Limits()).memory, clips=batch)
    place = None if target is None else found_by_name(target, labels)  # before any work
    found = taken(model, video, views=views, stride=stride, limits=limits)
    if view is not None and not (is_count(view) and view <= len(found.views)):
        raise ValueError(f"view is {quoted(view)}: it must be from 1 to {len(found.views)}")
    name = called(video) if name is None else name
    logits = view_logits(model, found.pixels, name, batch=batch)
    mean = logits.mean(axis=0)
    of_mean = probabilities(model, mean)
    best = [(head, int(number)) for head, row in enumerate(of_mean) for number in np.argsort(-row)[:BEST]]
    classes = list(dict.fromkeys(best if place is None else [place, *best]))
    head, number = classes[0]
    pictured = int(probabilities(model, logits)[head][:, number].argmax()) if view is None else view - 1
    clip = found.pixels[pictured]
    looked = explained(model.params, np.asarray(model.preprocessed(clip)), model.config, classes=classes)
    said = tuple(
        ViewScores(
            float(one.stamps.min()), float(one.stamps.max()), one.crop, tuple(s[0] for s in scores(model, row, 1))
        )
        for one, row in zip(found.views, logits, strict=True)
    )
    return Explanation(
        name=name,
        checkpoint=checkpoint,
        frames=clip if clip.dtype == np.uint8 else model.preprocessing.pixels(clip),
        stamps=found.views[pictured].stamps,
        view=pictured,
        scores=scores(model, mean, top),
        views=said,
        crops=found.views[pictured].crops,
        targets=tuple(Target(head, n, labels[head][n], float(of_mean[head][n])) for head, n in classes),
        attention=looked.attention,
        rollout=looked.rollout,
        relevance=looked.relevance - looked.relevance.min(axis=(1, 2), keepdims=True),
        rounding=looked.rounding,
        filters=filters(model.params),
        config=model.config,
        preprocessing=model.preprocessing,
        parameters=parameters(model.config),
        multiply_adds=multiply_adds(model.config),
        unit="frame" if isinstance(video, np.ndarray) else "s",
        head_names=model.head_names,
    )


def found_by_name(label: str, labels: tuple[tuple[str, ...], ...]) -> tuple[int, int]:
    """The head and the number of a class. Raises ValueError if no class, or one in several heads, has this name."""
    places = [(head, names.index(label)) for head, names in enumerate(labels) if label in names]
    if not places:
        if not isinstance(label, str):
            raise ValueError(f"class is {quoted(label)}: it must be the name of one of the model's")
        known = [name for names in labels for name in names]
        hint, few = did_you_mean(label, known), ", ".join(map(quoted, known[:3]))
        raise ValueError(f"class is {quoted(label)}: {hint}it must be one of the model's, such as {few}")
    if len(places) > 1:
        raise ValueError(f"class is {quoted(label)}: {len(places)} heads have a class of that name")
    return places[0]
