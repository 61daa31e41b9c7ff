"""A video model for another clip length or resolution: its positions are read off at the new places."""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from vivit.checkpoints.report import Report
from vivit.model import Model
from vivit.reference.params import Encoder
from vivit.reference.positions import resize

Grid = tuple[int, int, int]


def resized(model: Model, frames: int, height: int, width: int) -> Model:
    """The model for clips of this size; what it computes is `vivit.forward(…, resize=True)` of the old one.

    Learned positions are interpolated linearly, each encoder's its own; everything else stays. Preprocessing crops and
    resizes by the same ratio. Raises ValueError if the tubelet does not divide the size.
    """
    old = model.config
    if (frames, height, width) == (old.frames, old.height, old.width):
        return model
    config = replace(old, frames=frames, height=height, width=width)
    before, after, params, report = old.grid, config.grid, model.params, model.report
    if old.positions == "learned" and before != after:
        factorised = old.model == "factorised_encoder"
        space = (lambda grid: (1, *grid[1:])) if factorised else (lambda grid: grid)
        params, report = _encoder("encoder", params, report, space, before, after, old.class_token)
        if params.temporal_encoder is not None:
            time = lambda grid: (grid[0], 1, 1)  # noqa: E731
            params, report = _encoder("temporal_encoder", params, report, time, before, after, old.class_token)
    return replace(
        model,
        config=config,
        params=params,
        preprocessing=model.preprocessing.scaled((old.height, old.width), (height, width)),
        report=report.noted(f"for {old.frames} frames of {old.height}x{old.width}, now {frames} of {height}x{width}"),
    )


def _encoder(
    name: str, params, report: Report, part: Callable[[Grid], Grid], before: Grid, after: Grid, class_token: bool
):
    """The params and report with one encoder's positions resized from part(before) to part(after)."""
    before, after = part(before), part(after)
    encoder: Encoder = getattr(params, name)
    if before == after or encoder.positions is None:
        return params, report
    table = np.asarray(encoder.positions, np.float64)
    own, places = np.split(table, [int(class_token)])
    table = jax.device_put(np.concatenate([own, resize(places, before, after)]).astype(np.float32))
    words = f"interpolated from {'×'.join(map(str, before))} to {'×'.join(map(str, after))}"
    origins = tuple(
        one._replace(shape=table.shape, change=f"{one.change}, {words}") if one.leaf == f"{name}/positions" else one
        for one in report.origins
    )
    return params._replace(**{name: encoder._replace(positions=table)}), report._replace(origins=origins)
