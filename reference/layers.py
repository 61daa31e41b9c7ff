"""The layers other than attention: layer norm, dense, GELU, MLP, softmax, dropout and pooling.

All arithmetic is in float64. Dropout and stochastic depth are explicit multipliers; nothing is random.
"""

import math

import numpy as np

from vivit.reference.params import Dense, LayerNorm, Mlp

erf = np.vectorize(math.erf, otypes=[np.float64])


def layer_norm(x: np.ndarray, params: LayerNorm, epsilon: float) -> np.ndarray:
    """LN(x) = (x − mean) / √(variance + ε) · scale + bias, over the channels.

    Source: Ba et al. 2016, eq. 4. x: float[... c]. Returns float[... c].
    """
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * params.scale + params.bias


def dense(x: np.ndarray, params: Dense) -> np.ndarray:
    """x W + bias. x: float[... c], kernel [c f]. Returns float[... f]."""
    return x @ params.kernel + params.bias


def gelu(x: np.ndarray, form: str) -> np.ndarray:
    """x · Φ(x), with Φ exact ("erf") or approximated by tanh ("tanh").

    Source: Hendrycks & Gimpel 2016, section 2. x: float of any shape. Returns the same shape.
    """
    if form == "erf":
        return x * (1 + erf(x / math.sqrt(2))) / 2
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def mlp(x: np.ndarray, params: Mlp, form: str, *, dropout: np.ndarray | None = None) -> np.ndarray:
    """MLP(x) = GELU(x W₁ + b₁) W₂ + b₂.

    Source: Arnab et al. 2021, section 3.1. x: float[... c]. dropout: multiplier of the hidden layer, float[... f].
    Returns float[... c].
    """
    return dense(drop(gelu(dense(x, params.hidden), form), dropout), params.out)


def softmax(scores: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """exp(scores) / Σ exp(scores) over the unmasked entries of the last axis.

    The largest score is subtracted first so that exp stays finite. scores: float[... q k]. mask: bool, True for keys
    that can be attended to, broadcasts to the shape of scores. Rows without an unmasked key are zero.
    """
    if mask is None:
        mask = np.ones(scores.shape, bool)
    largest = np.where(mask, scores, np.finfo(np.float64).min).max(axis=-1, keepdims=True)
    exponentials = np.where(mask, np.exp(np.where(mask, scores, largest) - largest), 0.0)
    total = exponentials.sum(axis=-1, keepdims=True)
    return exponentials / np.where(total == 0, 1.0, total)


def drop(x: np.ndarray, multiplier: np.ndarray | None) -> np.ndarray:
    """x · multiplier: 0 where dropped, 1 / (1 − rate) where kept (1 in the published stochastic depth).

    Source: Srivastava et al. 2014; for whole residual branches Huang et al. 2016. multiplier None returns x.
    """
    return x if multiplier is None else x * multiplier


def pool(tokens: np.ndarray, pooling: str, mask: np.ndarray | None = None) -> np.ndarray:
    """Pools a sequence of tokens to one vector: the class token or first token, or the mean, max or sum of all tokens.

    Source: Arnab et al. 2021, section 3.1. tokens: float[... n c]. mask: bool[... n], True for tokens that count; used
    by mean, max and sum only. Returns float[... c].
    """
    if pooling in ("token", "first"):
        return tokens[..., 0, :]
    if mask is None:
        mask = np.ones(tokens.shape[:-1], bool)
    keep = mask[..., np.newaxis]
    if pooling == "max":
        return np.where(keep, tokens, -np.inf).max(axis=-2)
    total = np.where(keep, tokens, 0.0).sum(axis=-2)
    return total if pooling == "sum" else total / keep.sum(axis=-2)
