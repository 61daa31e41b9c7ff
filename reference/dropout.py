"""What training drops, as explicit multipliers: one tree for a whole model, None wherever nothing is dropped.

The reference never draws a random number: production draws these, and both can be compared on the same ones.
A multiplier is 0 where dropped and 1 / (1 − rate) where kept; `depth` is one number a residual branch and example.
Source: Srivastava et al. 2014 (dropout), Huang et al. 2016 (stochastic depth), Arnab et al. 2021, section 4.2.
"""

from typing import Any, NamedTuple

Array = Any  # np.ndarray here, jax.Array in production


class AttentionDrops(NamedTuple):
    weights: Any = None  # as the core's `dropout`, with a leading l in an encoder
    out: Array | None = None  # [l ... n c]
    depth: Array | None = None  # [l ... 1 1]


class MlpDrops(NamedTuple):
    hidden: Array | None = None  # [l ... n f]
    out: Array | None = None  # [l ... n c]
    depth: Array | None = None  # [l ... 1 1]


class BlockDrops(NamedTuple):
    """One layer of models 1, 2 and 4."""

    attention: AttentionDrops = AttentionDrops()
    mlp: MlpDrops = MlpDrops()


class FactorisedBlockDrops(NamedTuple):
    """One layer of model 3."""

    time: AttentionDrops = AttentionDrops()
    space: AttentionDrops = AttentionDrops()
    mlp: MlpDrops = MlpDrops()


class EncoderDrops(NamedTuple):
    tokens: Array | None = None  # [... n c], after the positions
    blocks: BlockDrops | FactorisedBlockDrops | None = None


class Drops(NamedTuple):
    encoder: EncoderDrops = EncoderDrops()
    temporal_encoder: EncoderDrops = EncoderDrops()
