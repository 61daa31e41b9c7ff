"""What tests/test_conformance.py does not try of XLA's attention: dropout, forward mode, groups of rows, capture."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cores import Problem, assert_accurate, compiled, problems, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import CORE_FAULTS, CORES, DTYPES, attention_shapes, mostly_thorough, normal

from vivit import attention
from vivit.audit import baseline
from vivit.conformance.quickly import QUICKLY
from vivit.dropout import all_weights, weights_shape
from vivit.reference import attention as reference
from vivit.reference import gradients

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize("core", CORES)
@settings(max_examples=9)
@given(problem=problems(attention_shapes), dtype=st.sampled_from(DTYPES))
def test_every_core_and_its_gradient_under_dropout_are_as_accurate_as_the_plain_formulation(core, problem, dtype):
    assert_accurate(attention, core, dtype, *problem.arrays(core))


@cache
def tangent(core, heads):
    """((qkv, dropout), their changes, mask) → the change of core(qkv), compiled once for each shape."""

    @partial(jax.jit, compiler_options=QUICKLY)
    def forward_mode(values, changes, mask):
        return jax.jvp(lambda qkv, dropout: core(qkv, heads, mask=mask, dropout=dropout), values, changes)[1]

    return forward_mode


@pytest.mark.parametrize("core", CORES)
@given(problem=problems(attention_shapes))
def test_the_slope_in_any_direction_of_tokens_and_dropout_is_the_references(core, problem):
    problem = problem._replace(scale=1.0)
    qkv, out, heads, options = problem.arrays(core)
    direction, _, _, other = problem._replace(seed=problem.seed + 2, masked=0.0, dropped=0.5).arrays(core)
    mask, dropout, change = options["mask"], options["dropout"], other["dropout"]

    arguments = jax.tree.map(jnp.asarray, ((qkv, dropout), (direction, change), mask))
    found = np.float64(tangent(getattr(attention, core), heads)(*arguments)) * out
    exact, directed = np.float64(qkv), np.float64(direction)
    gradient = getattr(gradients, f"{core}_vjp")(exact, np.float64(out), heads, mask=mask, dropout=dropout) * directed
    through_dropout = getattr(reference, core)(exact, heads, mask=mask, dropout=change) * out  # out is linear in it
    terms = np.abs(gradient).sum() + np.abs(through_dropout).sum()
    assert abs(found.sum() - gradient.sum() - through_dropout.sum()) <= 1e-5 * terms


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("group", mostly_thorough([1, 77, 1000], 77))
def test_rows_in_groups_give_what_rows_at_once_give(core, group, monkeypatch):
    qkv, out, heads, options = Problem((2, 3, 5, 4, 7), masked=0.3, dropped=0.25).arrays(core)
    at_once = value_and_gradient(attention, core, "float32", qkv, out, heads, options)
    monkeypatch.setattr(attention, "GROUP_SCORES", group)
    compiled.cache_clear()
    in_groups = value_and_gradient(attention, core, "float32", qkv, out, heads, options)
    for one, other in zip(at_once, in_groups, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("group", mostly_thorough([1, 2**23], 1))
def test_dropout_drawn_in_the_core_is_the_dropout_given_to_it(core, group, monkeypatch):
    monkeypatch.setattr(attention, "GROUP_SCORES", group)
    compiled.cache_clear()
    qkv, out, heads, _ = Problem((2, 3, 5, 4, 7), seed=3).arrays(core)
    batch = qkv.shape[0]
    drawn = attention.Dropout(jax.random.randint(jax.random.key(6), (batch, heads, 2), -(2**31), 2**31 - 1), 0.4)
    full = all_weights(drawn, weights_shape(core, qkv.shape[:-1], heads))
    ours, same = (
        value_and_gradient(attention, core, "float32", qkv, out, heads, {"mask": None, "dropout": dropout})
        for dropout in (drawn, full)
    )
    for one, other in zip(ours, same, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)
    kept = np.concatenate([np.ravel(part) for part in jax.tree.leaves(full)])
    assert set(np.round(kept, 5)) == {0.0, np.round(np.float32(1 / 0.6), 5)}
    assert abs((kept > 0).mean() - 0.6) < 0.1


def test_weights_are_captured_with_and_without_groups(monkeypatch):
    qkv = jnp.asarray(normal(7, 2, 11, 3 * 3 * 5))
    captures = []
    for group in (1, 2**23):
        monkeypatch.setattr(attention, "GROUP_SCORES", group)
        captures.append({})
        attention.joint(qkv, 3, capture=captures[-1])
    expected = {}
    reference.joint(np.float64(qkv), 3, capture=expected)
    for capture in captures:
        np.testing.assert_allclose(capture["weights"], expected["weights"], rtol=0, atol=1e-6)


def test_gradients_flow_through_captured_weights_too():
    qkv, want, heads, _ = Problem((2, 3, 5, 4, 7), seed=8).arrays("spatial")

    def loss(module, qkv):
        capture = {}
        out = module.spatial(qkv, heads, capture=capture)
        return (out * want).sum() + jnp.sin(9 * capture["space_weights"]).sum()

    ours, yardstick = (jax.grad(loss, argnums=1)(module, jnp.asarray(qkv)) for module in (attention, baseline))
    np.testing.assert_allclose(ours, yardstick, rtol=0, atol=1e-5 * np.abs(yardstick).max())


def test_a_long_joint_attention_never_holds_all_its_weights():
    def peak(core, qkv, heads):
        compiled = jax.jit(jax.grad(lambda x: core(x, heads).sum())).lower(qkv).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    heads, n = 4, 2999
    qkv = jax.ShapeDtypeStruct((1, n, 3 * heads * 8), jnp.float32)
    all_weights = 4 * heads * n * n
    assert peak(attention.joint, qkv, heads) < all_weights
    assert peak(baseline.joint, qkv, heads) > all_weights


@pytest.mark.fast
@pytest.mark.parametrize(("core", "shape", "heads", "mask", "message"), CORE_FAULTS)
def test_invalid_arguments_are_rejected(core, shape, heads, mask, message):
    mask = None if mask is None else jnp.ones(mask, bool)
    with pytest.raises(ValueError, match=message):
        getattr(attention, core)(jnp.zeros(shape), heads, mask=mask)
