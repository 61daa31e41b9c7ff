"""Small models for the tests of relevance, and ∇A∘A of their weights computed without backpropagation."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from strategies import SMALL

from vivit.audit import baseline
from vivit.reference import models as reference
from vivit.reference.dropout import AttentionDrops, BlockDrops, Drops, EncoderDrops, FactorisedBlockDrops

STEP = 1e-100

# t 3, s 5: few enough weights to move each of them by itself
TINY = replace(SMALL, width=7, channels=12, layers=2, classes=(3, 4))
_BLOCKS = replace(TINY, pooling="mean")
CONFIGS = {
    "model 1, class token": TINY,
    "model 1, max, representation": replace(TINY, pooling="max", representation=8),
    "model 1, first, sampled frames": replace(TINY, pooling="first", tubelet=(1, 3, 7), sampled_frames=3),
    "model 2, class tokens": replace(TINY, model="factorised_encoder"),
    "model 2, max": replace(TINY, model="factorised_encoder", pooling="max"),
    "model 2, frames averaged": replace(TINY, model="factorised_encoder", temporal_layers=0),
    "model 3, mean, time first": replace(_BLOCKS, model="factorised_self_attention"),
    "model 3, max, space first": replace(_BLOCKS, model="factorised_self_attention", pooling="max", order="space_time"),
    "model 4, sum": replace(_BLOCKS, model="factorised_dot_product", pooling="sum"),
}


def captured(params: Any, clip: np.ndarray, config: Any) -> dict[str, np.ndarray]:
    """Returns every stage of one clip, float64, without the batch axis."""
    stages: dict[str, Any] = {}
    reference.forward(params, clip[np.newaxis], config, capture=stages)
    return _one_clip(stages)


def weights_of(stages: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the attention weights among the stages."""
    return {name: values for name, values in stages.items() if name.endswith("weights")}


def weighted_gradients(params: Any, clip: np.ndarray, config: Any, index: int) -> dict[str, np.ndarray]:
    """Returns ∇A∘A of one logit, float64: its derivatives with respect to each weight's dropout multiplier at 1.

    Uses the complex step Im y(1 + i h) / h, which has no cancellation, so that the derivative is as exact as the logit.
    The batch holds one copy of the clip per weight.
    """
    shapes = {name: values.shape for name, values in weights_of(captured(params, clip, config)).items()}
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    moved = np.ones((count, count)) + 1j * STEP * np.eye(count)
    drops = drops_of(_parted(moved, shapes), config)
    clips = np.broadcast_to(clip, (count, *clip.shape))
    slopes = reference.forward(params, clips, config, drops=drops)[:, index].imag / STEP
    return {name: values[0] for name, values in _parted(slopes[np.newaxis], shapes).items()}


def plain_attentions(params: Any, clip: np.ndarray, config: Any, index: int) -> tuple[dict, dict]:
    """Returns (every stage, ∇A∘A of one logit) of the baseline in float32 by backpropagation; float64 arrays.

    Its parts are compiled separately: in one program, XLA may compute the input of max pooling twice with different
    roundings, so that no token equals the maximum.
    """
    shapes = {name: values.shape for name, values in weights_of(captured(params, clip, config)).items()}
    ones = {name: np.ones((1, *shape), np.float32) for name, shape in shapes.items()}

    def logit(multipliers):
        stages: dict[str, Any] = {}
        drops = drops_of(multipliers, config)
        return baseline.forward(params, clip[np.newaxis], config, drops=drops, capture=stages)[0, index], stages

    gradients, stages = jax.grad(logit, has_aux=True)(ones)
    return tuple(
        {name: np.asarray(values[0], np.float64) for name, values in each.items()} for each in (stages, gradients)
    )


def drops_of(multipliers: dict[str, Any], config: Any) -> Drops:
    """Returns the multipliers [b ...] of weights, by their names, in the form of models.forward's `drops`."""
    encoder = _encoder_drops(multipliers, "encoder", config)
    if config.model != "factorised_encoder" or not config.temporal_layers:
        return Drops(encoder)
    return Drops(encoder, _encoder_drops(multipliers, "temporal_encoder", config.temporal))


def _encoder_drops(multipliers: dict[str, Any], name: str, config: Any) -> EncoderDrops:
    def stacked(stage):
        found = [multipliers.get(f"{name}/{index}/{stage}") for index in range(config.layers)]
        return None if found[0] is None else jax.tree.map(lambda *each: _stack(each), *found)

    over_all, over_time, over_space = map(stacked, ("weights", "time_weights", "space_weights"))
    if config.model == "factorised_self_attention":
        return EncoderDrops(
            blocks=FactorisedBlockDrops(AttentionDrops(weights=over_time), AttentionDrops(weights=over_space))
        )
    if config.model == "factorised_dot_product":
        over_all = (over_time, over_space)
    return EncoderDrops(blocks=BlockDrops(AttentionDrops(weights=over_space if over_all is None else over_all)))


def _stack(values):
    return np.stack(values) if isinstance(values[0], np.ndarray) else jax.numpy.stack(values)


def _parted(rows: np.ndarray, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Splits [b count] into arrays of these shapes, [b ...]."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])[:-1]
    parts = zip(shapes.items(), np.split(rows, ends, axis=1), strict=True)
    return {name: part.reshape(len(rows), *shape) for (name, shape), part in parts}


def _one_clip(stages: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(values[0], np.float64) for name, values in stages.items()}
