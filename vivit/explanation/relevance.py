"""Computes the maps of one clip: sums of every attention, attention rollout, and the relevance of given logits.

The equations are those of reference/relevance.py, evaluated from the output: only the row of the pooled features is
propagated backwards, together with the gradients of the logits, one layer at a time. The inputs of the layers are kept;
all other activations are recomputed.

The rounding error of relevance is measured: every logit is propagated twice, the second time with a random perturbation
by the last bits of float32 before every layer. The difference of the two shows the effect of rounding.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vivit.encoder import attention_residual, mlp_residual
from vivit.explanation.attention_maps import Backward, Sums, attention_vjp_and_maps, maps, stages_of
from vivit.explanation.data import AttentionMaps
from vivit.jitted import stages
from vivit.layers import LayerConfig, layer_config, layer_norm, pool
from vivit.models import classify
from vivit.ops import XLA
from vivit.reference.config import Config
from vivit.reference.dropout import AttentionDrops, MlpDrops
from vivit.reference.params import Attention, Block, Encoder, FactorisedBlock, LayerNorm, Params
from vivit.reference.params import layer as layer_of

CORES = {  # for models with one attention per layer
    "spatio_temporal": "joint",
    "factorised_encoder": "spatial",
    "factorised_dot_product": "factorised_dot_product",
}
PERTURBATION = 2.0**-22  # relative: the last two bits of float32
ROUNDING = 4  # factor from the largest difference that the perturbation makes at a token to the rounding error


class ClipMaps(NamedTuple):
    """The maps of one clip.

    attention: every attention of every layer, in the order of computation. rollout: float32[t s]. relevance:
    float32[m t s], one map per logit. rounding: float32[m], the differences between tokens that rounding can cause.
    """

    attention: tuple[AttentionMaps, ...]
    rollout: np.ndarray
    relevance: np.ndarray
    rounding: np.ndarray


class Stack(NamedTuple):
    """One encoder: its name, parameters and layers."""

    name: str
    params: Encoder
    layers: int
    cores: tuple[str, ...]  # of each attention of a layer, in the order of computation
    layer: LayerConfig
    grid: tuple[int, int]  # tokens along (time, space)


def explain_clip(
    params: Params, clip: np.ndarray | jax.Array, config: Config, *, classes: Sequence[tuple[int, int]]
) -> ClipMaps:
    """Returns attention, attention rollout and relevance of one clip.

    Source: Abnar & Zuidema 2020; Chefer et al. 2021, eq. 5 and 6. clip: [frames height width 3], one clip as in
    vivit.forward. classes: (head, index) of the classes that get a relevance map. All computations are in float32.
    Raises ValueError if the model has no such class or the clip has another shape.
    """
    for head, number in classes:
        if not 0 <= head < len(config.classes):
            raise ValueError(f"head is {head}: the model has {len(config.classes)} heads, numbered from 0")
        if not 0 <= number < config.classes[head]:
            raise ValueError(f"number is {number}: head {head} has {config.classes[head]} classes, numbered from 0")
    stacks = stacks_of(params, config)
    names = ["features", *(f"{stack.name}/{stage}" for stack in stacks for stage in _stage_names(stack))]
    averaged = config.model == "factorised_encoder" and not config.temporal_layers
    kept = stages(params, clip[np.newaxis], config=config, names=(*names, "frames") if averaged else tuple(names))

    indices = np.array([sum(config.classes[:head]) + number for head, number in classes])
    gradients = _logit_gradients(kept["features"], params.representation, params.head, np.tile(indices, 2))
    backward = Backward(gradients, jnp.ones(1, jnp.float32), jnp.ones(2 * len(indices), jnp.float32))
    if averaged:
        backward = _through_pooling(kept["frames"], backward, pooling="mean")
    attention: list[AttentionMaps] = []
    for stack in reversed(stacks):
        backward = _through_pooling(kept[f"{stack.name}/norm"], backward, pooling=config.pooling)
        backward, own = _through_encoder(
            stack, [kept[f"{stack.name}/{stage}"] for stage in _stage_names(stack)], backward
        )
        attention = own + attention
        if config.class_token:
            backward = Backward(backward.cotangent[..., 1:, :], backward.rollout[..., 1:], backward.relevance[..., 1:])
    time, height, width = config.grid
    rollout = np.asarray(backward.rollout).reshape(time, height * width)
    relevance, perturbed = np.asarray(backward.relevance).reshape(2, len(indices), time, height * width)
    rounding = ROUNDING * np.abs(relevance - perturbed).max(axis=(1, 2), initial=0)
    return ClipMaps(tuple(attention), rollout, relevance, rounding)


def stacks_of(params: Params, config: Config) -> list[Stack]:
    """Returns the encoders of a model, in the order of computation."""
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


def _stage_names(stack: Stack) -> tuple[str, ...]:
    """Returns the names of the stages to keep: the first layer's input, every layer's output, and the final norm's."""
    return ("tokens", *(f"{index}/out" for index in range(stack.layers)), "norm")


@jax.jit
def _logit_gradients(features, representation, head, indices) -> jax.Array:
    """Returns the gradient of each logit with respect to the features [1 c]: [m c]."""

    def logit(features, index):
        return classify(features, representation, head)[1][0, index]

    return jax.vmap(jax.grad(logit), (None, 0))(features, indices)[:, 0]


def _vjp_each(pull, cotangents: jax.Array) -> jax.Array:
    """Applies a vector-Jacobian product of a batch of one to each of m cotangents in turn: [m ...]."""
    return jax.lax.map(lambda one: pull(one[np.newaxis])[0][0], cotangents)


def _perturbed(backward: Backward, layer: int) -> Backward:
    """Perturbs the second half of the logits by random relative amounts of at most PERTURBATION."""

    def moved(rows: jax.Array, key: jax.Array) -> jax.Array:
        half = len(rows) // 2
        by = jax.random.uniform(key, rows[half:].shape, minval=-PERTURBATION, maxval=PERTURBATION)
        return rows.at[half:].multiply(1 + by)

    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), layer))
    return backward._replace(cotangent=moved(backward.cotangent, keys[0]), relevance=moved(backward.relevance, keys[1]))


@partial(jax.jit, static_argnames="pooling")
def _through_pooling(tokens: jax.Array, backward: Backward, *, pooling: str) -> Backward:
    """Propagates the state from pooled features to the tokens. tokens: float32[1 ... n c], after the norm.

    A token's share of rollout and relevance is its derivative's share of the derivatives of all tokens.
    """
    c = tokens.shape[-1]
    pooled = backward.rollout.shape
    every = tokens.reshape(*pooled, tokens.size // (backward.rollout.size * c), c)
    _, pull = jax.vjp(lambda tokens: pool(tokens, pooling), every)
    share = pull(jnp.ones((*pooled, c), tokens.dtype))[0].sum(axis=-1)
    share = share / share.sum(axis=-1, keepdims=True)
    m = len(backward.cotangent)
    return Backward(
        _vjp_each(pull, backward.cotangent).reshape(m, *tokens.shape[1:]),
        (backward.rollout[..., jnp.newaxis] * share).reshape(tokens.shape[:-1]),
        (backward.relevance[..., jnp.newaxis] * share).reshape(m, *tokens.shape[1:-1]),
    )


def _through_encoder(
    stack: Stack, streams: list[jax.Array], backward: Backward
) -> tuple[Backward, list[AttentionMaps]]:
    """Propagates the state through one encoder, from its final norm to its input; returns its AttentionMaps too."""
    *inputs, last, _ = streams
    backward = _perturbed(backward, stack.layers)
    backward = backward._replace(cotangent=_norm_vjp(last, stack.params.norm, backward.cotangent, stack.layer.epsilon))
    attention: list[AttentionMaps] = []
    for index in reversed(range(stack.layers)):
        one = layer_of(stack.params.blocks, index)
        backward = _perturbed(backward, index)
        backward, all_sums = through_layer(inputs[index], one, backward, stack.cores, stack.layer, stack.grid)
        attention = [
            maps(f"{stack.name}/{index}", stage, heads, sums[stage], stack.grid, stack.params.class_token is not None)
            for core, sums in zip(stack.cores, all_sums, strict=True)
            for stage, heads in stages_of(core, stack.layer.heads).items()
        ] + attention
    return backward, attention


@partial(jax.jit, static_argnames="epsilon")
def _norm_vjp(tokens: jax.Array, norm: LayerNorm, cotangents: jax.Array, epsilon: float) -> jax.Array:
    return _vjp_each(jax.vjp(lambda tokens: layer_norm(tokens, norm, epsilon), tokens)[1], cotangents)


@partial(jax.jit, static_argnames=("cores", "layer", "grid"))
def through_layer(
    tokens: jax.Array,
    params: Block | FactorisedBlock,
    backward: Backward,
    cores: tuple[str, ...],
    layer: LayerConfig,
    grid: tuple[int, int],
) -> tuple[Backward, list[dict[str, Sums]]]:
    """Propagates the state from a layer's output to its input, tokens; returns the Sums of its attentions too."""
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
            name="attention",
            ops=XLA,
            layer=layer,
            mask=None,
        )
        out, pull = jax.vjp(residual, tokens)
        steps.append((tokens, norm, projections, core, pull))
        tokens = out
    _, pull = jax.vjp(lambda y: mlp_residual(y, params, MlpDrops(), None, XLA, layer), tokens)
    backward = backward._replace(cotangent=_vjp_each(pull, backward.cotangent))
    all_sums: list[dict[str, Sums]] = []
    for entered, norm, projections, core, pull in reversed(steps):
        rollout, relevance, sums = attention_vjp_and_maps(entered, norm, projections, core, layer, grid, backward)
        backward = Backward(_vjp_each(pull, backward.cotangent), rollout, relevance)
        all_sums.insert(0, sums)
    return backward, all_sums


def _attention(params: Block | FactorisedBlock, core: str) -> tuple[LayerNorm, Attention]:
    if isinstance(params, Block):
        return params.attention_norm, params.attention
    if core == "temporal":
        return params.time_norm, params.time_attention
    return params.space_norm, params.space_attention
