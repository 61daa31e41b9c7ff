"""The operations that a layer calls. A backend is a value of `Ops`; encoder.py contains the layer itself.

This file defines XLA, for every device. pallas_ops.py defines PALLAS and INTERPRETED, the TPU kernels.
audit/baseline.py defines BASELINE, the textbook formulation that errors and speed are compared with. To split work over
devices, vivit/training/tensor_parallel.py and sequence_parallel.py replace single entries.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from vivit import attention, layers, tubelet

Op = Callable[..., jax.Array]


class Ops(NamedTuple):
    """The operations of a model. Arguments and results are those of the functions in XLA; tokens are float32[... n c].

    embed: (video, Dense) → [b t s c].
    norm_dense: (tokens, LayerNorm, Dense, layer) → (LN(z) W + b, z); the residual adds this z.
    joint, spatial, temporal, factorised_dot_product: (qkv, heads, *, mask, dropout) → [... c].
    residual_dense: (tokens, x, Dense, drops, layer) → z + x W + b.
    residual_mlp: (tokens, LayerNorm, Mlp, drops, layer) → z + MLP(LN(z)).
    layer_norm: (tokens, LayerNorm, epsilon).
    residual_dense_mlp: (tokens, x, Dense, drops, LayerNorm, Mlp, drops, layer, *, in_place) → the last two residuals of
    a layer, in `scan`; in_place: where the tokens lie. None: one after the other.
    To capture stages, the attentions, residual_dense and residual_mlp also get `capture`, which kernels do not accept.
    multiple: encoders pad sequences to a multiple of it; it is 1 except for `joint` on several devices.
    scan: (block, tokens, layers, mask, *, remat) → tokens: a loop over the layers in which the ops keep what the
    backward pass needs in a `tape` that they are given; None: they do not.
    """

    embed: Op
    norm_dense: Callable[..., tuple[jax.Array, jax.Array]]
    joint: Op
    spatial: Op
    temporal: Op
    factorised_dot_product: Op
    residual_dense: Op
    residual_mlp: Op
    layer_norm: Op
    residual_dense_mlp: Op | None = None
    multiple: int = 1
    scan: Op | None = None


XLA = Ops(
    embed=tubelet.embed,
    norm_dense=layers.norm_dense,
    joint=attention.joint,
    spatial=attention.spatial,
    temporal=attention.temporal,
    factorised_dot_product=attention.factorised_dot_product,
    residual_dense=layers.residual_dense,
    residual_mlp=layers.residual_mlp,
    layer_norm=layers.layer_norm,
)
