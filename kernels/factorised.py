"""Model 4: half of the heads over time, half over space, by the two kernels of temporal.py and spatial.py.

Oracle: reference/attention.py, factorised_dot_product; reference/gradients.py, factorised_dot_product_vjp.

Each reads its half's columns of the fused projection. The second completes the first one's array: forward in place,
backward by copying the first half's cotangents where they belong, since query, key and value of both halves interleave.
Where either does not fit, the halves are split and put together around the kernels.
"""

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from vivit.kernels import spatial, stacks, temporal
from vivit.kernels.heads import HeadLayout, head_layout, in_windows
from vivit.kernels.softmax_av import KernelOptions


def factorised(
    qkv: Float[Array, "b t s qkv"],
    heads: int,
    mask: Bool[Array, "b t s"] | None,
    seeds: Int32[Array, "b h 2"] | None,
    options: KernelOptions,
) -> Float[Array, "b t s c"]:
    """Attention of half of the heads over time, of half over space."""
    layout = head_layout(qkv.shape[-1] // 3, heads, 2)
    if temporal.fits(qkv, layout, options) and spatial.fits(qkv, layout, options):
        return in_windows(lambda qkv, seeds, own: _factorised(qkv, mask, seeds, own, options), qkv, seeds, heads, 2)
    b, t, s, fused = qkv.shape
    half = heads // 2
    halves = stacks.array(qkv).reshape(b, t, s, 3, 2, fused // 6)
    time_half, space_half = (halves[..., i, :].reshape(b, t, s, fused // 2) for i in (0, 1))
    time_seeds, space_seeds = (None, None) if seeds is None else (seeds[:, :half], seeds[:, half:])
    over_time = temporal.temporal(time_half, half, mask, time_seeds, options)
    over_space = spatial.spatial(space_half, half, mask, space_seeds, options)
    return jnp.concatenate([stacks.array(over_time), stacks.array(over_space)], axis=-1)


def _factorised_fwd(qkv, mask, seeds, layout: HeadLayout, options: KernelOptions):
    over_time = temporal.forward(qkv, mask, seeds, layout, options)
    over_both = spatial.forward(qkv, mask, seeds, replace(layout, part=1), options, over_time)
    return over_both, (qkv, mask, seeds)


def _factorised_bwd(layout, options, saved, cotangent):
    qkv, mask, seeds = saved
    over_time = temporal.backward(qkv, mask, seeds, cotangent, layout, options)
    over_both = spatial.backward(qkv, mask, seeds, cotangent, replace(layout, part=1), options, over_time)
    return over_both, None, None


_factorised = stacks.differentiable(_factorised_fwd, _factorised_bwd, (3, 4))
