"""Production's attention cores against the oracle: values and gradients, both dtypes, masks, dropout, large scores."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accuracy import assert_as_accurate
from hypothesis import given
from hypothesis import strategies as st
from strategies import CORE_FAULTS, CORES, DTYPES, attention_shapes, normal, seeds

from vivit import attention, plain
from vivit.reference import attention as reference
from vivit.reference import gradients


class Problem(NamedTuple):
    """What a core is asked: sizes, a seed for the values, the scores' scale, how many keys and weights are dropped."""

    shape: tuple[int, int, int, int, int]  # b t s heads d
    seed: int = 0
    scale: float = 1.0  # 100 gives scores of ±1e4
    masked: float = 0.0
    dropped: float = 0.0

    def arrays(self, core):
        """(qkv, cotangent of out, heads, {mask, dropout}) in the core's shapes, NumPy."""
        b, t, s, heads, d = self.shape
        generator = np.random.default_rng(self.seed)
        qkv = self.scale * normal(self.seed, b, t, s, 3 * heads * d)
        out = normal(self.seed + 1, b, t, s, heads * d)
        mask = generator.random((b, t, s)) >= self.masked
        if core == "joint":
            qkv, out, mask = (part.reshape(b, t * s, *part.shape[3:]) for part in (qkv, out, mask))
        per_axis = heads // 2 if core == "factorised_dot_product" else heads

        def multiplier(*shape):
            return np.float32((generator.random(shape) >= self.dropped) / (1 - self.dropped))

        over_time, over_space = multiplier(b, s, per_axis, t, t), multiplier(b, t, per_axis, s, s)
        dropout = {
            "joint": multiplier(b, heads, t * s, t * s),
            "spatial": over_space,
            "temporal": over_time,
            "factorised_dot_product": (over_time, over_space),
        }[core]
        return qkv, out, heads, {"mask": mask, "dropout": dropout}


problems = st.builds(
    Problem,
    attention_shapes,
    seeds,
    st.sampled_from((1.0, 100.0)),
    st.sampled_from((0.0, 0.3, 1.0)),
    st.sampled_from((0.0, 0.25)),
)


def value_and_gradient(module, core, dtype, qkv, out, heads, options):
    """(core(qkv), cotangent of qkv), compiled."""

    @jax.jit
    def both(qkv, out, options):
        value, pull = jax.vjp(lambda qkv: getattr(module, core)(qkv, heads, **options), qkv)
        return value, *pull(out)

    results = both(jnp.asarray(qkv, dtype), jnp.asarray(out, dtype), jax.tree.map(jnp.asarray, options))
    assert all(result.dtype == dtype for result in results)
    return results


def assert_accurate(core, dtype, qkv, out, heads, options):
    actual, yardstick = (value_and_gradient(m, core, dtype, qkv, out, heads, options) for m in (attention, plain))
    exact = [np.float64(values) for values in (qkv, out)]
    expected = (
        getattr(reference, core)(exact[0], heads, **options),
        getattr(gradients, f"{core}_vjp")(*exact, heads, **options),
    )
    query, key, _ = reference.split(exact[0], heads)
    tokens, d = query.shape[0] * query[0, ..., 0, 0].size, query.shape[-1]
    scores = np.einsum("qhd,khd->hqk", query.reshape(tokens, heads, d), key.reshape(tokens, heads, d)) / np.sqrt(d)
    condition = max(1.0, np.abs(scores).max())
    for what, *results in zip(("value", "gradient"), actual, yardstick, expected, strict=True):
        assert_as_accurate(*results, dtype, what, condition=condition)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("core", CORES)
@given(problem=problems)
def test_every_core_and_its_gradient_are_as_accurate_as_the_plain_formulation(core, problem, dtype):
    assert_accurate(core, dtype, *problem.arrays(core))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("core", CORES)
def test_every_core_is_as_accurate_without_mask_and_dropout(core, dtype):
    qkv, out, heads, _ = Problem((2, 3, 5, 4, 7)).arrays(core)
    assert_accurate(core, dtype, qkv, out, heads, {"mask": None, "dropout": None})


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("group", [1, 77, 1000])
def test_rows_in_groups_give_what_rows_at_once_give(core, group, monkeypatch):
    qkv, out, heads, options = Problem((2, 3, 5, 4, 7), masked=0.3, dropped=0.25).arrays(core)
    at_once = value_and_gradient(attention, core, "float32", qkv, out, heads, options)
    monkeypatch.setattr(attention, "GROUP_SCORES", group)
    in_groups = value_and_gradient(attention, core, "float32", qkv, out, heads, options)
    for one, other in zip(at_once, in_groups, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("group", [1, 2**23])
def test_dropout_drawn_in_the_core_is_the_dropout_given_to_it(core, group, monkeypatch):
    monkeypatch.setattr(attention, "GROUP_SCORES", group)
    qkv, out, heads, options = Problem((2, 3, 5, 4, 7), seed=3).arrays(core)
    drawn = attention.Dropout(jax.random.key(6), 0.4)
    if core == "factorised_dot_product":
        halves = zip(attention.halve_dropout(drawn), options["dropout"], strict=True)
        full = tuple(half.all_multipliers(like.shape) for half, like in halves)
    else:
        full = drawn.all_multipliers(options["dropout"].shape)
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

    ours, yardstick = (jax.grad(loss, argnums=1)(module, jnp.asarray(qkv)) for module in (attention, plain))
    np.testing.assert_allclose(ours, yardstick, rtol=0, atol=1e-5 * np.abs(yardstick).max())


def test_a_long_joint_attention_never_holds_all_its_weights():
    def peak(core, qkv, heads):
        compiled = jax.jit(jax.grad(lambda x: core(x, heads).sum())).lower(qkv).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    heads, n = 4, 2999
    qkv = jax.ShapeDtypeStruct((1, n, 3 * heads * 8), jnp.float32)
    all_weights = 4 * heads * n * n
    assert peak(attention.joint, qkv, heads) < all_weights
    assert peak(plain.joint, qkv, heads) > all_weights


@pytest.mark.parametrize(("core", "shape", "heads", "mask", "message"), CORE_FAULTS)
def test_what_does_not_fit_is_refused(core, shape, heads, mask, message):
    mask = None if mask is None else jnp.ones(mask, bool)
    with pytest.raises(ValueError, match=message):
        getattr(attention, core)(jnp.zeros(shape), heads, mask=mask)
