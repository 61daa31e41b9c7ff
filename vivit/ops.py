"""What a layer is computed with. A backend is a value of `Ops`: the layer itself is written once, in encoder.py.

XLA here, for every device; PALLAS and INTERPRETED in pallas_ops.py, the TPU kernels; BASELINE in baseline.py, the usual
formulation, that errors and speed are measured with. What splits work over devices puts its own functions in place of
entries (vivit/training/tensor_parallel.py).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from vivit import attention, layers, tubelet

Op = Callable[..., jax.Array]


class Ops(NamedTuple):
    """The operations of a model; tokens are float32[... n c], all arguments those of XLA's own functions.

    embed: (video, Dense) → [b t s c]. norm_dense: (tokens, LayerNorm, Dense, layer) → (LN(z) W + b, z), the z that the
    residual adds. joint, spatial, temporal, factorised_dot_product: (qkv, heads, *, mask, dropout) → [... c].
    residual_dense: (tokens, x, Dense, drops, layer) → z + x W + b. residual_mlp: (tokens, LayerNorm, Mlp, drops, layer)
    → z + MLP(LN(z)). layer_norm: (tokens, LayerNorm, epsilon). Where stages are captured, the attentions,
    residual_dense and residual_mlp are given `capture` as well; kernels keep no stages and do not take it.
    multiple: encoders fill up sequences to a multiple of it; only `joint` on several devices has another than 1.
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
    multiple: int = 1


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
