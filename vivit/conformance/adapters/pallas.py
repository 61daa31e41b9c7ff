"""Ours, by the Pallas TPU kernels in Pallas's interpreter, which runs them on any machine."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from vivit import models
from vivit.conformance.adapters.of_jax import with_vjp
from vivit.conformance.quickly import QUICKLY
from vivit.kernels import attention
from vivit.pallas_ops import INTERPRETED
from vivit.reference.config import Config
from vivit.reference.params import Params


def kernels(**options: Any) -> SimpleNamespace:
    """Returns an implementation of the four cores. options: of kernels/attention.py, such as block_sizes."""

    def of_qkvs_dtype(core: Any) -> Any:
        """The core with operands of qkv's dtype, which is what a v4 and its successors multiply."""
        return lambda qkv, heads, **keywords: core(qkv, heads, **{"operands": qkv.dtype, **keywords})

    found = SimpleNamespace()
    for name in ("joint", "spatial", "temporal", "factorised_dot_product"):
        core = of_qkvs_dtype(getattr(attention, name))
        functions = with_vjp(core, QUICKLY, interpret=True, **options)
        setattr(found, name, functions[0])
        setattr(found, f"{name}_vjp", functions[1])
    return found


_kernels = kernels()
joint, joint_vjp = _kernels.joint, _kernels.joint_vjp
spatial, spatial_vjp = _kernels.spatial, _kernels.spatial_vjp
temporal, temporal_vjp = _kernels.temporal, _kernels.temporal_vjp
factorised_dot_product = _kernels.factorised_dot_product
factorised_dot_product_vjp = _kernels.factorised_dot_product_vjp


@partial(jax.jit, static_argnames="config", compiler_options=QUICKLY)
def forward(params: Params, video: np.ndarray, config: Config) -> jax.Array:
    """Calls models.forward with the kernels; tubelets are embedded by XLA on a TPU too."""
    return models.forward(params, video, config, attention=INTERPRETED)
