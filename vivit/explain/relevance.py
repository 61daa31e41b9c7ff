"""What a model looked at in one clip: every attention summed up, attention rollout, and the relevance of some logits.

The equations are reference/relevance.py's, from the other end: what is pooled is a row, and the rows and the logits'
gradients go down through the model together, one layer at a time. The only activations that are kept are the streams
that enter the layers; whatever a layer needs is computed from them again.

How much of a relevance is rounding is measured: every logit goes down twice, the second time shaken by the last bits
of float32 before every layer. What the two differ by is what such bits can make of nothing.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vivit.compiled import stages
from vivit.encoder import attention_residual, mlp_residual
from vivit.explain.attention import Carried, Sums, look, maps, stages_of
from vivit.explain.explanation import AttentionMaps
from vivit.layers import LayerConfig, layer_config, layer_norm, pool
from vivit.models import classify
from vivit.ops import XLA
from vivit.reference.config import Config
from vivit.reference.dropout import AttentionDrops, MlpDrops
from vivit.reference.params import Attention, Block, Encoder, FactorisedBlock, LayerNorm, Params
from vivit.reference.params import layer as layer_of

CORES = {  # of a layer's only attention
    "spatio_temporal": "joint",
    "factorised_encoder": "spatial",
    "factorised_dot_product": "factorised_dot_product",
}
SHAKE = 2.0**-22  # of a number: the last two bits of float32
ROUNDING = 4  # times the largest difference that shaking made, at one token


class Explained(NamedTuple):
    """What was found in one clip.

    attention: every attention of every layer, in the order of computation. rollout: float32[t s]. relevance:
    float32[m t s], of each logit. rounding: float32[m], by how much rounding alone can tell two tokens of it apart.
    """

    attention: tuple[AttentionMaps, ...]
    rollout: np.ndarray
    relevance: np.ndarray
    rounding: np.ndarray


class Stack(NamedTuple):
    """One encoder: where it is, and what its layers look like."""

    name: str
    params: Encoder
    layers: int
    cores: tuple[str, ...]  # of each attention of a layer, in the order of computation
    layer: LayerConfig
    grid: tuple[int, int]  # tokens along (time, space)


def explained(
    params: Params, clip: np.ndarray | jax.Array, config: Config, *, classes: Sequence[tuple[int, int]]
) -> Explained:
    """Attention, attention rollout and relevance of one clip.

    Source: Abnar & Zuidema 2020; Chefer et al. 2021, eq. 5 and 6. clip: [frames height width 3], as vivit.forward takes
    a batch of. classes: of whose logits relevance is, (head, number) of each. All in float32.
    Raises ValueError if there is no such class, or for what does not fit.
    """
    for head, number in classes:
        if not 0 <= head < len(config.classes):
            raise ValueError(f"head is {head}: the model has {len(config.classes)} heads, numbered from 0")
        if not 0 <= number < config.classes[head]:
            raise ValueError(f"number is {number}: head {head} has {config.classes[head]} classes, numbered from 0")
    stacks = stacks_of(params, config)
    names = ["features", *(f"{stack.name}/{stage}" for stack in stacks for stage in _kept(stack))]
    averaged = config.model == "factorised_encoder" and not config.temporal_layers
    kept = stages(params, clip[np.newaxis], config=config, names=(*names, "frames") if averaged else tuple(names))

    indices = np.array([sum(config.classes[:head]) + number for head, number in classes])
    gradients = _logit_gradients(kept["features"], params.representation, params.head, np.tile(indices, 2))
    carried = Carried(gradients, jnp.ones(1, jnp.float32), jnp.ones(2 * len(indices), jnp.float32))
    if averaged:
        carried = _before_pooling(kept["frames"], carried, pooling="mean")
    found: list[AttentionMaps] = []
    for stack in reversed(stacks):
        carried = _before_pooling(kept[f"{stack.name}/norm"], carried, pooling=config.pooling)
        carried, looks = _down(stack, [kept[f"{stack.name}/{stage}"] for stage in _kept(stack)], carried)
        found = looks + found
        if config.class_token:
            carried = Carried(carried.cotangent[..., 1:, :], carried.rollout[..., 1:], carried.relevance[..., 1:])
    time, height, width = config.grid
    rollout = np.asarray(carried.rollout).reshape(time, height * width)
    relevance, shaken = np.asarray(carried.relevance).reshape(2, len(indices), time, height * width)
    rounding = ROUNDING * np.abs(relevance - shaken).max(axis=(1, 2), initial=0)
    return Explained(tuple(found), rollout, relevance, rounding)


def stacks_of(params: Params, config: Config) -> list[Stack]:
    """The encoders of a model, in the order of computation."""
    time, height, width = config.grid
    if config.model == "factorised_self_attention":
        cores = ("temporal", "spatial") if config.order == "time_space" else ("spatial", "temporal")
    else:
        cores = (CORES[config.model],)
    stacks = [
        Stack("encoder", params.encoder, config.layers, cores, layer_config(config, "float32"), (time, height * width))
    ]
    if params.temporal_encoder is not None:
        temporal, one = config.temporal, layer_config(config.temporal, "float32")
        stacks.append(Stack("temporal_encoder", params.temporal_encoder, temporal.layers, ("joint",), one, (time, 1)))
    return stacks


def _kept(stack: Stack) -> tuple[str, ...]:
    """The streams: what enters the first layer, what each gives, and the last after its norm."""
    return ("tokens", *(f"{index}/out" for index in range(stack.layers)), "norm")


@jax.jit
def _logit_gradients(features, representation, head, indices) -> jax.Array:
    """[m c]: the gradient of each logit in the features [1 c]."""

    def logit(features, index):
        return classify(features, representation, head)[1][0, index]

    return jax.vmap(jax.grad(logit), (None, 0))(features, indices)[:, 0]


def _pulled(pull, cotangents: jax.Array) -> jax.Array:
    """[m ...]: what a vector-Jacobian product of a batch of one makes of each, one after the other."""
    return jax.lax.map(lambda one: pull(one[np.newaxis])[0][0], cotangents)


def _shaken(carried: Carried, layer: int) -> Carried:
    """The second half of the logits moved by no more than SHAKE, never twice alike."""

    def moved(rows: jax.Array, key: jax.Array) -> jax.Array:
        half = len(rows) // 2
        by = jax.random.uniform(key, rows[half:].shape, minval=-SHAKE, maxval=SHAKE)
        return rows.at[half:].multiply(1 + by)

    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), layer))
    return carried._replace(cotangent=moved(carried.cotangent, keys[0]), relevance=moved(carried.relevance, keys[1]))


@partial(jax.jit, static_argnames="pooling")
def _before_pooling(tokens: jax.Array, carried: Carried, *, pooling: str) -> Carried:
    """From what was pooled to the tokens that it was pooled from. tokens: float32[1 ... n c], after the norm.

    How much of each token is in what is pooled is how fast the one grows with the other, as a share of all.
    """
    c = tokens.shape[-1]
    pooled = carried.rollout.shape
    every = tokens.reshape(*pooled, tokens.size // (carried.rollout.size * c), c)
    _, pull = jax.vjp(lambda tokens: pool(tokens, pooling), every)
    share = pull(jnp.ones((*pooled, c), tokens.dtype))[0].sum(axis=-1)
    share = share / share.sum(axis=-1, keepdims=True)
    m = len(carried.cotangent)
    return Carried(
        _pulled(pull, carried.cotangent).reshape(m, *tokens.shape[1:]),
        (carried.rollout[..., jnp.newaxis] * share).reshape(tokens.shape[:-1]),
        (carried.relevance[..., jnp.newaxis] * share).reshape(m, *tokens.shape[1:-1]),
    )


def _down(stack: Stack, streams: list[jax.Array], carried: Carried) -> tuple[Carried, list[AttentionMaps]]:
    """From an encoder's normed tokens to the tokens that entered it; its attentions in the order of computation."""
    *inputs, last, _ = streams
    carried = _shaken(carried, stack.layers)
    carried = carried._replace(cotangent=_before_norm(last, stack.params.norm, carried.cotangent, stack.layer.epsilon))
    found: list[AttentionMaps] = []
    for index in reversed(range(stack.layers)):
        one = layer_of(stack.params.blocks, index)
        carried = _shaken(carried, index)
        carried, looks = through_layer(inputs[index], one, carried, stack.cores, stack.layer, stack.grid)
        found = [
            maps(f"{stack.name}/{index}", stage, heads, sums[stage], stack.grid, stack.params.class_token is not None)
            for core, sums in zip(stack.cores, looks, strict=True)
            for stage, heads in stages_of(core, stack.layer.heads).items()
        ] + found
    return carried, found


@partial(jax.jit, static_argnames="epsilon")
def _before_norm(tokens: jax.Array, norm: LayerNorm, cotangents: jax.Array, epsilon: float) -> jax.Array:
    return _pulled(jax.vjp(lambda tokens: layer_norm(tokens, norm, epsilon), tokens)[1], cotangents)


@partial(jax.jit, static_argnames=("cores", "layer", "grid"))
def through_layer(
    tokens: jax.Array,
    params: Block | FactorisedBlock,
    carried: Carried,
    cores: tuple[str, ...],
    layer: LayerConfig,
    grid: tuple[int, int],
) -> tuple[Carried, list[dict[str, Sums]]]:
    """From what one layer gives to what enters it, tokens; the sums of its attentions in the order of computation."""
    steps = []
    for core in cores:
        norm, projections = _attention(params, core)
        residual = partial(
            attention_residual,
            norm=norm,
            params=projections,
            drops=AttentionDrops(),
            capture=None,
            attend=getattr(XLA, core),
            ops=XLA,
            layer=layer,
            mask=None,
        )
        out, pull = jax.vjp(residual, tokens)
        steps.append((tokens, norm, projections, core, pull))
        tokens = out
    _, pull = jax.vjp(lambda y: mlp_residual(y, params, MlpDrops(), None, XLA, layer), tokens)
    carried = carried._replace(cotangent=_pulled(pull, carried.cotangent))
    found: list[dict[str, Sums]] = []
    for entered, norm, projections, core, pull in reversed(steps):
        rollout, relevance, sums = look(entered, norm, projections, core, layer, grid, carried)
        carried = Carried(_pulled(pull, carried.cotangent), rollout, relevance)
        found.insert(0, sums)
    return carried, found


def _attention(params: Block | FactorisedBlock, core: str) -> tuple[LayerNorm, Attention]:
    if isinstance(params, Block):
        return params.attention_norm, params.attention
    if core == "temporal":
        return params.time_norm, params.time_attention
    return params.space_norm, params.space_attention
