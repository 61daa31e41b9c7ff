"""Targets for a batch, and mixing its clips: one-hot labels of several heads, label smoothing, mixup.

For the inside of a jitted training step: random numbers come from a JAX key. What happens to a single clip is in
augmentation.py.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vivit.reference.values import quoted
from vivit.tubelet import pixels


def one_hot(labels: jax.Array | np.ndarray, classes: Sequence[int]) -> jax.Array:
    """int[b heads], the class within each head -> float32[b v], the heads' one-hot rows one after the other.

    A label that its head does not have, such as -1, is a row of zeros in that head, which adds nothing to its loss.
    Raises ValueError if labels are no integers or have another number of heads than classes.
    """
    if labels.ndim != 2 or labels.shape[1] != len(classes) or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels is {labels.dtype}{list(labels.shape)}: it must be int[b heads], heads = {len(classes)}"
        )
    rows = [jax.nn.one_hot(labels[:, head], count, dtype=jnp.float32) for head, count in enumerate(classes)]
    return jnp.concatenate(rows, axis=1)


def smooth(targets: jax.Array, classes: Sequence[int], smoothing: float) -> jax.Array:
    """(1 − ε)·target + ε·mean of the target's own head: the ε stays in the head that it is taken from.

    Source: Szegedy et al. 2016, section 7, for each head by itself. targets: float32[b v], the heads one after the
    other, as `one_hot` gives them. Returns float32[b v]; each head's sum is what it was.
    Raises ValueError if smoothing is not from 0 to below 1, or if targets do not have the classes' length.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing is {quoted(smoothing)}: it must be a number from 0 to below 1")
    if targets.ndim != 2 or targets.shape[1] != sum(classes):
        raise ValueError(f"targets has shape {targets.shape}: it must be [b v] with v = {sum(classes)}")
    heads = jnp.split(targets, np.cumsum(classes)[:-1].tolist(), axis=1)
    smoothed = [(1 - smoothing) * head + smoothing * head.mean(axis=1, keepdims=True) for head in heads]
    return jnp.concatenate(smoothed, axis=1)


def mixup(
    key: jax.Array, video: jax.Array | np.ndarray, targets: jax.Array | np.ndarray, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Every clip and its targets mixed with those of a partner, in proportion λ : 1 − λ, λ ~ Beta(α, α).

    Source: Zhang et al. 2018. One λ and one permutation of partners for the batch. video: [b …], pixels or patches,
    uint8 (scaled to −1…1 first) or floats. targets: float32[b v]. alpha: α, a Python number. Returns (float32[b …],
    float32[b v]). Clips padded at the end keep only their own frames_valid: mix clips of full length.
    Raises ValueError if alpha is not positive or the batches differ.
    """
    if not alpha > 0:
        raise ValueError(f"alpha is {quoted(alpha)}: it must be positive; without mixup leave this function out")
    if video.shape[0] != targets.shape[0]:
        raise ValueError(f"targets has {targets.shape[0]} rows: it must have one for each of {video.shape[0]} clips")
    for_weight, for_partners = jax.random.split(key)
    weight = jax.random.beta(for_weight, alpha, alpha, dtype=jnp.float32)
    partners = jax.random.permutation(for_partners, video.shape[0])
    return mix(pixels(jnp.asarray(video)), weight, partners), mix(jnp.asarray(targets), weight, partners)


def mix(values: jax.Array, weight: jax.Array, partners: jax.Array) -> jax.Array:
    """λ·value + (1 − λ)·value of the partner. values: float32[b …]. weight: λ, float32[]. partners: int[b]."""
    return weight * values + (1 - weight) * values[partners]
