"""The four attention cores: which tokens attend to which. vivit/ and kernels/ implement the same functions.

A core is attention without its projections. It takes the fused projection qkv (query, key and value concatenated along
the channels, the heads contiguous within each) and splits it into heads. Projections, layer norms and residuals are in
encoder.py. A core raises ValueError for a wrong rank, for a number of heads that does not divide the channels, and for
a mask of another shape.

mask: True for tokens that can be attended to. A masked token is never read, whatever it holds: its key and value count
as zeros, and so does every value of its query that is not finite. The output of a query with no unmasked key is zero.
dropout: multiplier of the attention weights. capture: an optional dict that receives the weights.
"""

import math
from typing import Any

import numpy as np

from vivit.reference.layers import drop, softmax


def attend(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    dropout: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Attention(Q, K, V) = softmax(Q Kᵀ / √d) V.

    Source: Arnab et al. 2021, eq. 7. query: float[... q d]. key, value: float[... k d]. mask: bool, broadcasts to
    [... q k]. dropout: float[... q k]. Returns (out float[... q d], weights float[... q k] before dropout).
    """
    d = query.shape[-1]
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(d)
    weights = softmax(scores, mask)
    return drop(weights, dropout) @ value, weights


def joint(
    qkv: np.ndarray,
    heads: int,
    *,
    mask: np.ndarray | None = None,
    dropout: np.ndarray | None = None,
    capture: dict | None = None,
) -> np.ndarray:
    """Joint attention: every token attends to every token (model 1, and the temporal encoder of model 2).

    Source: Arnab et al. 2021, section 3.3, model 1. qkv: float[b n 3c]. mask: bool[b n]. dropout: float[b h q k].
    Captures "weights" [b h q k]. Returns float[b n c].
    """
    check_core(qkv, "b n 3c", heads, mask)
    qkv = np.where(readable(qkv, mask), qkv, 0.0)
    query, key, value = (part.transpose(0, 2, 1, 3) for part in split(qkv, heads))  # [b h n d]
    if mask is not None:
        mask = mask[:, np.newaxis, np.newaxis, :]
    out, weights = attend(query, key, value, mask=mask, dropout=dropout)
    record(capture, "weights", weights)
    return merge_heads(out.transpose(0, 2, 1, 3))


def spatial(
    qkv: np.ndarray,
    heads: int,
    *,
    mask: np.ndarray | None = None,
    dropout: np.ndarray | None = None,
    capture: dict | None = None,
) -> np.ndarray:
    """Spatial attention: a token attends to the tokens with the same time index (models 2 and 3).

    Source: Arnab et al. 2021, section 3.3, models 2 and 3. qkv: float[b t s 3c]. mask: bool[b t s].
    dropout: float[b t h q k]. Captures "space_weights" [b t h q k]. Returns float[b t s c].
    """
    check_core(qkv, "b t s 3c", heads, mask)
    qkv = np.where(readable(qkv, mask), qkv, 0.0)
    query, key, value = (part.transpose(0, 1, 3, 2, 4) for part in split(qkv, heads))  # [b t h s d]
    if mask is not None:
        mask = mask[:, :, np.newaxis, np.newaxis, :]
    out, weights = attend(query, key, value, mask=mask, dropout=dropout)
    record(capture, "space_weights", weights)
    return merge_heads(out.transpose(0, 1, 3, 2, 4))


def temporal(
    qkv: np.ndarray,
    heads: int,
    *,
    mask: np.ndarray | None = None,
    dropout: np.ndarray | None = None,
    capture: dict | None = None,
) -> np.ndarray:
    """Temporal attention: a token attends to the tokens with the same spatial index (model 3).

    Source: Arnab et al. 2021, section 3.3, model 3. qkv: float[b t s 3c]. mask: bool[b t s]. dropout: float[b s h q k].
    Captures "time_weights" [b s h q k]. Returns float[b t s c].
    """
    check_core(qkv, "b t s 3c", heads, mask)
    qkv = np.where(readable(qkv, mask), qkv, 0.0)
    query, key, value = (part.transpose(0, 2, 3, 1, 4) for part in split(qkv, heads))  # [b s h t d]
    if mask is not None:
        mask = mask.transpose(0, 2, 1)[:, :, np.newaxis, np.newaxis, :]
    out, weights = attend(query, key, value, mask=mask, dropout=dropout)
    record(capture, "time_weights", weights)
    return merge_heads(out.transpose(0, 3, 1, 2, 4))


def factorised_dot_product(
    qkv: np.ndarray,
    heads: int,
    *,
    mask: np.ndarray | None = None,
    dropout: tuple[np.ndarray, np.ndarray] | None = None,
    capture: dict | None = None,
) -> np.ndarray:
    """Attends over time with the first half of the heads and over space with the second half (model 4).

    Source: Arnab et al. 2021, section 3.3, model 4: Y = Concat(Y_t, Y_s) W_O. qkv: float[b t s 3c]. mask: bool[b t s].
    dropout: (float[b s h/2 q k] over time, float[b t h/2 q k] over space). Captures "time_weights", "space_weights".
    Returns float[b t s c]. Raises ValueError if heads is odd.
    """
    if heads % 2:
        raise ValueError(f"heads is {heads}: factorised_dot_product needs an even number, half for each axis")
    check_core(qkv, "b t s 3c", heads, mask)
    time_dropout, space_dropout = (None, None) if dropout is None else dropout
    time_half, space_half = halves(qkv)
    over_time = temporal(time_half, heads // 2, mask=mask, dropout=time_dropout, capture=capture)
    over_space = spatial(space_half, heads // 2, mask=mask, dropout=space_dropout, capture=capture)
    return np.concatenate([over_time, over_space], axis=-1)


def check_core(qkv: Any, axes: str, heads: int, mask: Any) -> None:
    """Raises ValueError unless qkv has these axes, heads divides its channels, and mask is bool of qkv's other axes."""
    if len(qkv.shape) != len(axes.split()):
        raise ValueError(f"qkv has shape {tuple(qkv.shape)}: it must be [{axes}]")
    if heads < 1 or qkv.shape[-1] % (3 * heads):
        raise ValueError(f"qkv has {qkv.shape[-1]} channels: they must be three times a multiple of heads, {heads}")
    if mask is not None and (mask.shape != qkv.shape[:-1] or mask.dtype != bool):
        raise ValueError(f"mask is {mask.dtype}{list(mask.shape)}: it must be bool{list(qkv.shape[:-1])}")


def readable(qkv: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Which numbers are read, bool[... 3c]: of a masked token only those of its query that are finite."""
    if mask is None:
        return np.ones(qkv.shape, bool)
    of_query = np.arange(qkv.shape[-1]) < qkv.shape[-1] // 3
    return mask[..., np.newaxis] | (of_query & np.isfinite(qkv))


def split(qkv: np.ndarray, heads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits qkv into query, key and value of every head: float[... 3c] to three float[... h d]."""
    *batch, fused = qkv.shape
    query, key, value = np.split(qkv, 3, axis=-1)
    d = fused // 3 // heads
    return query.reshape(*batch, heads, d), key.reshape(*batch, heads, d), value.reshape(*batch, heads, d)


def halves(qkv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits qkv into the first and the second half of the heads: float[... 3c] to two float[... 3c/2]."""
    *batch, fused = qkv.shape
    c = fused // 3
    parts = qkv.reshape(*batch, 3, 2, c // 2)
    return parts[..., 0, :].reshape(*batch, 3 * c // 2), parts[..., 1, :].reshape(*batch, 3 * c // 2)


def merge_heads(out: np.ndarray) -> np.ndarray:
    """Merges heads into channels: float[... h d] to float[... c]."""
    *batch, heads, d = out.shape
    return out.reshape(*batch, heads * d)


def record(capture: dict | None, name: str, value: Any) -> None:
    """Stores a named intermediate in `capture`, if it is not None."""
    if capture is not None:
        capture[name] = value
