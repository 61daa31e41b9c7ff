"""The oracle and production against results of published implementations (fixtures/)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accuracy import assert_as_accurate, assert_same
from published import NAMES, hugging_face, published
from trees import replaced

import vivit
from vivit.audit import baseline
from vivit.audit.bound import depth_of
from vivit.reference import models
from vivit.reference.params import convert, leaves

STAGES = {  # our names for the published ones
    "tokens": "embedding",
    "encoder/tokens": "Transformer/posembed_input",
    "encoder/{}/out": "Transformer/encoderblock_{}",
    "encoder/norm": "Transformer/encoder_norm",
    "temporal_encoder/tokens": "TemporalTransformer/posembed_input",
    "temporal_encoder/{}/out": "TemporalTransformer/encoderblock_{}",
    "temporal_encoder/norm": "TemporalTransformer/encoder_norm",
}


@pytest.mark.fast
@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_gives_the_published_logits(name):
    fixture = published(name)
    logits = models.forward(fixture.params, fixture.arrays["input"], fixture.config)
    assert_same(logits, fixture.arrays["logits_f64"], 1e-9)


@pytest.mark.fast
@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_gives_every_published_stage(name):
    fixture = published(name)
    capture = {}
    models.forward(fixture.params, fixture.arrays["input"], fixture.config, capture=capture)
    capture |= {"pre_logits": capture["prelogits"]}
    compared = 0
    for ours, theirs in STAGES.items():
        for index in range(3) if "{}" in ours else ("",):
            key = f"act/{theirs.format(index)}"
            if key in fixture.arrays:
                expected = fixture.arrays[key]
                assert_same(capture[ours.format(index)].reshape(expected.shape), expected, 3e-6)  # they are float32
                compared += 1
    assert_same(capture["prelogits"], fixture.arrays["pre_logits"], 3e-6)
    assert compared == sum(key.startswith("act/") for key in fixture.arrays) - ("act/Transformer" in fixture.arrays) - (
        "act/TemporalTransformer" in fixture.arrays
    )  # those two repeat the stage before


def cross_entropy(logits, label):
    """Averaged over the batch; works on NumPy and JAX arrays."""
    return (np.log(np.exp(logits).sum(-1)) - (logits * label).sum(-1)).mean()


@pytest.mark.fast
@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_has_the_published_gradients(name):
    fixture = published(name)
    video, label = fixture.arrays["input"], np.float64(fixture.arrays["label"])
    gradients = dict(leaves(fixture.tree("grads")))
    assert_same(
        cross_entropy(models.forward(fixture.params, video, fixture.config), label), fixture.arrays["loss"], 1e-6
    )
    generator = np.random.default_rng(0)
    step = 1e-5
    for path, leaf in leaves(fixture.params):
        direction = generator.standard_normal(gradients[path].shape)

        def loss(size, path=path, leaf=leaf, direction=direction):
            params = replaced(fixture.params, path, leaf + size * direction)
            return cross_entropy(models.forward(params, video, fixture.config), label)

        slope = (loss(step) - loss(-step)) / (2 * step)
        expected = (gradients[path] * direction).sum()
        scale = np.abs(gradients[path] * direction).sum()
        assert abs(slope - expected) <= 1e-5 * scale, f"{path}: slope {slope}, published gradient gives {expected}"


@pytest.mark.parametrize("name", NAMES)
def test_production_has_the_published_gradients(name):
    fixture = published(name)
    params = convert(fixture.params, lambda _, leaf: jnp.asarray(leaf, jnp.float32))
    label = jnp.asarray(fixture.arrays["label"])

    def loss(params):
        logits = vivit.forward(params, fixture.arrays["input"], fixture.config)
        return -(jax.nn.log_softmax(logits) * label).sum(-1).mean()

    gradients = dict(leaves(jax.grad(loss)(params)))
    for path, expected in leaves(fixture.tree("grads")):
        assert_same(gradients[path], expected, 1e-5)  # both are float32


@pytest.mark.fast
@pytest.mark.parametrize("name", NAMES)
def test_production_gives_the_published_logits(name):
    fixture = published(name)
    params = convert(fixture.params, lambda _, leaf: jnp.asarray(leaf, jnp.float32))
    logits = vivit.forward(params, fixture.arrays["input"], fixture.config)
    yardstick = baseline.forward(params, fixture.arrays["input"], fixture.config)
    assert_as_accurate(logits, yardstick, fixture.arrays["logits_f64"], "float32", depth=depth_of(fixture.config))


@pytest.mark.fast
def test_the_oracle_gives_the_pytorch_ports_logits_hidden_states_and_attention():
    config, params, arrays = hugging_face()
    capture = {}
    logits = models.forward(params, arrays["video"], config, capture=capture)
    assert_same(logits, arrays["logits_f64"], 1e-6)  # the port writes √(2/π) with ten digits
    states = ["encoder/tokens", *(f"encoder/{index}/out" for index in range(config.layers))]
    for index, state in enumerate(states):
        assert_same(capture[state], arrays[f"hidden_{index}_f64"], 1e-6)
    for index in range(config.layers):
        assert_same(capture[f"encoder/{index}/weights"], arrays[f"attn_{index}"], 1e-5)
