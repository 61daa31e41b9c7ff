"""What training minimises: cross entropy of each head, softmax or sigmoid."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def example_losses(
    logits: jax.Array, labels: jax.Array, classes: Sequence[int], *, loss: str = "softmax", heads: str = "mean"
) -> jax.Array:
    """The loss of every example, of all heads together.

    "softmax": −Σ y log softmax(z) over each head's classes. "sigmoid": −Σ y log σ(z) + (1 − y) log σ(−z), averaged over
    each head's classes. heads: "mean" or "sum" of the heads' losses.

    logits: float[b v], the heads' one after the other. labels: float[b v], one-hot, smoothed, mixed or multi-hot.
    classes: how many each head has. Returns float32[b].
    Raises ValueError if the shapes or the names do not fit.
    """
    if logits.shape != labels.shape or logits.ndim != 2 or logits.shape[1] != sum(classes):
        raise ValueError(
            f"logits are {logits.shape} and labels {labels.shape}: both must be [b {sum(classes)}], a column a class"
        )
    if loss not in _OF_HEAD or heads not in ("mean", "sum"):
        raise ValueError(f"loss is {loss!r} of heads {heads!r}: it must be softmax or sigmoid, of mean or sum")
    total, start = jnp.zeros(logits.shape[0], jnp.float32), 0
    for count in classes:
        columns = slice(start, start + count)
        total = total + _OF_HEAD[loss](logits[:, columns].astype(jnp.float32), labels[:, columns].astype(jnp.float32))
        start += count
    return total / len(classes) if heads == "mean" else total


def _softmax(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return -(labels * jax.nn.log_softmax(logits, axis=-1)).sum(axis=-1)


def _sigmoid(logits: jax.Array, labels: jax.Array) -> jax.Array:
    losses = labels * jax.nn.log_sigmoid(logits) + (1.0 - labels) * jax.nn.log_sigmoid(-logits)
    return -losses.mean(axis=-1)


_OF_HEAD = {"softmax": _softmax, "sigmoid": _sigmoid}
