"""What training drops, drawn from an explicit key: the multipliers of reference/dropout.py, one layer at a time.

A key may be one for the whole batch, or an array of keys [b], one a clip: what a clip drops then depends on its own
key alone, in whatever batch it stands. `draw` gives the multipliers of a whole model at once, so that the reference can
be run with them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from vivit.numerics.hash_dropout import Dropout, halves, multipliers
from vivit.reference.config import Config
from vivit.reference.dropout import AttentionDrops, BlockDrops, Drops, EncoderDrops, FactorisedBlockDrops, MlpDrops
from vivit.reference.values import quoted


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How much is dropped: probabilities from 0 up to, not including, 1.

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
class Site:
    """Where one encoder drops: the sizes of its tokens [b ... n c], and how many leading axes tell sequences apart."""

    shape: tuple[int, ...]
    heads: int
    hidden: int
    sequences: int
    factorised: bool

    @property
    def depth_shape(self) -> tuple[int, ...]:
        return (*self.shape[: self.sequences], *(1 for _ in self.shape[self.sequences :]))


def encoder_keys(key: jax.Array, layers: int) -> tuple[jax.Array, jax.Array]:
    """The key of an encoder's tokens, and those of its layers [l]."""
    token_key, layer_key = split(key, 2)
    return token_key, split(layer_key, layers)


def split(key: jax.Array, count: int) -> jax.Array:
    """`count` keys, from one key [count], from keys [b] of clips [count b]."""
    if _one_a_clip(key):
        return jax.vmap(lambda clip: jax.random.split(clip, count), out_axes=1)(key)
    return jax.random.split(key, count)


def _one_a_clip(key: jax.Array) -> bool:
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 1


def _drawn(key: jax.Array, shape: tuple[int, ...], draw: Callable[[jax.Array, tuple[int, ...]], jax.Array]):
    """draw(key, shape), or with keys of clips each clip's part by itself."""
    return jax.vmap(lambda clip: draw(clip, shape[1:]))(key) if _one_a_clip(key) else draw(key, shape)


def depth_rates(rates: Rates, layers: int) -> jax.Array:
    """p·l/(L−1) for layer l of L: float32[l]."""
    return rates.stochastic_depth * jnp.arange(layers, dtype=jnp.float32) / max(layers - 1, 1)


def keep_multiplier(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """0 where dropped, 1 / (1 − rate) where kept: float32 of this shape."""
    kept = _drawn(key, shape, lambda key, shape: jax.random.bernoulli(key, 1.0 - rate, shape))
    return kept.astype(jnp.float32) / (1.0 - rate)


def attention_weights(key: jax.Array, rates: Rates, batch: int, heads: int) -> Dropout | None:
    """What the weights' multipliers are drawn from, where they are used; or None at rate 0."""
    if not rates.attention_dropout:
        return None
    bits = _drawn(key, (batch, heads, 2), lambda key, shape: jax.random.bits(key, shape, jnp.uint32))
    return Dropout(jax.lax.bitcast_convert_type(bits, jnp.int32), rates.attention_dropout)


def elements(key: jax.Array, rates: Rates, shape: tuple[int, ...]) -> jax.Array | None:
    """The multiplier of plain dropout, or None at rate 0."""
    return keep_multiplier(key, rates.dropout, shape) if rates.dropout else None


def layer_drops(key: jax.Array, depth_rate: jax.Array, rates: Rates, site: Site) -> BlockDrops | FactorisedBlockDrops:
    """What one layer drops. Attention weights are drawn later, where they are used."""
    first, second, mlp_key = split(key, 3)

    def depth(branch_key: jax.Array) -> jax.Array | None:
        if not rates.stochastic_depth:
            return None
        kept = _drawn(
            branch_key, site.depth_shape, lambda key, shape: jax.random.bernoulli(key, 1.0 - depth_rate, shape)
        )
        kept = kept.astype(jnp.float32)
        return kept / (1.0 - depth_rate) if rates.rescale_depth else kept

    def attention(branch_key: jax.Array) -> AttentionDrops:
        weight_key, out_key, depth_key = split(branch_key, 3)
        weights = attention_weights(weight_key, rates, site.shape[0], site.heads)
        return AttentionDrops(weights, elements(out_key, rates, site.shape), depth(depth_key))

    hidden_key, out_key, depth_key = split(mlp_key, 3)
    hidden = elements(hidden_key, rates, (*site.shape[:-1], site.hidden))
    mlp = MlpDrops(hidden, elements(out_key, rates, site.shape), depth(depth_key))
    if site.factorised:
        return FactorisedBlockDrops(attention(first), attention(second), mlp)
    return BlockDrops(attention(first), mlp)


@partial(jax.jit, static_argnames=("config", "rates", "batch"))
def draw(rng: jax.Array, config: Config, rates: Rates, batch: int) -> Drops:
    """Everything that `forward(…, rng=rng)` drops for a batch of the config's size, layers stacked along l.

    Memory: attention weights for all layers at once; meant for comparing with the reference, at small sizes.
    """
    time, height, width = config.grid
    space, extra, c, h = height * width, int(config.class_token), config.channels, config.heads
    over_time, over_space = (batch, space, h, time, time), (batch, time, h, space, space)
    first_key, second_key = jax.random.split(rng)
    if config.model == "factorised_encoder":
        n = space + extra
        site = Site(shape=(batch, time, n, c), heads=h, hidden=config.hidden, sequences=2, factorised=False)
        encoder = _draw_encoder(first_key, config, rates, site, {"attention": (batch, time, h, n, n)})
        if not config.temporal_layers:
            return Drops(encoder)
        temporal, n = config.temporal, time + extra
        site = Site(shape=(batch, n, c), heads=temporal.heads, hidden=temporal.hidden, sequences=1, factorised=False)
        weights = {"attention": (batch, temporal.heads, n, n)}
        return Drops(encoder, _draw_encoder(second_key, temporal, rates, site, weights))
    if config.model == "spatio_temporal":
        n = time * space + extra
        site = Site(shape=(batch, n, c), heads=h, hidden=config.hidden, sequences=1, factorised=False)
        return Drops(_draw_encoder(first_key, config, rates, site, {"attention": (batch, h, n, n)}))
    factorised = config.model == "factorised_self_attention"
    site = Site(shape=(batch, time, space, c), heads=h, hidden=config.hidden, sequences=1, factorised=factorised)
    if factorised:
        return Drops(_draw_encoder(first_key, config, rates, site, {"time": over_time, "space": over_space}))
    halves = tuple((*shape[:2], h // 2, *shape[3:]) for shape in (over_time, over_space))
    return Drops(_draw_encoder(first_key, config, rates, site, {"attention": halves}))


def _draw_encoder(key: jax.Array, config: Config, rates: Rates, site: Site, weights: dict) -> EncoderDrops:
    token_key, layer_keys = encoder_keys(key, config.layers)

    def one_layer(key: jax.Array, depth_rate: jax.Array) -> BlockDrops | FactorisedBlockDrops:
        drops = layer_drops(key, depth_rate, rates, site)
        for axis, shape in weights.items():
            attention = getattr(drops, axis)
            if attention.weights is not None:
                drops = drops._replace(**{axis: attention._replace(weights=_all_weights(attention.weights, shape))})
        return drops

    return EncoderDrops(
        elements(token_key, rates, site.shape), jax.vmap(one_layer)(layer_keys, depth_rates(rates, config.layers))
    )


def _all_weights(dropout: Dropout, shape: tuple):
    """The multipliers of weights of this shape, [b h q k] or [b outer h q k]; of a pair of shapes for model 4."""
    if isinstance(shape[0], tuple):
        return tuple(_all_weights(half, part) for half, part in zip(halves(dropout), shape, strict=True))
    outer = shape[1] if len(shape) == 5 else 1
    return multipliers(dropout, outer, *shape[-2:]).reshape(shape)
