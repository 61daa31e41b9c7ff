"""What a model looked at: attention rollout and gradient-weighted relevance, as whole matrices over all tokens.

A row of such a matrix says how much of every token has come together in one. Both start from weights that
models.forward captured. Relevance needs ∇A∘A too, the gradient of a logit with respect to the weights, times the
weights: that is the logit's gradient with respect to the weights' dropout multiplier D where all of it is 1, since the
weights A∘D are where D enters, so dy/dD = A ∘ dy/d(A∘D). Who calls this brings it.
"""

from collections.abc import Callable, Sequence

import numpy as np

from vivit.reference.config import Config

Matrices = Sequence[np.ndarray]  # [h n n] for every attention, in the order of computation
Stages = dict[str, np.ndarray]  # of one clip, without the batch axis, by the names of models.forward's capture


def rollout(weights: Matrices) -> np.ndarray:
    """R = Â_L ⋯ Â₁, Â = (mean of A over the heads + I) / 2: how attention and residuals pass tokens on.

    Source: Abnar & Zuidema 2020, attention rollout. weights: float[h n n], of every attention. Returns float[n n],
    whose rows sum to 1 as those of the weights do.
    """
    identity = np.eye(weights[0].shape[-1])
    result = identity
    for attention in weights:
        result = (attention.mean(axis=0) + identity) / 2 @ result
    return result


def relevance(products: Matrices) -> np.ndarray:
    """R ← R + Ā R from R = I, Ā = mean of max(∇A∘A, 0) over the heads: what of the attention raised the logit.

    Source: Chefer et al. 2021 (Generic attention-model explainability), eq. 5 and 6. products: float[h n n], ∇A∘A of
    every attention. Returns float[n n].
    """
    result = np.eye(products[0].shape[-1])
    for product in products:
        result = result + np.maximum(product, 0).mean(axis=0) @ result
    return result


def looked_at(
    stages: Stages, config: Config, compose: Callable[[Matrices], np.ndarray], attentions: Stages
) -> np.ndarray:
    """The row of what the model pools, in `compose` (rollout or relevance) of its attentions: float[t s].

    Model 2 pools twice: the temporal encoder's row over the frames, times each frame's row of the spatial encoder.
    What falls on a class token is left out. stages: at least "<encoder>/norm". attentions: under the names of the
    captured weights, the weights for rollout, ∇A∘A for relevance.
    """
    time, height, width = config.grid
    first = int(config.class_token)
    result = compose(matrices(attentions, config))
    norm = stages["encoder/norm"]
    if config.model != "factorised_encoder":
        row = pooled(norm.reshape(-1, config.channels), config.pooling) @ result
        return row[first:].reshape(time, height * width)
    frames = np.full(time, 1 / time)
    if config.temporal_layers:
        over_frames = compose(matrices(attentions, config.temporal, "temporal_encoder"))
        frames = (pooled(stages["temporal_encoder/norm"], config.pooling) @ over_frames)[first:]
    start = np.stack([frame * pooled(tokens, config.pooling) for frame, tokens in zip(frames, norm, strict=True)])
    return (start.reshape(-1) @ result).reshape(start.shape)[:, first:]


def pooled(tokens: np.ndarray, pooling: str) -> np.ndarray:
    """How much of each token is in what is pooled: float[n], sums to 1.

    The class token or first token alone, all tokens alike for mean and sum, and for max the share of channels in which
    a token is the largest (an equal part of those where several are). tokens: float[n c], as the pooling sees them.
    """
    n = len(tokens)
    if pooling in ("token", "first"):
        return np.eye(n)[0]
    if pooling in ("mean", "sum"):
        return np.full(n, 1 / n)
    largest = tokens == tokens.max(axis=0)
    return (largest / largest.sum(axis=0)).mean(axis=1)


def matrices(attentions: Stages, config: Config, name: str = "encoder") -> list[np.ndarray]:
    """Every attention of one encoder as a matrix over all tokens of the clip: [h n n] each, in order of computation.

    Tokens are in the order [t s]; a class token stands first in what it is part of, in model 2's spatial encoder in
    each frame. Model 3 has two attentions a layer. Model 4 has one: its heads are those over time, then those over
    space.
    """
    found = []
    for index in range(config.layers):
        start = f"{name}/{index}/"
        layer = {stage.removeprefix(start): values for stage, values in attentions.items() if stage.startswith(start)}
        if "weights" in layer:
            found.append(layer["weights"])
            continue
        axes = {"space": space_matrix(layer["space_weights"])}
        if "time_weights" in layer:
            axes["time"] = time_matrix(layer["time_weights"])
        if config.model == "factorised_encoder":
            found.append(axes["space"])
        elif config.model == "factorised_dot_product":
            found.append(np.concatenate([axes["time"], axes["space"]]))
        else:
            found += [axes[axis] for axis in config.order.split("_")]
    return found


def space_matrix(weights: np.ndarray) -> np.ndarray:
    """Attention within frames over all tokens: blocks on the diagonal. weights: [t h q k]. Returns [h (t q) (t k)]."""
    t, h, s, _ = weights.shape
    return np.einsum("thqk,tu->htquk", weights, np.eye(t)).reshape(h, t * s, t * s)


def time_matrix(weights: np.ndarray) -> np.ndarray:
    """Attention over time over all tokens: a diagonal in every block. weights: [s h q k]. Returns [h (q s) (k s)]."""
    s, h, t, _ = weights.shape
    return np.einsum("shqk,sr->hqskr", weights, np.eye(s)).reshape(h, t * s, t * s)
