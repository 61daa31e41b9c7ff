"""Hypothesis strategies: shapes from short lists (each new shape compiles), values from a seed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import strategies as st

from vivit.audit.variants import random_params, rounded
from vivit.reference.config import Config

MODELS = ("spatio_temporal", "factorised_encoder", "factorised_self_attention", "factorised_dot_product")
CORES = ("joint", "spatial", "temporal", "factorised_dot_product")
DTYPES = ("float32", "bfloat16")

# every axis its own size: frames 6 = 3·2, height 15 = 5·3, width 14 = 2·7
SMALL = Config(
    model="spatio_temporal",
    frames=6,
    height=15,
    width=14,
    tubelet=(2, 3, 7),
    channels=30,
    heads=2,
    hidden=17,
    layers=3,
    temporal_layers=2,
    temporal_heads=3,
    temporal_hidden=19,
    classes=(11, 13),
)


def mostly_thorough(values, *always):
    """Parameters of a test: those of `always` are in `make test`, the others in `make test-thorough` only."""
    assert set(always) <= set(values)
    cases = ((value, value if isinstance(value, tuple) else (value,)) for value in values)
    return [value if value in always else pytest.param(*case, marks=pytest.mark.thorough) for value, case in cases]


seeds = st.integers(0, 2**32 - 1)
attention_shapes = ((2, 3, 5, 4, 7), (3, 1, 13, 2, 1), (1, 1, 1, 2, 5))  # b t s heads d


CORE_FAULTS = [  # core, shape of qkv, heads, shape of mask, what the error says
    ("factorised_dot_product", (1, 2, 2, 18), 3, None, r"heads is 3: factorised_dot_product needs an even number"),
    ("joint", (1, 2, 20), 4, None, r"qkv has 20 channels: they must be three times a multiple of heads, 4"),
    ("joint", (1, 2, 2, 24), 4, None, r"qkv has shape \(1, 2, 2, 24\): it must be \[b n 3c\]"),
    ("spatial", (1, 2, 24), 4, None, r"qkv has shape \(1, 2, 24\): it must be \[b t s 3c\]"),
    ("temporal", (1, 2, 3, 24), 0, None, r"they must be three times a multiple of heads, 0"),
    ("temporal", (1, 2, 3, 24), 4, (1, 3, 2), r"mask is bool\[1, 3, 2\]: it must be bool\[1, 2, 3\]"),
    ("factorised_dot_product", (1, 2, 3, 24), 4, (1, 6), r"mask is bool\[1, 6\]: it must be bool\[1, 2, 3\]"),
]


def small(model: str, **fields) -> Config:
    """Returns SMALL as one of the four models, mean-pooled if the model has no class token."""
    blocks = model in ("factorised_self_attention", "factorised_dot_product")
    return replace(SMALL, model=model, **{"pooling": "mean" if blocks else "token", **fields})


@st.composite
def configs(draw) -> Config:
    """Draws small configs of all models, embeddings, poolings, positions, orders and heads."""
    model = draw(st.sampled_from(MODELS))
    blocks = model in ("factorised_self_attention", "factorised_dot_product")
    config = replace(
        SMALL,
        model=model,
        pooling=draw(st.sampled_from(("mean", "max", "sum") if blocks else ("token", "first", "mean", "max", "sum"))),
        positions=draw(st.sampled_from(("learned", "sinusoidal_1d", "sinusoidal_3d", "none"))),
        order=draw(st.sampled_from(("time_space", "space_time"))),
        gelu=draw(st.sampled_from(("tanh", "erf"))),
        epsilon=draw(st.sampled_from((1e-6, 1e-12))),
        temporal_layers=draw(st.sampled_from((0, 2))),
        representation=draw(st.sampled_from((None, 23))),
        classes=draw(st.sampled_from(((11, 13), (11, 13), ()))),
    )
    if draw(st.booleans()):
        config = replace(config, tubelet=(1, 3, 7), sampled_frames=draw(st.sampled_from((1, 4, 6))))
    return config


def video(config: Config, seed: int, batch: int = 2) -> np.ndarray:
    """Returns random pixels in −1…1, float32 values that are exact in bfloat16: [batch frames height width 3]."""
    shape = (batch, config.frames, config.height, config.width, 3)
    return rounded(np.random.default_rng(seed).uniform(-1, 1, shape))


def normal(seed: int, *shape: int) -> np.ndarray:
    """Returns standard normal values, float32, exact in bfloat16."""
    return rounded(np.random.default_rng(seed).standard_normal(shape))


__all__ = [
    "CORES",
    "CORE_FAULTS",
    "DTYPES",
    "MODELS",
    "SMALL",
    "attention_shapes",
    "configs",
    "mostly_thorough",
    "normal",
    "random_params",
    "rounded",
    "seeds",
    "small",
    "video",
]
