"""Targets of a batch and mixing of its clips: one-hot labels of several heads, label smoothing, mixup.

These functions run inside a jitted training step and draw random numbers from a JAX key. augmentation.py handles single
clips.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vivit.reference.values import quoted
from vivit.tubelet import pixels


def one_hot(labels: jax.Array | np.ndarray, classes: Sequence[int]) -> jax.Array:
    """Returns the heads' one-hot rows concatenated, float32[b v]. labels: int[b heads], the class within each head.

    A label outside its head's range, such as -1, gives a row of zeros, which adds nothing to the loss.
    Raises ValueError if labels are not integers or their number of heads differs from that of classes.
    """
    if labels.ndim != 2 or labels.shape[1] != len(classes) or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels is {labels.dtype}{list(labels.shape)}: it must be int[b heads], heads = {len(classes)}"
        )
    rows = [jax.nn.one_hot(labels[:, head], count, dtype=jnp.float32) for head, count in enumerate(classes)]
    return jnp.concatenate(rows, axis=1)


def smooth(targets: jax.Array, classes: Sequence[int], smoothing: float) -> jax.Array:
    """Label smoothing within each head: (1 − ε)·target + ε·mean of the head.

    Source: Szegedy et al. 2016, section 7, applied to each head separately. targets: float32[b v], the heads
    concatenated as by `one_hot`. Returns float32[b v]; the sum of each head is unchanged.
    Raises ValueError unless 0 ≤ smoothing < 1 and targets have the classes' length.
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
    """Mixes every clip and its targets with those of a partner, in proportion λ : 1 − λ, λ ~ Beta(α, α).

    Source: Zhang et al. 2018, with one λ and one permutation of partners per batch. video: [b …], pixels or patches,
    uint8 (scaled to −1…1 first) or floats. targets: float32[b v]. alpha: α, a Python number. Returns (float32[b …],
    float32[b v]). frames_valid is not mixed: pass clips of full length only.
    Raises ValueError if alpha is not positive or the batch sizes differ.
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
