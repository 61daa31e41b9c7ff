"""JAX's own flash attention for TPUs as `joint`, in Pallas's interpreter.

It takes lengths that are multiples of 128. Sequences are padded, and segment ids keep every query from the padding and
from masked keys.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas.ops.tpu import flash_attention as flash

from vivit.attention import merge_heads, split
from vivit.conformance.adapters.of_jax import Core, with_vjp
from vivit.conformance.quickly import QUICKLY

LANES = 128


def _joint(qkv: jax.Array, heads: int, *, mask: jax.Array | None) -> jax.Array:
    b, n, fused = qkv.shape
    length = n + -n % LANES
    widths = ((0, 0), (0, 0), (0, length - n), (0, 0))
    padded = [jnp.pad(part.transpose(0, 2, 1, 3), widths) for part in split(qkv, heads)]  # [b h n d]
    seen = jnp.ones((b, n), bool) if mask is None else jnp.asarray(mask)
    hidden = jnp.pad(~seen, ((0, 0), (0, length - n)), constant_values=True).astype(jnp.int32)
    segments = flash.SegmentIds(jnp.zeros_like(hidden), hidden)
    out = flash.flash_attention(*padded, segment_ids=segments, sm_scale=1 / math.sqrt(fused // 3 // heads))
    return merge_heads(out[:, :, :n].transpose(0, 2, 1, 3))


def _interpreted(function: Core) -> Core:
    def call(*arguments: Any, mask: Any = None) -> jax.Array:
        with pltpu.force_tpu_interpret_mode():
            return function(*arguments, mask=mask)

    return call


joint, joint_vjp = map(_interpreted, with_vjp(_joint, QUICKLY))
