"""The step over a mesh of 8 devices is the step on one: loss, gradient and parameters of each of the four models."""

import os
from dataclasses import replace

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # tests run in several processes

import jax
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, PartitionSpec
from strategies import mostly_thorough, random_params, small
from training import DROPS, STEPS, assert_same, examples, small_recipe, taken

import vivit
from bench.collectives import collectives
from bench.scale import compiled
from vivit.ops import XLA
from vivit.reference.config import named
from vivit.reference.params import leaves, shapes
from vivit.training.sharding import check_mesh, local_rows, make_mesh, shard_state, specs
from vivit.training.step import init_state, make_step
from vivit.training.tensor_parallel import sharded

# 4 time indices of 8 tokens, 4 heads in every encoder; the class token makes 33 tokens, which no mesh divides
SIZES = dict(frames=8, height=12, width=14, tubelet=(2, 3, 7), channels=48, heads=4, hidden=32, layers=2)
SIZES |= dict(temporal_layers=1, temporal_heads=2, temporal_hidden=16)

SLICES = mostly_thorough([("v3:2x2", "", (2, 2, 2)), ("v5e:2x2", "-fsa", (1, 2, 2))], ("v3:2x2", "", (2, 2, 2)))


def devices(*shape: int) -> Mesh:
    return make_mesh(*shape, devices=jax.devices()[: int(np.prod(shape))])


@pytest.mark.parametrize(
    ("model", "shape", "fields", "sizes"),
    [
        ("spatio_temporal", (2, 2, 2), DROPS, {}),
        ("factorised_encoder", (2, 2, 2), {"accumulation": 2, "freeze": ("embedding/*",), "ema_decay": 0.9}, {}),
        ("factorised_self_attention", (1, 4, 2), DROPS, {}),
        pytest.param("factorised_dot_product", (2, 2, 2), DROPS, {"pooling": "max"}, marks=pytest.mark.thorough),
        pytest.param("factorised_dot_product", (8, 1, 1), {"remat": "lean"}, {}, marks=pytest.mark.thorough),
    ],
)
def test_a_step_over_a_mesh_is_the_step_on_one_device(model, shape, fields, sizes):
    config, recipe = small(model, **SIZES, **sizes), small_recipe(**fields)
    batches = [examples(config), examples(config, 1)]
    one, expected = taken(config, recipe, *batches)
    state, metrics = taken(config, recipe, *batches, mesh=devices(*shape))
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(float(value), rel=2e-6), name
    assert_same(state.params, one.params)
    if recipe.ema_decay is not None:
        assert_same(state.ema, one.ema)


def test_every_large_leaf_and_its_state_is_split_over_all_devices():
    config, recipe, mesh = named("vivit-tiny/8x2-fe"), small_recipe(optimiser="adamw"), devices(2, 1, 4)
    state = shard_state(init_state(random_params(config), config, recipe, STEPS), config, mesh)
    for leaf in jax.tree.leaves(state):
        if leaf.size > 1000:  # not biases and norms
            assert leaf.addressable_shards[0].data.size * 8 == leaf.size
    found = dict(leaves(specs(config, mesh)))
    assert found["encoder/blocks/attention/qkv/kernel"] == PartitionSpec(None, ("data", "sequence", "model"), None)
    assert found["encoder/blocks/mlp/hidden/kernel"] == PartitionSpec(None, ("data", "sequence"), "model")
    assert found["encoder/norm/scale"] == PartitionSpec()


@pytest.mark.parametrize(("chip", "model", "shape"), SLICES)
def test_the_step_compiles_for_a_slice_of_tpus_with_its_kernels_and_gathers_own_heads_only(chip, model, shape):
    config = replace(named("vivit-tiny/8x2" + model), layers=2)
    topology = topologies.get_topology_desc(platform="tpu", topology_name=chip)
    recipe = small_recipe(accumulation=2, remat="lean")
    text = compiled(config, recipe, make_mesh(*shape, devices=topology.devices)).as_text()
    assert "tpu_custom_call" in text
    traffic = collectives(text)
    blocks = sum(leaf.size for path, leaf in leaves(shapes(config)) if "/blocks/" in path and path.endswith("kernel"))
    ends = sum(leaf.size for path, leaf in leaves(shapes(config)) if "/blocks/" not in path)
    # of two parts of the batch, forward and again backward: half of a layer's weights on each device of the model axis
    assert traffic.bytes["all-gather"] <= 4 * (2 * 2 * blocks / 2 + 3 * ends)
    assert traffic.bytes["all-to-all"] > 0


def test_an_axis_that_does_not_divide_is_split_over_fewer_devices():
    config = small("spatio_temporal", **{**SIZES, "channels": 36})  # 36 divides by 4, not by 8
    found = dict(leaves(specs(config, devices(2, 2, 2))))
    assert found["encoder/blocks/attention/qkv/kernel"] == PartitionSpec(None, ("sequence", "model"), None)
    assert found["encoder/blocks/mlp/out/kernel"] == PartitionSpec(None, "model", ("data", "sequence"))


@pytest.mark.parametrize(
    ("model", "shape", "fields", "message"),
    [
        ("spatio_temporal", (1, 1, 8), {}, "heads is 4: it must be a multiple of 8, for a model axis of 8"),
        (
            "spatio_temporal",
            (1, 4, 2),
            {},
            "heads is 4: it must be a multiple of the model and sequence axes together, 8",
        ),
        ("factorised_encoder", (1, 1, 4), {}, "temporal_heads is 2: it must be a multiple of 4, for a model axis of 4"),
        ("factorised_dot_product", (1, 1, 4), {}, "heads is 4: it must be a multiple of 8, for a model axis of 4"),
        (
            "factorised_self_attention",
            (1, 1, 2),
            {"hidden": 33},
            "hidden is 33: it must be a multiple of the model axis, 2",
        ),
        (
            "factorised_encoder",
            (1, 8, 1),
            {},
            "the clip has 4 time indices: they must be a multiple of the sequence axis",
        ),
        (
            "factorised_dot_product",
            (1, 4, 1),
            {"height": 9},
            "a time index has 6 tokens: they must be a multiple of the",
        ),
        (
            "spatio_temporal",
            (8, 1, 1),
            {},
            "4 examples are computed at once: they must be a multiple of the data",
        ),
    ],
)
def test_work_that_does_not_divide_is_named(model, shape, fields, message):
    with pytest.raises(ValueError, match=message):
        check_mesh(small(model, **{**SIZES, **fields}), devices(*shape), examples=4)


def test_other_meshes_and_batches_are_refused():
    with pytest.raises(ValueError, match="the mesh is 3x1x1: it must take all of the 8 devices"):
        make_mesh(3)
    config = small("spatio_temporal", **SIZES)
    with pytest.raises(ValueError, match=r"the mesh has axes \('b',\): they must be"):
        make_step(config, small_recipe(), STEPS, mesh=Mesh(np.array(jax.devices()), ("b",)))
    with pytest.raises(ValueError, match="batch_size is 12: it must be a multiple of the data axis, 8"):
        local_rows(12, devices(8, 1, 1))
    assert local_rows(16, devices(8, 1, 1)) == slice(0, 16)  # one process reads all
    ops = sharded(XLA, devices(2, 1, 1), config)
    with pytest.raises(ValueError, match="capture is given: it must be None where the model is split"):
        vivit.forward(random_params(config), examples(config).video, config, capture={}, attention=ops)
