"""The puzzles that need NumPy alone: from pixels to tokens, attention, gradients, rollout, the online softmax."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from vivit.audit.bound import compare
from vivit.conformance import models
from vivit.conformance.implementation import Implementation, require
from vivit.conformance.models import ModelCase, config, model_cases
from vivit.conformance.properties import Property
from vivit.puzzles.puzzle import (
    COMPILED_SIZES,
    DTYPE,
    SEEDS,
    Axes,
    Call,
    Puzzle,
    Trial,
    against,
    drawn_sizes,
    joined,
    of_kit,
)
from vivit.reference import attention, gradients, layers, positions, relevance, tubelet
from vivit.reference.params import Dense, LayerNorm

CORE: Axes = {"b": (1, 2, 3), "t": (1, 2, 3, 4, 5), "s": (1, 2, 3, 4, 5, 6), "heads": (2, 4), "d": (1, 3, 5, 7)}
MASKED = CORE | {"t": (2, 3, 4, 5), "s": (3, 4, 5, 6)}  # along one axis the kit masks nothing
EQUALITY, LARGE = "equality with the oracle", "large scores"
LARGEST = 1000.0  # of a score: its exponential is infinite in float64


def attention_masks(t: int, s: int) -> np.ndarray:
    """Bool[n 2n], n = t·s: which token attends to which, in spatial and in temporal attention."""
    over_space = relevance.space_matrix(np.ones((t, 1, s, s)))[0]
    over_time = relevance.time_matrix(np.ones((s, 1, t, t)))[0]
    return np.concatenate([over_space, over_time], axis=-1) != 0


def layer_norm_vjp(x: np.ndarray, scale: np.ndarray, epsilon: float, out_cotangent: np.ndarray) -> np.ndarray:
    """The cotangent of x alone."""
    return gradients.layer_norm_vjp(x, LayerNorm(scale, 0.0 * scale), epsilon, out_cotangent)[0]


def _sizes(trial: Trial) -> tuple[int, ...]:
    return trial.sizes


def _kernel(trial: Trial) -> list[Any]:
    time, *shape = trial.sizes
    return [*trial.values((*shape, 3, 11)), time]


def _layer_norm(trial: Trial) -> list[Any]:
    b, n, c = trial.sizes
    x, scale, out_cotangent = trial.values((b, n, c), (c,), (b, n, c))
    return [x, scale, 1e-6, out_cotangent]


def _weights(trial: Trial) -> list[np.ndarray]:
    l, h, n = trial.sizes
    (scores,) = trial.values((l, h, n, n))
    return [layers.softmax(scores).astype(np.float32)]


def _tubelets(call: Call) -> Callable[..., np.ndarray]:
    def tubelet_embed(video: np.ndarray, params: Dense) -> np.ndarray:
        return joined(call, video, *params)

    return tubelet_embed


def _of_tubelets(seed: int) -> list[Property]:
    axes: Axes = {"time": (1, 2, 3), "height": (1, 2, 3, 5), "width": (2, 3, 5, 7)}
    sizes, grids = (drawn_sizes(axes, number, COMPILED_SIZES) for number in (seed, seed + 1))
    configs = tuple(
        config(
            "spatio_temporal",
            tubelet=size,
            **{name: a * b for name, a, b in zip(("frames", "height", "width"), size, grid, strict=True)},
        )
        for size, grid in zip(sizes, grids, strict=True)
    )
    return [Property("tubelet_embed", EQUALITY, DTYPE, models.accurate, lambda _: model_cases(configs, DTYPE))]


def _tokens(case: ModelCase) -> np.ndarray:
    params, video = models.drawn(case)
    return tubelet.embed(video.astype(np.float64), Dense(*(leaf.astype(np.float64) for leaf in params.embedding)))


def _with_mask(call: Call) -> Callable[..., np.ndarray]:
    return lambda qkv, heads, *, mask: joined(call, qkv, heads, np.ones(qkv.shape[:-1], bool) if mask is None else mask)


def _online(seed: int) -> list[Property]:
    axes: Axes = {"q": (1, 2, 3), "k": (5, 6, 8, 9), "d": (1, 4, 7), "keys of a block": (1, 2, 3)}

    def check(implementation: Implementation, function: str, trial: Trial) -> None:
        q, k, d, block = trial.sizes
        query, key, value = given = trial.values((q, d), (k, d), (k, d))
        state = np.concatenate([np.zeros((q, d + 1)), np.full((q, 1), -np.inf)], axis=-1, dtype=np.float32)
        for start in range(0, k, block):
            parts = np.split(np.float32(state), (d, d + 1), axis=-1)
            keys = slice(start, start + block)
            state = implementation.call(function, *parts, query, key[keys], value[keys], shape=(q, d + 2), dtype=DTYPE)
        with np.errstate(all="ignore"):
            found = state[:, :d] / state[:, d : d + 1]
        expected, _ = attention.attend(*(array.astype(np.float64) for array in given))
        baseline, _ = attention.attend(*given)
        largest = float(np.abs(query @ key.T).max() / np.sqrt(d))
        require(compare(found, baseline, expected, DTYPE, depth=1, condition=max(1.0, largest)))

    sizes = st.sampled_from(drawn_sizes(axes, seed))
    trials = st.builds(Trial, st.just(tuple(axes)), sizes, st.sampled_from((1.0, 10.0)), SEEDS)
    return [Property("online_softmax", EQUALITY, DTYPE, check, lambda _: trials)]


PUZZLES = (
    against(
        tubelet.frame_indices,
        lambda trial: [max(trial.sizes), min(trial.sizes)],
        {"frames": range(1, 40), "sampled": range(1, 24)},
        name="frame_indices",
        number=1,
        points=1,
        ours="vivit.reference.tubelet.frame_indices",
    ),
    Puzzle(
        name="tubelet_embed",
        number=2,
        points=2,
        ours="vivit.reference.tubelet.embed",
        properties=_of_tubelets,
        expected=_tokens,
        adapt=_tubelets,
    ),
    against(
        positions.sinusoidal_1d,
        lambda trial: [trial.sizes[0], 2 * trial.sizes[1]],
        {"n": range(1, 30), "half of the channels": range(1, 12)},
        name="sinusoidal_positions",
        number=3,
        points=1,
        ours="vivit.reference.positions.sinusoidal_1d",
    ),
    against(
        tubelet.inflate,
        _kernel,
        {"time": (2, 3, 4, 5), "height": (1, 2, 3, 4), "width": (1, 2, 4, 5)},
        name="inflate",
        number=4,
        points=1,
        ours="vivit.reference.tubelet.inflate",
    ),
    against(
        layers.softmax,
        lambda trial: trial.values(trial.sizes),
        {"b": (1, 2, 3), "q": (1, 2, 4, 5), "k": (2, 3, 5, 7)},
        scales=(1.0, LARGEST),
        condition=lambda scores: max(1.0, float(np.abs(scores).max())),
        name="softmax",
        number=5,
        points=1,
        ours="vivit.reference.layers.softmax",
    ),
    against(
        attention_masks,
        _sizes,
        {"t": (1, 2, 3, 4), "s": (1, 2, 3, 4, 5)},
        name="attention_masks",
        number=6,
        points=1,
        ours="vivit.reference.relevance.space_matrix",
    ),
    of_kit(
        "spatial",
        (EQUALITY, LARGE),
        CORE,
        name="spatial",
        number=7,
        points=2,
        ours="vivit.reference.attention.spatial",
    ),
    of_kit(
        "temporal",
        (EQUALITY, LARGE),
        CORE,
        name="temporal",
        number=8,
        points=1,
        ours="vivit.reference.attention.temporal",
    ),
    of_kit(
        "factorised_dot_product",
        (EQUALITY,),
        CORE,
        name="factorised_dot_product",
        number=9,
        points=2,
        ours="vivit.reference.attention.factorised_dot_product",
    ),
    of_kit(
        "joint",
        ("masks", "rows without a key", "masked tokens not read"),
        MASKED,
        name="masked_attention",
        number=10,
        points=2,
        ours="vivit.reference.attention.joint",
        adapt=_with_mask,
    ),
    against(
        layer_norm_vjp,
        _layer_norm,
        {"b": (1, 2, 3), "n": (1, 2, 4, 5), "c": (3, 5, 7, 8)},
        depth=2,
        name="layer_norm_vjp",
        number=11,
        points=2,
        ours="vivit.reference.gradients.layer_norm_vjp",
    ),
    of_kit(
        "spatial_vjp",
        (EQUALITY,),
        CORE,
        name="attention_vjp",
        number=12,
        points=3,
        ours="vivit.reference.gradients.attend_vjp",
    ),
    against(
        relevance.rollout,
        _weights,
        {"l": (1, 2, 3), "h": (1, 2, 4), "n": (2, 3, 5)},
        depth=3,
        name="rollout",
        number=13,
        points=1,
        ours="vivit.reference.relevance.rollout",
    ),
    Puzzle(name="online_softmax", number=14, points=3, ours="vivit.kernels.flash.forward", properties=_online),
)
