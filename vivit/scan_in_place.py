"""The scan over the layers whose kernels keep what the backward pass needs in stacks, in place.

kernels/stacks.py says how. Kept is what the kernels' derivatives need, or, if lean, little of it. The weights are read
out of their stacks in place, too, in every forward pass. Not here: what one layer does (encoder.py).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

from vivit.kernels.stacks import Slice, Tape
from vivit.reverse_once import reverse_once


def scan_in_place(
    block: Callable[..., Any],
    tokens: Float32[Array, "... n c"],
    layers: tuple,
    mask: Bool[Array, "..."] | None,
    *,
    remat: str = "none",
) -> Float32[Array, "... n c"]:
    """The tokens after all layers. Reverse mode only, once.

    block(tokens, layer, mask, **tape) → (tokens, …). layers: a tuple of trees of arrays [l ...], the parameters first;
    the others have no gradient. remat: "lean": keep the tokens that enter a layer and what is dear to compute again;
    "none": everything, as JAX does.
    """
    tokens, params = reverse_once((tokens, layers[0]))
    return _scan(block, remat, tokens, params, layers[1:], mask)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(block, remat, tokens, params, others, mask):
    def one_layer(tokens, numbered):
        index, *others = numbered
        own = jax.tree.map(lambda stack: Slice(stack, index), params)
        return block(tokens, (own, *others), mask)[0], None

    return jax.lax.scan(one_layer, tokens, _numbered(params, others))[0]


def _forward(block, remat, tokens, params, others, mask):
    if remat == "none":
        return jax.vjp(partial(_scan_by_jax, block, others, mask), tokens, params)

    def one_layer(tokens, stacks, numbered):
        index, *others = numbered
        tape = Tape(stacks, index, lean=remat == "lean")
        own = jax.tree.map(lambda stack: Slice(stack, index), params)
        tokens, _ = block(tokens, (own, *others), mask, tape=tape)
        return tokens, tape.stacks

    layers = _numbered(params, others)
    _, kept = jax.eval_shape(one_layer, tokens, [], jax.tree.map(lambda leaf: leaf[0], layers))
    stacks = [jax.lax.empty((layers[0].size, *one.shape[1:]), one.dtype) for one in kept]
    (tokens, stacks), _ = jax.lax.scan(lambda carry, layer: (one_layer(*carry, layer), None), (tokens, stacks), layers)
    return tokens, (stacks, params, others, mask)


def _scan_by_jax(block, others, mask, tokens, params):
    return jax.lax.scan(lambda tokens, layer: (block(tokens, layer, mask)[0], None), tokens, (params, *others))[0]


def _backward(block, remat, saved, cotangent):
    if remat == "none":
        return *saved(cotangent), None, None
    stacks, params, others, mask = saved

    def one_layer(carry, numbered):
        cotangent, gradients = carry
        index, *others = numbered

        def layer(tokens, stand_ins):
            own = jax.tree.map(lambda stack, stand_in: Slice(stack, index, stand_in), params, stand_ins)
            tape = Tape(stacks, index, full=True, lean=remat == "lean")
            return block(tokens, (own, *others), mask, tape=tape)[0]

        stand_ins = jax.tree.map(lambda stack: jnp.zeros(stack.shape[1:], stack.dtype), params)
        cotangent, found = jax.vjp(layer, jnp.zeros_like(cotangent), stand_ins)[1](cotangent)
        put = partial(jax.lax.dynamic_update_index_in_dim, index=index, axis=0)
        return (cotangent, jax.tree.map(put, gradients, found)), None

    # carried, since a scan fills what it stacks itself with zeros first
    gradients = jax.tree.map(lambda leaf: jax.lax.empty(leaf.shape, leaf.dtype), params)
    (cotangent, gradients), _ = jax.lax.scan(one_layer, (cotangent, gradients), _numbered(params, others), reverse=True)
    return cotangent, gradients, None, None


_scan.defvjp(_forward, _backward)


def _numbered(params, others):
    return jnp.arange(jax.tree.leaves(params)[0].shape[0], dtype=jnp.int32), *others
