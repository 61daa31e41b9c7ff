"""The data of the interactive pictures of docs/pictures: what was recorded is true, and what was traced is there."""

import base64
import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

import vivit
from bench import pallas_calls
from vivit.demo import demo_checkpoint
from vivit.kernels import attention as kernels
from vivit.reference import models as reference
from vivit.reference.params import check, convert

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"


@pytest.fixture
def picture(monkeypatch):
    """A function from the name of one of docs/pictures to its module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def decoded(layer):
    """The weights [h r q k] of a recorded attention."""
    *outer, queries, keys = layer["shape"]
    sequences, heads = outer if len(outer) == 2 else (1, *outer)
    codes = np.frombuffer(base64.b64decode(layer["codes"]), "<u2")
    return codes.reshape(heads, sequences, queries, keys) / 65535


@pytest.fixture(scope="module")
def recording():
    """The module, and the run that it records of the demo model on 8 frames of noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        module = importlib.import_module("recording")
    model = vivit.load(demo_checkpoint())
    clip = np.random.default_rng(0).integers(0, 256, (8, 96, 96, 3), np.uint8)
    return module, model, clip, module.recorded(model, clip)


@pytest.mark.parametrize("number", range(4))
def test_recorded_weights_and_tokens_are_those_of_the_reference(number, recording):
    module, model, clip, run = recording
    params, config = module.with_weights_of(model.params, model.config, list(module.MODELS)[number])
    stages = {}
    params = convert(params, lambda path, leaf: np.asarray(leaf, np.float64))
    video = clip[np.newaxis].astype(np.float64) / 127.5 - 1
    reference.forward(params, video, config, capture=stages)
    recorded = run["models"][number]
    names = [name for name in stages if name.endswith("weights")]
    assert len(names) == len(recorded["layers"])
    for name, layer in zip(names, recorded["layers"], strict=True):
        expected = stages[name][0]
        by_head = expected.swapaxes(0, 1) if expected.ndim == 4 else expected[:, np.newaxis]
        assert np.abs(decoded(layer) - by_head).max() < 1 / 65535
        first = 2 if (number, layer["kind"]) == (3, "space") else 0  # model 4: the second half of its heads
        assert layer["heads"] == [f"Head {first + head + 1}" for head in range(len(by_head))]
        assert layer["size"] == 4 * expected.size
    last = recorded["tokens"][-1]
    shown = (np.frombuffer(base64.b64decode(last["bytes"]), np.uint8) - 128.0) / 127 * last["largest"]
    assert np.abs(shown - stages["features"][0]).max() < last["largest"] / 127
    logits = stages["logits"][0]
    assert recorded["labels"][0][0] == model.labels[0][int(logits.argmax())]
    assert recorded["labels"][0][1] == pytest.approx(float(1 / np.exp(logits - logits.max()).sum()), rel=1e-4)


def test_all_models_of_the_picture_have_the_demo_models_arrays_and_no_others(recording):
    module, model, *_ = recording
    arrays = {id(leaf) for leaf in jax.tree.leaves(model.params)}
    for name in module.MODELS:
        params, config = module.with_weights_of(model.params, model.config, name)
        check(params, config)
        assert {id(leaf) for leaf in jax.tree.leaves(params)} == arrays


def test_recorded_costs_are_those_of_the_equations(recording):
    *_, run = recording
    t, s, c, layers = 2, 64, 72, 2
    space, time = t * s**2, s * t**2
    expected = [(t * s) ** 2, space + t**2, space + time, (space + time) / 2]  # weights of one head in one layer
    for model, weights in zip(run["models"], expected, strict=True):
        assert model["products"] == layers * 2 * weights * c
        assert model["weights"] == layers * 4 * weights
        assert model["products"] < model["multiply_adds"] < model["published"]


@pytest.mark.fast
def test_the_heads_of_model_4_lie_in_the_lanes_that_the_picture_shows(picture):
    heads_of = picture("blocks").heads_of
    c, heads = 256, 4
    in_qkv = [one for one in heads_of(3 * c, c, heads, 2) if one["operand"] == "value"]
    qkv = jax.random.normal(jax.random.key(0), (1, 2, 8, 3 * c))
    assert [one["first"] for one in in_qkv] == [2 * c + d for d in range(0, c, 64)]
    attend = jax.jit(lambda qkv: kernels.factorised_dot_product(qkv, heads, interpret=True))
    out = attend(qkv)
    for value, result in zip(in_qkv, heads_of(c, c, heads, 2), strict=True):
        assert value["head"] == result["head"]
        columns = slice(value["first"], value["first"] + value["lanes"])
        changed = np.abs(attend(qkv.at[..., columns].add(1.0)) - out).max(axis=(0, 1, 2)) > 0.5
        assert np.flatnonzero(changed).tolist() == [*range(result["first"], result["first"] + result["lanes"])]


@pytest.mark.fast
def test_the_first_half_of_the_heads_has_columns_of_its_own(picture):
    found = [(one["operand"], one["head"], one["first"]) for one in picture("blocks").heads_of(384, 256, 4, 2)]
    assert found == [
        ("query", 0, 0), ("query", 1, 64), ("key", 0, 128), ("key", 1, 192), ("value", 0, 256), ("value", 1, 320),
    ]  # fmt: skip


def small(x_ref, hbm_ref, out_ref, sums_ref):
    out_ref[0] = x_ref[0] + sums_ref[0, 0]


@pytest.mark.fast
def test_traced_blocks_are_those_of_the_block_specs_step_by_step(picture):
    def attend(x):
        return pl.pallas_call(
            small,
            grid=(2, 3),
            in_specs=[pl.BlockSpec((1, 8, 128), lambda i, j: (0, j, 2 * i)), pl.BlockSpec(memory_space=pl.ANY)],
            out_specs=pl.BlockSpec((1, 8, 128), lambda i, j: (0, 0, i)),
            out_shape=jax.ShapeDtypeStruct((1, 8, 256), jnp.float32),
            scratch_shapes=[pltpu.VMEM((9, 100), jnp.float32)],
            name="small",
        )(x, x)

    blocks = picture("blocks")
    x = jax.ShapeDtypeStruct((1, 20, 3 * 256), jnp.float32)
    (equation,) = pallas_calls.equations(jax.make_jaxpr(attend)(x).jaxpr)
    call = blocks._call(blocks.Kernel("Small", attend, (20,), 256, 4), equation)
    read, hbm, written = call["operands"]
    assert (call["title"], call["grid"]) == ("Small: small", (2, 3))
    assert call["scratch"] == [dict(name="sums_ref", shape=(9, 100), bytes=16 * 128 * 4)]
    assert read["indices"] == [[0, 0, 0], [0, 1, 0], [0, 2, 0], [0, 0, 2], [0, 1, 2], [0, 2, 2]]
    assert written["indices"] == [[0, 0, 0]] * 3 + [[0, 0, 1]] * 3
    assert [one["name"] for one in call["operands"]] == ["x_ref", "hbm_ref", "out_ref"]
    assert (read["hbm"], hbm["hbm"], hbm["bytes"], hbm["indices"]) == (False, True, 0, [])
    assert (read["written"], written["written"]) == (False, True)
    assert (read["array"], read["block"], read["bytes"], read["copies"]) == ((1, 20, 768), (1, 8, 128), 4096, 2)


def test_every_kernel_of_the_picture_fits_in_vmem_and_reads_no_block_beyond_its_array(picture):
    blocks = picture("blocks")
    wanted = [
        blocks.Kernel("Model 4", kernels.factorised_dot_product, (3, 20), 256, 4, parts=2),
        blocks.Kernel("All tokens", kernels.joint, (600,), 128, 2),
    ]
    traced = blocks.traced(wanted)
    names = [call["title"].partition(": ")[2] for call in traced["calls"]]
    halves = ["temporal_forward", "spatial_forward", "temporal_backward", "spatial_backward"]
    assert names == [*halves, "flash_forward", "flash_backward"]
    for call in traced["calls"]:
        used = sum(one["copies"] * one["bytes"] for one in call["operands"]) + sum(
            one["bytes"] for one in call["scratch"]
        )
        assert 0 < used < traced["vmem"]
        for one in call["operands"]:
            starts = np.array(one["indices"]).reshape(-1, len(one["block"])) * one["block"]
            assert (starts < one["array"]).all()
            assert sum(head["lanes"] for head in one["heads"]) == one["array"][-1]


@pytest.mark.fast
def test_data_cannot_end_the_script_that_holds_it(picture):
    shown = picture("interactive").Interactive("clip", {"text": "</script><script>alert(1)</script><!--"})._repr_html_()
    assert "alert(1)" in shown
    assert shown.count("</script>") == 2  # of the data and of the code
    assert "<!--" not in shown
