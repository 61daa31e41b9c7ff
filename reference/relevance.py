"""Explanations of a prediction: attention rollout and gradient-weighted relevance, as matrices over all tokens.

Entry (i, j) of such a matrix is the contribution of input token j to output token i. Both methods start from the
attention weights that models.forward captures. Relevance also needs ∇A∘A: the gradient of a logit with respect to the
attention weights, times the weights. The caller computes it as the gradient with respect to the dropout multiplier D at
D = 1: the weights enter as A∘D, so dy/dD = A ∘ dy/d(A∘D).
"""

from collections.abc import Callable, Sequence

import numpy as np

from vivit.reference.config import Config

Matrices = Sequence[np.ndarray]  # [h n n] for every attention, in the order of computation
Stages = dict[str, np.ndarray]  # of one clip, without the batch axis, by the names of models.forward's capture


def rollout(weights: Matrices) -> np.ndarray:
    """R = Â_L ⋯ Â₁, Â = (mean of A over the heads + I) / 2: propagates tokens through attention and residuals.

    Source: Abnar & Zuidema 2020, attention rollout. weights: float[h n n] of every attention. Returns float[n n]; its
    rows sum to 1, as those of the weights do.
    """
    identity = np.eye(weights[0].shape[-1])
    result = identity
    for attention in weights:
        result = (attention.mean(axis=0) + identity) / 2 @ result
    return result


def relevance(products: Matrices) -> np.ndarray:
    """R ← R + Ā R from R = I, Ā = mean of max(∇A∘A, 0) over the heads: the attention that increased the logit.

    Source: Chefer et al. 2021 (Generic attention-model explainability), eq. 5 and 6. products: float[h n n], ∇A∘A of
    every attention. Returns float[n n].
    """
    result = np.eye(products[0].shape[-1])
    for product in products:
        result = result + np.maximum(product, 0).mean(axis=0) @ result
    return result


def token_contributions(
    stages: Stages, config: Config, compose: Callable[[Matrices], np.ndarray], attentions: Stages
) -> np.ndarray:
    """Returns the contribution of every token to the pooled output, float[t s].

    This is the pooled row of the matrix that `compose` (rollout or relevance) makes of the attentions. Model 2 pools
    twice: the temporal encoder's row over the frames, times each frame's row of the spatial encoder. The class token's
    share is omitted. stages: must contain "<encoder>/norm". attentions: named as the captured weights; the weights for
    rollout, ∇A∘A for relevance.
    """
    time, height, width = config.grid
    first = int(config.class_token)
    result = compose(attention_matrices(attentions, config))
    norm = stages["encoder/norm"]
    if config.model != "factorised_encoder":
        row = pooling_shares(norm.reshape(-1, config.channels), config.pooling) @ result
        return row[first:].reshape(time, height * width)
    frames = np.full(time, 1 / time)
    if config.temporal_layers:
        over_frames = compose(attention_matrices(attentions, config.temporal, "temporal_encoder"))
        frames = (pooling_shares(stages["temporal_encoder/norm"], config.pooling) @ over_frames)[first:]
    start = np.stack(
        [frame * pooling_shares(tokens, config.pooling) for frame, tokens in zip(frames, norm, strict=True)]
    )
    return (start.reshape(-1) @ result).reshape(start.shape)[:, first:]


def pooling_shares(tokens: np.ndarray, pooling: str) -> np.ndarray:
    """Returns the share of each token in the pooled vector: float[n], sums to 1.

    "token" and "first": the first token only. "mean" and "sum": equal shares. "max": the fraction of channels in which
    a token is the largest, ties divided equally. tokens: float[n c], the input of the pooling.
    """
    n = len(tokens)
    if pooling in ("token", "first"):
        return np.eye(n)[0]
    if pooling in ("mean", "sum"):
        return np.full(n, 1 / n)
    largest = tokens == tokens.max(axis=0)
    return (largest / largest.sum(axis=0)).mean(axis=1)


def attention_matrices(attentions: Stages, config: Config, name: str = "encoder") -> list[np.ndarray]:
    """Returns every attention of one encoder as a matrix over all tokens of the clip, [h n n], in order of computation.

    Tokens are in the order [t s]. A class token comes first in its sequence: in model 2's spatial encoder, first in
    each frame. Model 3 has two attentions per layer. Model 4 has one, with the temporal heads before the spatial heads.
    """
    result = []
    for index in range(config.layers):
        start = f"{name}/{index}/"
        layer = {stage.removeprefix(start): values for stage, values in attentions.items() if stage.startswith(start)}
        if "weights" in layer:
            result.append(layer["weights"])
            continue
        axes = {"space": space_matrix(layer["space_weights"])}
        if "time_weights" in layer:
            axes["time"] = time_matrix(layer["time_weights"])
        if config.model == "factorised_encoder":
            result.append(axes["space"])
        elif config.model == "factorised_dot_product":
            result.append(np.concatenate([axes["time"], axes["space"]]))
        else:
            result += [axes[axis] for axis in config.order.split("_")]
    return result


def space_matrix(weights: np.ndarray) -> np.ndarray:
    """Expands spatial attention to all tokens: block-diagonal. weights: [t h q k]. Returns [h (t q) (t k)]."""
    t, h, s, _ = weights.shape
    return np.einsum("thqk,tu->htquk", weights, np.eye(t)).reshape(h, t * s, t * s)


def time_matrix(weights: np.ndarray) -> np.ndarray:
    """Expands temporal attention to all tokens: diagonal in each block. weights: [s h q k]. Returns [h (q s) (k s)]."""
    s, h, t, _ = weights.shape
    return np.einsum("shqk,sr->hqskr", weights, np.eye(s)).reshape(h, t * s, t * s)
