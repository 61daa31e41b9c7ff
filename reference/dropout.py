"""Dropout as explicit multipliers: one tree for a whole model, None where nothing is dropped.

The reference draws no random numbers: production draws the multipliers, and tests pass the same ones to both.
A multiplier is 0 where dropped and 1 / (1 − rate) where kept. `depth` has one number per residual branch and example.
Source: Srivastava et al. 2014 (dropout), Huang et al. 2016 (stochastic depth), Arnab et al. 2021, section 4.2.
"""

from typing import Any, NamedTuple

Array = Any  # np.ndarray here, jax.Array in production


class AttentionDrops(NamedTuple):
    """Multipliers of one attention branch."""

    weights: Any = None  # the attention core's `dropout`, with a leading l in an encoder
    out: Array | None = None  # [l ... n c]
    depth: Array | None = None  # [l ... 1 1]


class MlpDrops(NamedTuple):
    """Multipliers of one MLP branch."""

    hidden: Array | None = None  # [l ... n f]
    out: Array | None = None  # [l ... n c]
    depth: Array | None = None  # [l ... 1 1]


class BlockDrops(NamedTuple):
    """Multipliers of one layer of models 1, 2 and 4."""

    attention: AttentionDrops = AttentionDrops()
    mlp: MlpDrops = MlpDrops()


class FactorisedBlockDrops(NamedTuple):
    """Multipliers of one layer of model 3."""

    time: AttentionDrops = AttentionDrops()
    space: AttentionDrops = AttentionDrops()
    mlp: MlpDrops = MlpDrops()


class EncoderDrops(NamedTuple):
    """Multipliers of one encoder, stacked over its layers along l."""

    tokens: Array | None = None  # [... n c], after the positions
    blocks: BlockDrops | FactorisedBlockDrops | None = None


class Drops(NamedTuple):
    """Multipliers of a whole model."""

    encoder: EncoderDrops = EncoderDrops()
    temporal_encoder: EncoderDrops = EncoderDrops()
