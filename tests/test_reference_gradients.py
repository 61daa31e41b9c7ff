"""The hand-written vector-Jacobian products against finite differences of the forward functions."""

from dataclasses import replace

import numpy as np
import pytest
from strategies import CORES, SMALL, normal, random_params
from trees import replaced

from vivit.reference import attention, encoder, gradients, layers
from vivit.reference.params import convert, layer, leaves

pytestmark = pytest.mark.fast

STEP = 1e-5


def assert_slopes(function, at, cotangent_of_at, out_cotangent, seed=0):
    """Asserts that ⟨cotangent, direction⟩ is the slope of ⟨out_cotangent, function⟩ in each of eight directions."""
    assert cotangent_of_at.shape == at.shape
    generator = np.random.default_rng(seed)
    for _ in range(8):
        direction = generator.standard_normal(at.shape)
        plus, minus = function(at + STEP * direction), function(at - STEP * direction)
        slope = ((plus - minus) * out_cotangent).sum() / (2 * STEP)
        expected = (cotangent_of_at * direction).sum()
        scale = np.abs(cotangent_of_at * direction).sum()
        assert abs(slope - expected) <= 1e-8 * scale, f"slope {slope}, product {expected}"


def inputs(core, masked, dropped):
    b, t, s, heads, d = 2, 3, 5, 4, 6
    shape = (b, t * s) if core == "joint" else (b, t, s)
    qkv, out = (np.asarray(normal(i, *shape, n * heads * d), np.float64) for i, n in ((0, 3), (1, 1)))
    mask = None
    if masked:
        mask = np.random.default_rng(2).random((b, t, s)) < 0.6
        mask[0, 1], mask[1, :, 3] = False, False
        mask = mask.reshape(shape)
    per_axis = heads // 2 if core == "factorised_dot_product" else heads
    over_time, over_space = normal(3, b, s, per_axis, t, t), normal(4, b, t, per_axis, s, s)
    dropout = {
        "joint": normal(5, b, heads, t * s, t * s),
        "spatial": over_space,
        "temporal": over_time,
        "factorised_dot_product": (over_time, over_space),
    }[core]
    return qkv, out, heads, {"mask": mask, "dropout": dropout if dropped else None}


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(("masked", "dropped"), [(False, False), (True, False), (True, True)])
def test_every_core_has_the_slope_of_finite_differences(core, masked, dropped):
    qkv, out, heads, options = inputs(core, masked, dropped)
    cotangent = getattr(gradients, f"{core}_vjp")(qkv, out, heads, **options)
    assert cotangent.shape == qkv.shape
    assert_slopes(lambda x: getattr(attention, core)(x, heads, **options), qkv, cotangent, out)


@pytest.mark.parametrize("core", CORES)
def test_nothing_flows_into_masked_keys_and_values(core):
    qkv, out, heads, options = inputs(core, masked=True, dropped=False)
    cotangent = getattr(gradients, f"{core}_vjp")(qkv, out, heads, **options)
    c = out.shape[-1]
    assert not cotangent[~options["mask"]][:, c:].any()
    assert cotangent[options["mask"]][:, c:].any()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("order", ["time_space", "space_time"])
def test_factorised_self_attention_has_the_slope_of_finite_differences_in_tokens_and_every_parameter(order, masked):
    config = replace(SMALL, model="factorised_self_attention", pooling="mean", order=order)
    params = layer(convert(random_params(config).encoder.blocks, lambda _, leaf: np.float64(leaf)), 1)
    tokens, out = np.float64(normal(6, 2, 3, 5, config.channels)), np.float64(normal(7, 2, 3, 5, config.channels))

    mask = np.random.default_rng(8).random((2, 3, 5)) < 0.6 if masked else None

    def forward(tokens, params):
        return encoder.factorised_self_attention(tokens, params, None, None, config=config, mask=mask)

    through, parts = gradients.factorised_self_attention_vjp(tokens, params, out, config=config, mask=mask)
    assert_slopes(lambda x: forward(x, params), tokens, through, out)
    for part, cotangents in parts.items():
        for path, cotangent in leaves(cotangents):

            def moved(value, part=part, path=path):
                return forward(tokens, params._replace(**{part: replaced(getattr(params, part), path, value)}))

            assert_slopes(moved, dict(leaves(getattr(params, part)))[path], cotangent, out)
    assert set(parts) == {"time_norm", "time_attention", "space_norm", "space_attention"}


@pytest.mark.parametrize("form", ["tanh", "erf"])
def test_the_branch_of_the_mlp_has_the_slope_of_finite_differences_in_tokens_and_every_parameter(form):
    config = replace(SMALL, gelu=form)
    block = layer(convert(random_params(config).encoder.blocks, lambda _, leaf: np.float64(leaf)), 1)
    tokens, out = np.float64(normal(6, 2, 3, config.channels)), np.float64(normal(7, 2, 3, config.channels))

    def forward(tokens, norm, mlp):
        return layers.mlp(layers.layer_norm(tokens, norm, config.epsilon), mlp, form)

    params = (block.mlp_norm, block.mlp)
    through, *cotangents = gradients.mlp_branch_vjp(tokens, *params, form, config.epsilon, out)
    assert_slopes(lambda x: forward(x, *params), tokens, through, out)
    for index, part in enumerate(cotangents):
        for path, cotangent in leaves(part):

            def moved(value, index=index, path=path):
                changed = replaced(params[index], path, value)
                return forward(tokens, *(changed if i == index else part for i, part in enumerate(params)))

            assert_slopes(moved, dict(leaves(params[index]))[path], cotangent, out)
