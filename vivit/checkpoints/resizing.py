"""Resizes a video model to another clip length or resolution by interpolating its positions."""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from vivit.model_data import ModelData, Report
from vivit.reference.params import Encoder
from vivit.reference.positions import resize

Grid = tuple[int, int, int]


def resized(model: ModelData, frames: int, height: int, width: int) -> ModelData:
    """Returns the model for clips of this size; it computes `vivit.forward(…, resize=True)` of the original.

    Learned positions are interpolated linearly, separately in each encoder; all other weights are unchanged. The sizes
    of the preprocessing are scaled by the same ratio. Raises ValueError if the tubelet does not divide the size.
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
        report=report.with_notes(
            f"for {old.frames} frames of {old.height}x{old.width}, now {frames} of {height}x{width}"
        ),
    )


def _encoder(
    name: str, params, report: Report, part: Callable[[Grid], Grid], before: Grid, after: Grid, class_token: bool
):
    """Returns params and report with one encoder's positions resized from part(before) to part(after)."""
    before, after = part(before), part(after)
    encoder: Encoder = getattr(params, name)
    if before == after or encoder.positions is None:
        return params, report
    table = np.asarray(encoder.positions, np.float64)
    token, positions = np.split(table, [int(class_token)])
    table = jax.device_put(np.concatenate([token, resize(positions, before, after)]).astype(np.float32))
    words = f"interpolated from {'×'.join(map(str, before))} to {'×'.join(map(str, after))}"
    origins = tuple(
        one._replace(shape=table.shape, change=f"{one.change}, {words}") if one.leaf == f"{name}/positions" else one
        for one in report.origins
    )
    return params._replace(**{name: encoder._replace(positions=table)}), report._replace(origins=origins)
