"""cuDNN's attention (vivit/gpu_ops.py). `pytest -m gpu` runs it on the attached GPU; without one JAX's own form of the
same call takes its place, so that everything around it is tested.
"""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cores import Problem, assert_accurate
from strategies import CORES

import vivit
from vivit.audit.variants import random_params
from vivit.backend import backend
from vivit.gpu_ops import CUDNN, fits
from vivit.ops import XLA
from vivit.pallas_ops import PALLAS
from vivit.reference.config import named

pytestmark = pytest.mark.gpu
ATTACHED = jax.default_backend() == "gpu"


@pytest.fixture
def calls(monkeypatch):
    """The keyword arguments of every call of JAX's attention."""
    called, original = [], jax.nn.dot_product_attention

    def call(*arrays, implementation, **options):
        called.append({"implementation": implementation} | options)
        if ATTACHED:
            return original(*arrays, implementation=implementation, **options)
        with jax.numpy_rank_promotion("allow"):
            exact = [array.astype(jnp.float32) for array in arrays]
            return original(*exact, implementation="xla", **options).astype(jnp.bfloat16)

    monkeypatch.setattr(jax.nn, "dot_product_attention", call)
    jax.clear_caches()
    yield called
    jax.clear_caches()


def attached(platform_version, capability):
    return SimpleNamespace(
        platform="gpu", client=SimpleNamespace(platform_version=platform_version), compute_capability=capability
    )


@pytest.mark.fast
@pytest.mark.parametrize(
    ("device", "ops"),
    [
        (attached("PJRT C API\ncuda 12090", "9.0"), CUDNN),
        (attached("cuda 12090", "12.0"), CUDNN),
        (attached("cuda 12090", "7.5"), XLA),
        (attached("rocm 60300", "gfx90a"), XLA),
    ],
)
def test_auto_is_cudnn_on_a_gpu_that_has_it(device, ops, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda platform=None: [device])
    assert backend("auto") is ops
    assert backend("auto", "gpu") is ops
    assert backend("auto", "cpu") is XLA
    assert backend("xla") is XLA
    assert backend(CUDNN, "cpu") is CUDNN


@pytest.mark.fast
def test_auto_is_pallas_for_the_tpus_of_a_mesh_that_are_not_attached():
    tpu = jax.sharding.AbstractDevice(device_kind="TPU v3", num_cores=2, platform="tpu")
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1,), ("batch",), abstract_device=tpu)):
        assert backend("auto") is PALLAS


@pytest.mark.parametrize(("core", "padded"), [*((core, True) for core in CORES), ("spatial", False)])
def test_values_and_gradients_are_within_the_bound_where_rows_end_early_or_have_no_length(core, padded, calls):
    problem = Problem((3, 4, 5, 2, 8), seed=3)
    qkv, out, heads, options = problem.arrays(core)
    lengths = np.array([4, 2, 0])[:, np.newaxis]  # frames of each clip; the last clip has none
    mask = np.broadcast_to((np.arange(4) < lengths)[..., np.newaxis], (3, 4, 5)).reshape(options["mask"].shape)
    options = {"mask": mask if padded else None, "dropout": None}
    assert_accurate(CUDNN, core, "bfloat16", qkv, out, heads, options)
    assert all(call["implementation"] == "cudnn" and ("key_value_seq_lengths" in call) == padded for call in calls)
    assert len(calls) >= (2 if core == "factorised_dot_product" else 1)
    if padded:
        poisoned = jnp.where(mask[..., np.newaxis], qkv, np.nan).astype(jnp.bfloat16)
        assert np.isfinite(np.float32(getattr(CUDNN, core)(poisoned, heads, mask=jnp.asarray(mask)))).all()


@pytest.mark.parametrize(
    ("dtype", "shape", "dropped"),
    [("float32", (2, 3, 5, 2, 8), 0.0), ("bfloat16", (2, 3, 5, 2, 12), 0.0), ("bfloat16", (2, 3, 5, 2, 8), 0.25)],
)
def test_float32_other_heads_and_dropout_go_through_xla(dtype, shape, dropped, calls):
    problem = Problem(shape, dropped=dropped)
    qkv, _, heads, options = problem.drawn("spatial")
    qkv = jnp.asarray(qkv, dtype)
    dropout = options["dropout"]
    same = [np.asarray(ops.spatial(qkv, heads, mask=None, dropout=dropout)) for ops in (CUDNN, XLA)]
    np.testing.assert_array_equal(*same)
    assert not calls


@pytest.mark.fast
def test_a_head_fits_by_its_dtype_and_channels():
    found = [fits(jnp.zeros((1, 2, 3 * channels), "bfloat16"), 1) for channels in (4, 8, 64, 128, 136)]
    assert found == [False, True, True, True, False]
    assert not fits(jnp.zeros((0, 2, 24), "bfloat16"), 1)


@pytest.mark.fast
def test_other_derivatives_than_reverse_mode_name_the_argument_that_allows_them(calls):
    qkv = jnp.ones((1, 2, 48), jnp.bfloat16)
    with pytest.raises(TypeError, match="attention='xla'"):
        jax.jvp(partial(CUDNN.joint, heads=2), (qkv,), (qkv,))


@pytest.mark.parametrize("suffix", ["", "-fe", "-fsa", "-fdp"])
def test_a_model_computes_every_attention_through_it(suffix, calls):
    config = replace(named(f"vivit-tiny/8x2{suffix}"), heads=2)  # of 24 channels
    params, video = random_params(config), np.zeros((2, config.frames, config.height, config.width, 3), np.uint8)
    video[:] = np.random.default_rng(0).integers(0, 256, video.shape)
    given = {"dtype": "bfloat16", "frames_valid": np.array([config.frames, 1])}
    run = partial(vivit.forward, params, video, config, **given)
    if ATTACHED:
        found, expected = run(attention=CUDNN), run(attention=XLA)
        assert np.abs(found - expected).max() <= 0.05 * np.abs(expected).max()
    else:
        assert jax.eval_shape(partial(run, attention=CUDNN)).shape == (2, *config.classes)
    assert {call["implementation"] for call in calls} == {"cudnn"}


@pytest.mark.skipif(not ATTACHED, reason="cuDNN is lowered where a GPU is attached")
def test_an_exported_program_calls_cudnn():
    qkv = jnp.ones((2, 3, 5, 384), jnp.bfloat16)
    exported = jax.export.export(jax.jit(partial(CUDNN.spatial, heads=2)), platforms=["cuda"])(qkv)
    assert "cudnn" in exported.mlir_module()
