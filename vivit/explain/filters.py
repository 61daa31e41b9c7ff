"""What the tubelet embedding looks for: its kernel as one small video a channel, and which channels see the most."""

import numpy as np

from vivit.reference.params import Params


def filters(params: Params) -> np.ndarray:
    """float32[c t h w 3]: what each channel of a token is the inner product of a tubelet's pixels with."""
    return np.asarray(params.embedding.kernel, np.float32).transpose(4, 0, 1, 2, 3)


def most_used(kernels: np.ndarray, count: int = 64) -> np.ndarray:
    """int[m]: the numbers of the `count` filters of the largest norm, the largest first; all, where there are fewer.

    All channels of a token enter the first layer norm on one scale, so a channel whose filter is small is nearly the
    same for every tubelet: for pixels that do not depend on one another, the norm is its standard deviation in units of
    theirs. kernels: float32[c t h w 3].
    """
    norms = np.sqrt(np.square(kernels, dtype=np.float64).sum(axis=(1, 2, 3, 4)))
    return np.argsort(-norms, kind="stable")[:count]
