"""Explanations with random numbers in the shapes of each of the four models, for tests of pages and pictures."""

from dataclasses import replace

import numpy as np

from vivit.explanation.data import AttentionMaps, Target, ViewScores
from vivit.explanation.saving import Explanation
from vivit.inference.classification import Score
from vivit.reference.config import Config
from vivit.reference.costs import multiply_adds
from vivit.reference.params import parameters
from vivit.video.preprocessing import preprocessing_for

MODELS = ("spatio_temporal", "factorised_encoder", "factorised_self_attention", "factorised_dot_product")
LAYERS, HEADS = 3, 4
T, ROWS, COLUMNS = 4, 2, 3  # tokens
S = ROWS * COLUMNS
FILTERS = 5


def sample(model: str, seed: int = 0, **changes) -> Explanation:
    """A clip of 16 frames of 16 × 24 pixels, views 2 × 3, heads of 4 and 10 classes. changes: fields to replace."""
    random = np.random.default_rng(seed)
    config = Config(
        model=model,
        frames=16,
        height=16,
        width=24,
        tubelet=(4, 8, 8),
        channels=24,
        heads=HEADS,
        hidden=36,
        layers=LAYERS,
        temporal_layers=2,
        pooling="mean" if model in MODELS[2:] else "token",
        classes=(4, 10),
    )
    views = tuple(
        ViewScores(start, start + 1.5, crop, tuple(Score(f"{name} {crop}", random.uniform(0.2, 1)) for name in "ab"))
        for start in (0.0, 2.5)
        for crop in range(3)
    )
    scores = tuple(
        tuple(Score(f"class {head}.{n}", p) for n, p in enumerate(sorted(random.dirichlet(np.ones(size)))[::-1][:5]))
        for head, size in enumerate(config.classes)
    )
    best = [Target(head, n, *score) for head, row in enumerate(scores) for n, score in enumerate(row)]
    targets = (Target(1, 0, *scores[1][0]), *(target for target in best if target[:2] != (1, 0)))
    found = Explanation(
        name="a video.mp4",
        checkpoint="a/checkpoint",
        frames=_frames(random),
        stamps=2.5 + np.arange(16) / 10,
        view=4,
        scores=scores,
        views=views,
        crops=3,
        targets=targets,
        attention=tuple(_attention(model, random)),
        rollout=_sums_to_one(random, (T, S), (0, 1)),
        relevance=random.uniform(0.0001, 0.01, (len(targets), T, S)).astype(np.float32),
        rounding=np.full(len(targets), 1e-9, np.float32),
        filters=random.standard_normal((FILTERS, *config.tubelet, 3)).astype(np.float32),
        config=config,
        preprocessing=preprocessing_for(16, 24),
        parameters=parameters(config),
        multiply_adds=multiply_adds(config),
    )
    return replace(found, **changes)


def _frames(random: np.random.Generator) -> np.ndarray:
    """uint8[16 16 24 3]: each frame is a gradient of a different color."""
    colors = random.integers(30, 220, (16, 1, 1, 3))
    slope = np.arange(24)[np.newaxis, np.newaxis, :, np.newaxis]
    return np.broadcast_to(colors + slope, (16, 16, 24, 3)).astype(np.uint8)


def _attention(model: str, random: np.random.Generator):
    over_time = dict(time=True, time_of_class=False)
    for layer in range(LAYERS):
        stage = f"encoder/{layer}"
        if model == "spatio_temporal":
            yield _maps(random, f"{stage}/weights", range(HEADS), time=True, time_of_class=True)
        elif model == "factorised_encoder":
            yield _maps(random, f"{stage}/space_weights", range(HEADS))
        elif model == "factorised_self_attention":
            yield _maps(random, f"{stage}/time_weights", range(HEADS), **over_time)
            yield _maps(random, f"{stage}/space_weights", range(HEADS))
        else:  # half of the heads each
            yield _maps(random, f"{stage}/time_weights", range(HEADS // 2), **over_time)
            yield _maps(random, f"{stage}/space_weights", range(HEADS // 2, HEADS))
    if model == "factorised_encoder":
        for layer in range(2):
            stage = f"temporal_encoder/{layer}/weights"
            yield _maps(random, stage, range(HEADS), space=False, time=True, time_of_class=True)


def _maps(
    random: np.random.Generator, stage: str, heads, *, space: bool = True, time: bool = False, time_of_class=False
) -> AttentionMaps:
    h = len(heads)
    axes = (1, 2) if stage.endswith("/weights") else (2,) if stage.endswith("/space_weights") else (1,)
    return AttentionMaps(
        stage=stage,
        heads=tuple(heads),
        space=_sums_to_one(random, (h, T, S), axes) if space else None,
        time=_sums_to_one(random, (h, T, T), (2,)) if time else None,
        time_of_class=_sums_to_one(random, (h, T), (1,)) if time_of_class else None,
    )


def _sums_to_one(random: np.random.Generator, shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    values = random.gamma(1.0, size=shape)  # a few large ones, as attention has
    return (values / values.sum(axes, keepdims=True)).astype(np.float32)
