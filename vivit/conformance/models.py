"""What `tubelet_embed` and `forward` must satisfy: equality with the oracle, and invariants of any weights."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from vivit.audit import baseline
from vivit.audit.bound import Comparison, compare, depth_of
from vivit.audit.variants import random_params, rounded
from vivit.conformance.implementation import Implementation, require
from vivit.conformance.quickly import QUICKLY
from vivit.reference import models as reference
from vivit.reference import tubelet
from vivit.reference.config import COLORS, Config, Model, Pooling
from vivit.reference.layers import dense
from vivit.reference.params import Dense, Params, convert
from vivit.reference.tubelet import central_frame, inflate

# every axis its own size: frames 4 = 2·2, height 9 = 3·3, width 35 = 5·7
SIZES: dict[str, Any] = dict(
    frames=4,
    height=9,
    width=35,
    tubelet=(2, 3, 7),
    channels=30,
    heads=2,
    hidden=17,
    layers=2,
    temporal_layers=1,
    temporal_heads=3,
    temporal_hidden=19,
    classes=(11, 13),
)
WITHOUT_TOKEN = ("factorised_self_attention", "factorised_dot_product")


class ModelCase(NamedTuple):
    """One trial of `forward` or `tubelet_embed`: random weights and pixels from a seed."""

    config: Config
    dtype: str
    seed: int = 0

    def __str__(self) -> str:
        usual = vars(config(self.config.model))
        fields = {name: value for name, value in vars(self.config).items() if value != usual[name]}
        changed = "".join(f", {name} {value}" for name, value in fields.items())
        return f"{self.config.model}{changed}, {self.dtype}, seed {self.seed}"


def config(model: str, **fields: Any) -> Config:
    """Returns a small config, pooled by the mean where the model has no class token."""
    pooling: Pooling = "mean" if model in WITHOUT_TOKEN else "token"
    return Config(**{**SIZES, "model": cast(Model, model), "pooling": pooling, **fields})


def model_cases(configs: tuple[Config, ...], dtype: str) -> st.SearchStrategy[ModelCase]:
    """Draws cases with these configs."""
    return st.builds(ModelCase, st.sampled_from(configs), st.just(dtype), st.integers(0, 2**32 - 1))


def accurate(implementation: Implementation, function: str, case: ModelCase) -> None:
    """The result is as accurate as the baseline's, against the oracle."""
    params, video = drawn(case)
    require(_compare(function, _result(implementation, function, params, video, case), params, video, case))


def examples(implementation: Implementation, function: str, case: ModelCase) -> None:
    """A clip gives the same alone as in a batch."""
    params, video = drawn(case)
    whole = _result(implementation, function, params, video, case)[-1:]
    alone = _result(implementation, function, params, video[-1:], case)
    _require_same(alone, whole, _compare(function, None, params, video[-1:], case))


def still(implementation: Implementation, function: str, case: ModelCase) -> None:
    """An image model, inflated over time and averaged, gives a still video what it gives the image."""
    time = case.config.tubelet[0]
    image_config = replace(case.config, frames=1, tubelet=(1, *case.config.tubelet[1:]))
    image = case._replace(config=image_config)
    params, picture = drawn(image)
    inflated = (inflate, central_frame)[case.seed % 2](params.embedding.kernel[0].astype(np.float64), time)
    of_video = params._replace(embedding=params.embedding._replace(kernel=np.float32(inflated)))
    video = np.repeat(picture, case.config.frames, axis=1)
    expected = _result(implementation, function, params, picture, image)
    actual = _result(implementation, function, of_video, video, case)
    if function == "tubelet_embed":
        expected = np.repeat(expected, case.config.grid[0], axis=1)
    _require_same(actual, expected, _compare(function, None, of_video, video, case))


def order(implementation: Implementation, function: str, case: ModelCase) -> None:
    """Without temporal layers the order of the frames does not matter."""
    params, video = drawn(case)
    expected = _result(implementation, function, params, video, case)
    actual = _result(implementation, function, params, video[:, ::-1].copy(), case)
    _require_same(actual, expected, _compare(function, None, params, video, case))


def drawn(case: ModelCase) -> tuple[Params, np.ndarray]:
    """Returns random weights, and pixels in −1…1: float32, exact in bfloat16."""
    size = (2, case.config.frames, case.config.height, case.config.width, COLORS)
    return random_params(case.config, case.seed), rounded(np.random.default_rng(case.seed).uniform(-1, 1, size))


def _result(
    implementation: Implementation, function: str, params: Params, video: np.ndarray, case: ModelCase
) -> np.ndarray:
    pixels = video.astype(case.dtype)
    if function == "forward":
        shape = (len(video), sum(case.config.classes))
        return implementation.call("forward", params, pixels, case.config, shape=shape, dtype=case.dtype)
    t, height, width = case.config.grid
    shape = (len(video), t, height * width, case.config.channels)
    embedding = Dense(*(leaf.astype(case.dtype) for leaf in params.embedding))
    return implementation.call("tubelet_embed", pixels, embedding, shape=shape, dtype=case.dtype)


@cache
def _baseline(function: str, config: Config, dtype: str) -> Callable[[Params, jax.Array], jax.Array]:
    def embed(params: Params, video: jax.Array) -> jax.Array:
        return baseline.embed(video, params.embedding)

    forward = partial(baseline.forward, config=config, dtype=dtype)
    return jax.jit(forward if function == "forward" else embed, compiler_options=QUICKLY)


def _compare(
    function: str, actual: np.ndarray | None, params: Params, video: np.ndarray, case: ModelCase
) -> Comparison:
    """Compares a result with the oracle's. None: the oracle's own result, for the bound alone."""
    growth = 1.0
    if function == "forward":
        capture: dict[str, np.ndarray] = {}
        expected = reference.forward(params, video, case.config, capture=capture)
        if params.representation is not None:  # a relative rounding of tanh's argument, which may be a sum
            growth = max(1.0, float(np.abs(dense(capture["features"], params.representation)).max()))
        depth = depth_of(case.config)
    else:
        embedding = convert(params.embedding, lambda _, leaf: np.float64(leaf))
        expected, depth = tubelet.embed(video.astype(np.float64), embedding), 1
    yardstick = _baseline(function, case.config, case.dtype)(jax.tree.map(jnp.asarray, params), jnp.asarray(video))
    found = expected if actual is None else actual
    return compare(found, yardstick.astype(case.dtype), expected, case.dtype, depth=depth, condition=growth)


def _require_same(actual: np.ndarray, expected: np.ndarray, allowed: Comparison) -> None:
    """Requires that two results differ by at most twice the bound of one."""
    difference = np.abs(actual - expected)
    worst = np.unravel_index(np.argmax(difference), difference.shape)  # argmax returns a NaN first
    require(
        allowed._replace(
            error=float(difference[worst]),
            bound=2 * allowed.bound,
            worst=tuple(map(int, worst)),
            actual=float(actual[worst]),
            expected=float(expected[worst]),
        )
    )
