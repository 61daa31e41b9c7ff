"""The filters of the tubelet embedding: one small video per channel, and the channels with the largest filters."""

import numpy as np

from vivit.reference.params import Params


def filters(params: Params) -> np.ndarray:
    """Returns the embedding kernel as filters, float32[c t h w 3]."""
    return np.asarray(params.embedding.kernel, np.float32).transpose(4, 0, 1, 2, 3)


def most_used(kernels: np.ndarray, count: int = 64) -> np.ndarray:
    """Returns the indices of the `count` filters with the largest norms, int[m], largest first.

    The first layer norm has one scale for all channels of a token, so a channel with a small filter is nearly constant:
    for independent pixels, the norm is the channel's standard deviation relative to that of the pixels. kernels:
    float32[c t h w 3].
    """
    norms = np.sqrt(np.square(kernels, dtype=np.float64).sum(axis=(1, 2, 3, 4)))
    return np.argsort(-norms, kind="stable")[:count]
