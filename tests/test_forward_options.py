"""Production's models under their options: padding, sizes, patches, dtypes of pixels, remat, jit, vmap and capture."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accuracy import assert_as_accurate
from strategies import MODELS, SMALL, mostly_thorough, random_params, small, video
from trees import on_device

import vivit
from vivit.audit import baseline
from vivit.audit.bound import depth_of
from vivit.conformance.quickly import QUICKLY
from vivit.reference import models as reference

pytestmark = pytest.mark.usefixtures("compiled_quickly")

AVERAGED = [(MODELS[1], dict(temporal_layers=0)), (MODELS[1], dict(temporal_layers=0, pooling="max"))]


@pytest.mark.parametrize(
    ("model", "fields", "sampled"),
    [*((model, {}, False) for model in MODELS), *((*averaged, False) for averaged in AVERAGED), (MODELS[1], {}, True)],
)
def test_padded_clips_are_as_accurate_and_padding_is_never_read(model, fields, sampled):
    config = small(model, **fields, **({"tubelet": (1, 3, 7), "sampled_frames": 4} if sampled else {}))
    params = random_params(config)
    on_chip = on_device(params)
    jitted = jax.jit(lambda params, clips, valid: vivit.forward(params, clips, config, frames_valid=valid))
    for valid in (np.array([3, 1, 6]), np.array([2, 4, 6])):  # within tubelets of 2, and where they end
        clips = video(config, 4, batch=3)
        logits = vivit.forward(on_chip, clips, config, frames_valid=valid)
        yardstick = baseline.forward(on_chip, clips, config, frames_valid=valid)
        expected = reference.forward(params, clips, config, frames_valid=valid)
        assert_as_accurate(logits, yardstick, expected, "float32", depth=depth_of(config))
        for example, count in enumerate(valid):
            clips[example, count:] = np.nan
        assert np.array_equal(vivit.forward(on_chip, clips, config, frames_valid=valid), logits)
        np.testing.assert_allclose(jitted(on_chip, clips, valid), logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", mostly_thorough(MODELS, MODELS[1], MODELS[2]))
@pytest.mark.parametrize("size", [(4, 9, 21), (10, 15, 14)])
def test_other_lengths_and_resolutions_are_as_accurate_when_positions_are_resized(model, size):
    config = small(model)
    params = random_params(config)
    clips = video(replace(config, frames=size[0], height=size[1], width=size[2]), 5, batch=3)
    logits = vivit.forward(on_device(params), clips, config, resize=True)
    yardstick = baseline.forward(on_device(params), clips, config, resize=True)
    expected = reference.forward(params, clips, config, resize=True)
    assert_as_accurate(logits, yardstick, expected, "float32", depth=depth_of(config))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("sampled", [None, 4])
def test_patches_cut_on_the_host_give_what_the_video_gives(sampled, padded):
    config = replace(SMALL, tubelet=(1 if sampled else 2, 3, 7), sampled_frames=sampled)
    params, clips = on_device(random_params(config, 1)), video(config, 1)
    frames_valid = np.array([3, 6]) if padded else None
    whole = vivit.forward(params, clips, config, frames_valid=frames_valid)
    patches, real = vivit.cut(clips, config, frames_valid)
    assert patches.shape == (2, config.grid[0], config.grid[1] * config.grid[2], np.prod(config.tubelet) * 3)
    assert np.array_equal(vivit.forward(params, patches, config, frames_valid=real), whole)
    frames = config.grid[0] * config.tubelet[0]
    with pytest.raises(ValueError, match=rf"frames_valid is .*{frames + 1}"):
        vivit.forward(params, patches, config, frames_valid=np.array([1, frames + 1]))
    assert vivit.cut(clips.astype(np.uint8), config)[0].dtype == np.uint8


def test_uint8_video_is_scaled_and_bfloat16_video_gives_bfloat16_logits():
    config = small("factorised_encoder")
    params = random_params(config)
    clips = np.random.default_rng(6).integers(0, 256, (2, 6, 15, 14, 3), np.uint8)
    logits = vivit.forward(on_device(params), clips, config)
    assert logits.dtype == jnp.float32
    yardstick = baseline.forward(on_device(params), clips, config)
    expected = reference.forward(params, clips, config)
    assert_as_accurate(logits, yardstick, expected, "float32", depth=depth_of(config))
    half = vivit.forward(on_device(params), jnp.asarray(video(config, 7), jnp.bfloat16), config)
    assert half.dtype == jnp.bfloat16
    mixed = vivit.forward(on_device(params), video(config, 7), config, dtype="bfloat16")
    assert np.array_equal(half, mixed.astype(jnp.bfloat16))


@pytest.mark.parametrize("model", mostly_thorough(MODELS, MODELS[2]))
def test_rematerialisation_and_unrolling_change_neither_logits_nor_gradients(model):
    config = small(model, layers=2)
    params, clips = on_device(random_params(config)), video(config, 8)

    def loss(params, options):
        return jnp.square(vivit.forward(params, clips, config, **options)).sum()

    expected, *others = (
        jax.jit(jax.value_and_grad(partial(loss, options=options)), compiler_options=QUICKLY)(params)
        for options in ({}, {"remat": "fast"}, {"remat": "lean"}, {"unroll": True})
    )
    for actual in others:
        for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize("model", mostly_thorough(MODELS, MODELS[1]))
def test_forward_can_be_jitted_and_mapped_over_further_axes(model):
    config = small(model, layers=2)
    params = on_device(random_params(config))
    clips = np.stack([video(config, seed) for seed in (10, 11, 12)])
    mapped = jax.jit(jax.vmap(lambda clip: vivit.forward(params, clip, config)))(clips)
    assert mapped.shape == (3, 2, 24)
    for many, one in zip(mapped, clips, strict=True):
        np.testing.assert_allclose(many, vivit.forward(params, one, config), rtol=0, atol=2e-5)


def test_rematerialisation_takes_less_memory():
    config = small("spatio_temporal", layers=12, hidden=512)
    params = jax.eval_shape(lambda key: vivit.init(key, config), jax.random.key(0))
    clips = jax.ShapeDtypeStruct((8, 6, 15, 14, 3), jnp.float32)

    def peak(remat):
        gradient = jax.grad(lambda params, clips: vivit.forward(params, clips, config, remat=remat).sum())
        return jax.jit(gradient).lower(params, clips).compile().memory_analysis().temp_size_in_bytes

    assert peak("lean") < 0.5 * peak("fast") < 0.5 * peak("none")


def test_layers_are_scanned_so_that_the_program_does_not_grow_with_depth():
    def size(layers, **options):
        config = small("spatio_temporal", layers=layers)
        params = jax.eval_shape(lambda key: vivit.init(key, config), jax.random.key(0))
        clips = jax.ShapeDtypeStruct((1, 6, 15, 14, 3), jnp.float32)
        lowered = jax.jit(lambda params, clips: vivit.forward(params, clips, config, **options)).lower(params, clips)
        return len(lowered.as_text().splitlines()), lowered.as_text().count("stablehlo.while")

    assert size(3) == size(24)
    assert size(3)[1] == 1
    assert size(3, unroll=True)[1] == 0


def test_capture_leaks_no_tracers_and_works_inside_jit_and_grad():
    config = small("factorised_encoder", layers=2)
    params, clips = on_device(random_params(config)), jnp.asarray(video(config, 9))

    @jax.jit
    def inside(params, clips):
        capture = {}
        logits = vivit.forward(params, clips, config, capture=capture)
        return logits, capture

    with jax.checking_leaks():
        logits, stages = inside(params, clips)
        eager = {}
        vivit.forward(params, clips, config, capture=eager)
    assert all(isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer) for value in eager.values())
    assert set(stages) == set(eager)
    assert np.array_equal(logits, stages["logits"])

    def attention_to(logits_of, params):
        capture = {}
        logits = vivit.forward(params, clips, config, capture=capture)
        return logits[0, logits_of] + (capture["encoder/1/space_weights"] ** 2).sum()

    gradient = jax.grad(lambda params: attention_to(3, params))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_capture_costs_nothing_when_absent():
    config = small("spatio_temporal", layers=2)
    params = jax.eval_shape(lambda key: vivit.init(key, config), jax.random.key(0))
    clips = jax.ShapeDtypeStruct((1, 6, 15, 14, 3), jnp.float32)
    lowered = jax.jit(lambda params, clips: vivit.forward(params, clips, config)).lower(params, clips)
    n = 1 + 30
    loops = [line for line in lowered.as_text().splitlines() if "stablehlo.while" in line]
    assert loops
    assert not any(f"x{n}x{n}xf32>" in line for line in loops)  # no weights are carried out of the loop
