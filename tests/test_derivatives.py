"""Derivatives of whole models against the oracle: slopes, max pooling, every mode of differentiation, kernels.

The bounds are absolute, and nothing is compared with the baseline, which shares pooling and masks with production.
Nothing uses fast compilation, because XLA's recomputation and rounding are part of what is tested.
"""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import MODELS, configs, mostly_thorough, normal, random_params, rounded, seeds, small, video

import vivit
from vivit import layers
from vivit.reference import gradients
from vivit.reference import models as reference
from vivit.reference.config import Config
from vivit.reference.params import LayerNorm, convert, leaves
from vivit.reference.relevance import pooling_shares
from vivit.reverse_once import reverse_once

VALUES = 1e-5  # of the largest logit, float32
SLOPES = 1e-3  # of the gradient's norm, float32
STEP = 1e-6
MAXIMA = [
    ("float32", False, "none"),
    ("float32", True, "lean"),
    ("bfloat16", True, "none"),
    ("bfloat16", False, "lean"),
]
FEW = Config(  # few numbers to take the largest of, so that bfloat16 seldom takes another
    model="spatio_temporal",
    frames=9,
    height=12,
    width=8,
    tubelet=(3, 4, 4),
    channels=12,
    heads=2,
    hidden=20,
    layers=2,
    temporal_layers=2,
    positions="none",
    pooling="max",
    classes=(5,),
)


def direction_of(params, seed):
    """Returns a random change of all parameters, of norm 1."""
    generator = np.random.default_rng(seed)
    directions = convert(params, lambda _, leaf: generator.standard_normal(leaf.shape))
    length = np.sqrt(sum((leaf**2).sum() for _, leaf in leaves(directions)))
    return convert(directions, lambda _, leaf: leaf / length)


def moved(params, direction, size):
    return jax.tree.map(lambda leaf, change: np.float64(leaf) + size * change, params, direction)


def slope_of(function):
    """The slope at 0 of a function of float64, by a central difference."""
    return (function(STEP) - function(-STEP)) / (2 * STEP)


def weak_params(config, seed):
    """Normal weights in every leaf, times 0.3."""
    return convert(random_params(config), lambda _, leaf: rounded(0.3 * normal(seed, *leaf.shape)))


def along(gradient, direction):
    """Returns the slope along a direction according to a gradient, and the gradient's norm."""
    pairs = [(np.float64(one), other) for (_, one), (_, other) in zip(leaves(gradient), leaves(direction), strict=True)]
    return sum((one * other).sum() for one, other in pairs), np.sqrt(sum((one**2).sum() for one, _ in pairs))


def lead(params, config, stages, valid):
    """Returns the smallest difference between the largest and second largest value in max pooling, before the norm."""

    def closest(tokens, mask, norm):
        tokens = np.where(mask[..., np.newaxis], tokens, -np.inf)
        largest = tokens.max(axis=-2, keepdims=True)
        smaller = np.where(tokens < largest - 1e-9, tokens, -np.inf).max(axis=-2, keepdims=True)
        return ((largest - smaller) / np.abs(norm.scale)).min()  # infinite where all are the largest

    tokens, norm = stages["encoder/norm"], params.encoder.norm
    b, times = len(tokens), np.ones((len(tokens), config.grid[0]), bool) if valid is None else valid
    if config.model != "factorised_encoder":
        tokens = tokens.reshape(b, -1, config.channels)
        return closest(tokens, np.repeat(times, tokens.shape[1] // config.grid[0], axis=1), norm)
    found = closest(tokens, np.ones(tokens.shape[:-1], bool), norm)
    if params.temporal_encoder is None:
        return found
    return min(found, closest(stages["temporal_encoder/norm"], times, params.temporal_encoder.norm))


@cache
def production(config: Config, options: tuple):
    """(params, clips, cotangent, frames_valid) → (logits, gradient in the parameters), one program."""

    @jax.jit
    def both(params, clips, cotangent, frames_valid):
        def inner(params):
            logits = vivit.forward(params, clips, config, frames_valid=frames_valid, **dict(options))
            return (logits * cotangent).sum(), logits

        gradient, logits = jax.grad(inner, has_aux=True)(params)
        return logits, gradient

    return both


def assert_right(config, seed, frames_valid, *, values, slopes, clear, params_of=random_params, **options):
    """Asserts that logits and the slope in a random direction equal the oracle's. clear: the least `lead` required."""
    for candidate in range(seed, seed + 4000):
        params, clips = params_of(config, candidate), video(config, candidate)
        stages = {}
        expected = reference.forward(params, clips, config, frames_valid=frames_valid, capture=stages)
        valid = None
        if frames_valid is not None:
            valid = np.arange(config.grid[0]) * config.tubelet[0] < frames_valid[:, np.newaxis]
        if config.pooling != "max" or lead(params, config, stages, valid) > clear:
            break
    else:
        pytest.fail("no values whose largest tokens are clear")
    cotangent = np.random.default_rng(seed).standard_normal(expected.shape)
    direction = direction_of(params, seed)

    def moved_logits(size):
        there = moved(params, direction, size)
        return (reference.forward(there, clips, config, frames_valid=frames_valid) * cotangent).sum()

    logits, gradient = production(config, tuple(options.items()))(
        jax.tree.map(jnp.asarray, params), clips, np.float32(cotangent), frames_valid
    )
    assert np.abs(logits - expected).max() <= values * np.abs(expected).max()
    slope, norm = along(gradient, direction)
    assert abs(slope - slope_of(moved_logits)) <= slopes * norm


@pytest.mark.fast
@settings(max_examples=5)
@given(config=configs(), seed=seeds, padded=st.booleans())
def test_logits_and_slopes_of_every_variant_are_the_oracles(config, seed, padded):
    config = replace(config, classes=config.classes or (7,))
    per = config.tubelet[0]
    counts = np.array([per, config.frames - per])  # both end with a tubelet: none of the next is real
    frames_valid = (counts if seed % 2 else counts[::-1]).astype(np.int32) if padded else None
    assert_right(config, seed, frames_valid, values=VALUES, slopes=SLOPES, clear=1e-4)


@pytest.mark.parametrize("model", mostly_thorough(MODELS, MODELS[1], MODELS[2]))
@pytest.mark.parametrize(
    ("dtype", "padded", "remat"),
    mostly_thorough(MAXIMA, ("float32", True, "lean"), ("bfloat16", True, "none")),
)
def test_max_pooling_gives_its_gradient_to_the_largest_token(model, dtype, padded, remat):
    config = replace(FEW, model=model)
    bounds = dict(values=VALUES, slopes=SLOPES, clear=1e-4)
    if dtype == "bfloat16":  # still fewer, of which one is so much larger that rounding takes no other
        config = replace(config, height=8, width=4, channels=6)
        bounds = dict(values=0.05, slopes=0.05, clear=0.05)

    @settings(max_examples=3)
    @given(seed=seeds, counts=st.permutations([3, 6]))
    def right(seed, counts):
        frames_valid = np.array(counts, np.int32) if padded else None
        assert_right(config, seed, frames_valid, **bounds, params_of=weak_params, dtype=dtype, remat=remat)

    right()


def test_max_pooling_gives_its_gradient_to_the_largest_token_through_the_kernels():
    config = replace(FEW, model="factorised_self_attention", layers=1)
    for seed in range(12):
        assert_right(
            config, seed, None, values=VALUES, slopes=SLOPES, clear=1e-4, params_of=weak_params, attention="pallas"
        )


@pytest.mark.parametrize("model", mostly_thorough(MODELS, MODELS[1], MODELS[2]))
def test_the_times_of_a_still_video_share_the_gradient_of_the_largest_token(model):
    config, cotangent = replace(FEW, model=model), np.arange(1, 6, dtype=np.float32)[np.newaxis]

    @jax.jit
    def gradient(params, clips):
        return jax.grad(lambda clips: (vivit.forward(params, clips, config) * cotangent).sum())(clips)

    for seed in range(12):
        params = weak_params(config, seed)
        still = np.tile(video(replace(config, frames=3), seed, 1), (1, 3, 1, 1, 1))  # the same tubelets at every time
        stages = {}
        reference.forward(params, still, config, capture=stages)
        if lead(params, config, stages, None) < 1e-4:
            continue
        found = np.float64(gradient(jax.tree.map(jnp.asarray, params), still))
        direction = np.tile(normal(seed + 1, 1, 3, 12, 8, 3), (1, 3, 1, 1, 1))

        def moved_logits(size, params=params, still=still, direction=direction):
            return (reference.forward(params, np.float64(still) + size * direction, config) * cotangent).sum()

        norm = np.linalg.norm(found) * np.sqrt(3)
        assert abs((found * direction).sum() - slope_of(moved_logits)) <= SLOPES * norm
        of_times = found.reshape(3, -1)
        assert np.abs(of_times - of_times.mean(axis=0)).max() <= 1e-4 * np.abs(found).max()


@pytest.mark.parametrize("mapped", [False, True])
@given(seed=seeds, places=st.sets(st.integers(0, 6), min_size=1, max_size=4))
def test_tokens_that_are_equally_large_share_the_gradient(mapped, seed, places):
    tokens, norm = np.float64(normal(seed, 7, 5)), LayerNorm(normal(seed + 1, 5), normal(seed + 2, 5))
    cotangent = normal(seed + 3, 5)
    tokens[sorted(places)] = 3 * tokens[min(places)]  # the same rows: the same numbers after the norm too
    normed = gradients.layer_norm(tokens, norm, 1e-6)
    share = np.stack([pooling_shares(normed[:, [channel]], "max") for channel in range(5)], axis=1)
    expected, _ = gradients.layer_norm_vjp(tokens, norm, 1e-6, share * cotangent)

    def largest(tokens, scale, bias):  # the norm is computed anew wherever XLA likes
        return (layers.pool(layers.layer_norm(tokens, LayerNorm(scale, bias), 1e-6), "max") * cotangent).sum()

    function = jax.grad(largest)
    arguments = jnp.asarray(tokens, jnp.float32), *map(jnp.asarray, norm)
    if mapped:
        function = jax.vmap(function)
        arguments = [jnp.stack([x, jnp.flip(x, 0) if x.ndim == 2 else x]) for x in arguments]
    found = np.asarray(jax.jit(function)(*arguments))
    found = found if mapped else found[np.newaxis]
    for gradient, exact in zip(found, (expected, expected[::-1]), strict=False):
        np.testing.assert_allclose(gradient, exact, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("model", "padded"),
    mostly_thorough([*((model, True) for model in MODELS), (MODELS[0], False)], (MODELS[0], False), (MODELS[1], True)),
)
def test_without_kernels_forward_mode_and_second_derivatives_are_those_of_the_oracle(model, padded):
    config = small(model, layers=1, temporal_layers=1, pooling="mean")
    params, clips = random_params(config, 1), video(config, 1)
    frames_valid = np.array([2, 4], np.int32) if padded else None
    direction = direction_of(params, 2)
    cotangent = np.random.default_rng(3).standard_normal((2, 24))
    step = 1e-3
    below, here, above = (
        (reference.forward(moved(params, direction, size), clips, config, frames_valid=frames_valid) * cotangent).sum()
        for size in (-step, 0, step)
    )

    @jax.jit
    def derivatives(params, direction):
        def inner(params):
            logits = vivit.forward(params, clips, config, frames_valid=frames_valid, attention="xla")
            return (logits * np.float32(cotangent)).sum()

        def slope(params):
            return jax.jvp(inner, (params,), (direction,))[1]

        along_direction = jax.jacfwd(lambda size: inner(jax.tree.map(lambda x, d: x + size * d, params, direction)))
        forward_over_reverse = jax.jvp(jax.grad(inner), (params,), (direction,))[1]
        return slope(params), along_direction(jnp.float32(0)), forward_over_reverse, jax.grad(slope)(params)

    first, jacobian, forward_over_reverse, reverse_over_forward = derivatives(
        *(convert(tree, lambda _, leaf: jnp.asarray(leaf, jnp.float32)) for tree in (params, direction))
    )
    exact = (above - below) / (2 * step)
    assert abs(first - exact) <= SLOPES * abs(exact)
    assert abs(jacobian - exact) <= SLOPES * abs(exact)
    curvature = (above - 2 * here + below) / step**2
    for product in (forward_over_reverse, reverse_over_forward):
        assert abs(along(product, direction)[0] - curvature) <= SLOPES * abs(curvature)


@pytest.mark.fast
def test_what_has_one_derivative_only_is_otherwise_the_identity():
    arrays = {"tokens": jnp.arange(3.0), "labels": jnp.arange(3)}
    for run in (lambda function: function, jax.jit, jax.vmap):
        assert jax.tree.all(jax.tree.map(np.array_equal, run(reverse_once)(arrays), arrays))


@pytest.mark.fast
@pytest.mark.parametrize("jitted", [False, True])
def test_with_kernels_an_error_names_the_argument_that_disables_them(jitted):
    config = small("factorised_self_attention", layers=1)
    params, clips = jax.tree.map(jnp.asarray, random_params(config)), jnp.asarray(video(config, 1, 1))

    def inner(clips):
        return vivit.forward(params, clips, config, attention="pallas").sum()

    function = jax.jit(inner) if jitted else inner
    modes = {
        "forward mode": lambda: jax.jvp(function, (clips,), (clips,)),
        "a column of the Jacobian": lambda: jax.jacfwd(lambda size: function(size * clips))(jnp.float32(1)),
        "forward over reverse": lambda: jax.jvp(jax.grad(function), (clips,), (clips,)),
        "reverse over reverse": lambda: jax.grad(lambda clips: jnp.vdot(jax.grad(function)(clips), clips))(clips),
        "reverse over forward": lambda: jax.grad(lambda x: jax.jvp(function, (x,), (clips,))[1])(clips),
    }
    for differentiate in modes.values():
        with pytest.raises(TypeError, match="reverse mode, and once: attention='xla' disables them"):
            differentiate()


def test_the_gradient_of_a_batch_of_models_through_the_kernels_is_that_of_each():
    config = small("factorised_self_attention", layers=1)
    params, clips = jax.tree.map(jnp.asarray, random_params(config)), jnp.asarray(video(config, 1, 1))
    sizes = jnp.asarray([0.5, 2.0])
    gradient = jax.grad(lambda size: vivit.forward(params, size * clips, config, attention="pallas").sum())
    np.testing.assert_allclose(jax.vmap(gradient)(sizes), [gradient(size) for size in sizes], rtol=1e-4)
