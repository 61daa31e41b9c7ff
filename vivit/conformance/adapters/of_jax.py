"""From a core written in JAX to the functions of the contract: NumPy in, JAX out, compiled for each shape."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Core = Callable[..., jax.Array]


def with_vjp(core: Core, compiler_options: dict[str, Any] | None = None, **options: Any) -> tuple[Core, Core]:
    """Returns (core, its vector-Jacobian product) of a core (qkv, heads, *, mask). options: further arguments of it."""

    @cache
    def compiled(heads: int, *, pulled: bool) -> Callable[..., jax.Array]:
        def value(qkv: jax.Array, mask: jax.Array | None) -> jax.Array:
            return core(qkv, heads, mask=mask, **options)

        def slope(qkv: jax.Array, out_cotangent: jax.Array, mask: jax.Array | None) -> jax.Array:
            return jax.vjp(partial(value, mask=mask), qkv)[1](out_cotangent)[0]

        return jax.jit(slope if pulled else value, compiler_options=compiler_options)

    def function(qkv: np.ndarray, heads: int, *, mask: np.ndarray | None = None) -> jax.Array:
        return compiled(heads, pulled=False)(jnp.asarray(qkv), mask)

    def vjp(qkv: np.ndarray, out_cotangent: np.ndarray, heads: int, *, mask: np.ndarray | None = None) -> jax.Array:
        return compiled(heads, pulled=True)(jnp.asarray(qkv), jnp.asarray(out_cotangent), mask)

    return function, vjp
