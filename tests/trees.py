"""Trees of NamedTuples: changing one leaf, putting all on the device."""

from typing import Any

import jax
import jax.numpy as jnp

from vivit.reference.params import convert


def replaced(tree: Any, path: str, value: Any) -> Any:
    """Returns the same tree with `value` at `path`."""
    return convert(tree, lambda here, leaf: value if here == path else leaf)


def on_device(tree: Any) -> Any:
    """Returns the same tree with JAX's arrays."""
    return jax.tree.map(jnp.asarray, tree)
