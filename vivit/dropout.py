"""Draws dropout multipliers (reference/dropout.py) from a random key, one layer at a time.

The key is one key for the batch, or keys [b], one per clip. With keys per clip, the multipliers of a clip depend on its
own key only, whatever batch contains it. `draw` returns the multipliers of a whole model at once, to pass to the
reference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vivit.numerics.hash_dropout import Dropout, halves, multipliers
from vivit.reference.config import Config
from vivit.reference.dropout import AttentionDrops, BlockDrops, Drops, EncoderDrops, FactorisedBlockDrops, MlpDrops
from vivit.reference.values import quoted


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Dropout probabilities, 0 ≤ p < 1.

    dropout: after the positions, after attention, after GELU and after the second MLP layer.
    attention_dropout: on attention weights.
    stochastic_depth: whole residual branches, p·l/(L−1) in layer l of L, for each sequence independently.
    rescale_depth: divide kept branches by 1 − p·l/(L−1); the published code does not.
    Source: Arnab et al. 2021, section 4.2; Huang et al. 2016.
    """

    dropout: float = 0.0
    attention_dropout: float = 0.0
    stochastic_depth: float = 0.0
    rescale_depth: bool = False

    def __post_init__(self) -> None:
        for field in ("dropout", "attention_dropout", "stochastic_depth"):
            rate = getattr(self, field)
            if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
                raise ValueError(f"{field} is {quoted(rate)}: it must be a number from 0 up to, not including, 1")


@dataclass(frozen=True, kw_only=True)
class DropoutSizes:
    """The sizes that determine the shapes of one encoder's multipliers.

    shape: of the tokens, [b ... n c]. sequence_axes: number of leading axes that enumerate sequences.
    factorised: whether layers have two attentions (model 3).
    """

    shape: tuple[int, ...]
    heads: int
    hidden: int
    sequence_axes: int
    factorised: bool

    @property
    def depth_shape(self) -> tuple[int, ...]:
        """Shape of the stochastic depth multiplier: one number per sequence."""
        return (*self.shape[: self.sequence_axes], *(1 for _ in self.shape[self.sequence_axes :]))


def encoder_keys(key: jax.Array, layers: int) -> tuple[jax.Array, jax.Array]:
    """Splits a key into the key of an encoder's tokens and the keys [l] of its layers."""
    token_key, layer_key = split(key, 2)
    return token_key, split(layer_key, layers)


def split(key: jax.Array, count: int) -> jax.Array:
    """Splits a key into keys [count], or the keys [b] of clips into keys [count b]."""
    if _has_key_per_clip(key):
        return jax.vmap(lambda clip: jax.random.split(clip, count), out_axes=1)(key)
    return jax.random.split(key, count)


def _has_key_per_clip(key: jax.Array) -> bool:
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 1


def _draw_array(key: jax.Array, shape: tuple[int, ...], draw: Callable[[jax.Array, tuple[int, ...]], jax.Array]):
    """Calls draw(key, shape), or draws each clip's part with its own key."""
    return jax.vmap(lambda clip: draw(clip, shape[1:]))(key) if _has_key_per_clip(key) else draw(key, shape)


def depth_rates(rates: Rates, layers: int) -> jax.Array:
    """Returns p·l/(L−1) for layer l of L: float32[l]."""
    return rates.stochastic_depth * jnp.arange(layers, dtype=jnp.float32) / max(layers - 1, 1)


def keep_multiplier(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Returns 0 where dropped, 1 / (1 − rate) where kept: float32 of this shape."""
    kept = _draw_array(key, shape, lambda key, shape: jax.random.bernoulli(key, 1.0 - rate, shape))
    return kept.astype(jnp.float32) / (1.0 - rate)


def weight_seeds(key: jax.Array, rates: Rates, batch: int, heads: int) -> Dropout | None:
    """Returns the seeds of the attention weights' multipliers, which are drawn inside the attention; None at rate 0."""
    if not rates.attention_dropout:
        return None
    bits = _draw_array(key, (batch, heads, 2), lambda key, shape: jax.random.bits(key, shape, jnp.uint32))
    return Dropout(jax.lax.bitcast_convert_type(bits, jnp.int32), rates.attention_dropout)


def element_multiplier(key: jax.Array, rates: Rates, shape: tuple[int, ...]) -> jax.Array | None:
    """Returns the multiplier of elementwise dropout, or None at rate 0."""
    return keep_multiplier(key, rates.dropout, shape) if rates.dropout else None


def layer_drops(
    key: jax.Array, depth_rate: jax.Array, rates: Rates, sizes: DropoutSizes
) -> BlockDrops | FactorisedBlockDrops:
    """Returns the multipliers of one layer, with seeds in place of those of attention weights."""
    first, second, mlp_key = split(key, 3)

    def depth(branch_key: jax.Array) -> jax.Array | None:
        if not rates.stochastic_depth:
            return None
        kept = _draw_array(
            branch_key, sizes.depth_shape, lambda key, shape: jax.random.bernoulli(key, 1.0 - depth_rate, shape)
        )
        kept = kept.astype(jnp.float32)
        return kept / (1.0 - depth_rate) if rates.rescale_depth else kept

    def attention(branch_key: jax.Array) -> AttentionDrops:
        weight_key, out_key, depth_key = split(branch_key, 3)
        weights = weight_seeds(weight_key, rates, sizes.shape[0], sizes.heads)
        return AttentionDrops(weights, element_multiplier(out_key, rates, sizes.shape), depth(depth_key))

    hidden_key, out_key, depth_key = split(mlp_key, 3)
    hidden = element_multiplier(hidden_key, rates, (*sizes.shape[:-1], sizes.hidden))
    mlp = MlpDrops(hidden, element_multiplier(out_key, rates, sizes.shape), depth(depth_key))
    if sizes.factorised:
        return FactorisedBlockDrops(attention(first), attention(second), mlp)
    return BlockDrops(attention(first), mlp)


@partial(jax.jit, static_argnames=("config", "rates", "batch"))
def draw(rng: jax.Array, config: Config, rates: Rates, batch: int) -> Drops:
    """Returns all multipliers that `forward(…, rng=rng)` uses for a batch of the config's size, layers stacked along l.

    Holds the attention multipliers of all layers in memory: for comparison with the reference at small sizes.
    """
    time, height, width = config.grid
    space, extra, c, h = height * width, int(config.class_token), config.channels, config.heads
    first_key, second_key = jax.random.split(rng)
    if config.model == "factorised_encoder":
        n = space + extra
        sizes = DropoutSizes(
            shape=(batch, time, n, c), heads=h, hidden=config.hidden, sequence_axes=2, factorised=False
        )
        encoder = _draw_encoder(
            first_key, config, rates, sizes, {"attention": weights_shape("spatial", (batch, time, n), h)}
        )
        if not config.temporal_layers:
            return Drops(encoder)
        temporal, n = config.temporal, time + extra
        sizes = DropoutSizes(
            shape=(batch, n, c), heads=temporal.heads, hidden=temporal.hidden, sequence_axes=1, factorised=False
        )
        weights = {"attention": weights_shape("joint", (batch, n), temporal.heads)}
        return Drops(encoder, _draw_encoder(second_key, temporal, rates, sizes, weights))
    if config.model == "spatio_temporal":
        n = time * space + extra
        sizes = DropoutSizes(shape=(batch, n, c), heads=h, hidden=config.hidden, sequence_axes=1, factorised=False)
        weights = {"attention": weights_shape("joint", (batch, n), h)}
        return Drops(_draw_encoder(first_key, config, rates, sizes, weights))
    factorised = config.model == "factorised_self_attention"
    sizes = DropoutSizes(
        shape=(batch, time, space, c), heads=h, hidden=config.hidden, sequence_axes=1, factorised=factorised
    )
    cores = {"attention": "factorised_dot_product"}
    if factorised:
        cores = {"time": "temporal", "space": "spatial"}
    weights = {axis: weights_shape(core, (batch, time, space), h) for axis, core in cores.items()}
    return Drops(_draw_encoder(first_key, config, rates, sizes, weights))


def _draw_encoder(key: jax.Array, config: Config, rates: Rates, sizes: DropoutSizes, weights: dict) -> EncoderDrops:
    token_key, layer_keys = encoder_keys(key, config.layers)

    def one_layer(key: jax.Array, depth_rate: jax.Array) -> BlockDrops | FactorisedBlockDrops:
        drops = layer_drops(key, depth_rate, rates, sizes)
        for axis, shape in weights.items():
            attention = getattr(drops, axis)
            if attention.weights is not None:
                drops = drops._replace(**{axis: attention._replace(weights=all_weights(attention.weights, shape))})
        return drops

    return EncoderDrops(
        element_multiplier(token_key, rates, sizes.shape),
        jax.vmap(one_layer)(layer_keys, depth_rates(rates, config.layers)),
    )


def weights_shape(core: str, tokens: tuple[int, ...], heads: int) -> tuple:
    """Returns the shape of a core's attention weights, as the reference takes their multipliers; two for model 4.

    tokens: the shape of the tokens without channels, (b, n) or (b, t, s).
    """
    if core == "factorised_dot_product":
        return weights_shape("temporal", tokens, heads // 2), weights_shape("spatial", tokens, heads // 2)
    b, *outer, n = tokens
    if core == "temporal":
        (t,) = outer
        return b, n, heads, t, t
    return b, *outer, heads, n, n


def all_weights(dropout: Dropout, shape: tuple) -> Any:
    """Returns the multipliers of attention weights of a shape that `weights_shape` gives."""
    if isinstance(shape[0], tuple):
        return tuple(all_weights(half, part) for half, part in zip(halves(dropout), shape, strict=True))
    outer = shape[1] if len(shape) == 5 else 1
    return multipliers(dropout, outer, *shape[-2:]).reshape(shape)
