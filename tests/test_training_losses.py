"""The losses against their definitions in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from strategies import normal

from vivit.training.step import example_losses

CLASSES = (5, 3)
LOGITS = normal(0, 4, 8) * 20
SOFT = np.abs(normal(1, 4, 8))


def softmax_loss(logits, labels):
    logits, labels = logits.astype(np.float64), labels.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return -(labels * (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))).sum(axis=1)


def sigmoid_loss(logits, labels):
    logits, labels = logits.astype(np.float64), labels.astype(np.float64)
    return (np.logaddexp(0, logits) - labels * logits).mean(axis=1)


@pytest.mark.parametrize(("loss", "of_head"), [("softmax", softmax_loss), ("sigmoid", sigmoid_loss)])
@pytest.mark.parametrize("heads", ["mean", "sum"])
def test_heads_losses_are_averaged_or_summed(loss, of_head, heads):
    labels = SOFT if loss == "softmax" else (SOFT > 0.5).astype(np.float32)
    each = [of_head(LOGITS[:, part], labels[:, part]) for part in (slice(0, 5), slice(5, 8))]
    expected = sum(each) / (2 if heads == "mean" else 1)
    actual = example_losses(jnp.asarray(LOGITS), jnp.asarray(labels), CLASSES, loss=loss, heads=heads)
    np.testing.assert_allclose(actual, expected, rtol=2e-6)


def test_a_loss_is_float32_and_finite_for_extreme_logits():
    logits = jnp.asarray([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], jnp.bfloat16)
    for loss in ("softmax", "sigmoid"):
        found = example_losses(logits, jnp.asarray([[1.0, 0, 0], [1.0, 0, 0]]), (3,), loss=loss)
        assert found.dtype == jnp.float32
        assert np.isfinite(found).all()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ((4, 7), {}, r"logits are \(4, 8\) and labels \(4, 7\): both must be \[b 8\]"),
        ((4, 8), {"loss": "hinge"}, "loss is 'hinge' and heads is 'mean': they must be softmax or sigmoid"),
        ((4, 8), {"heads": "max"}, "loss is 'softmax' and heads is 'max'"),
    ],
)
def test_what_does_not_fit_is_named(labels, options, message):
    with pytest.raises(ValueError, match=message):
        example_losses(jnp.asarray(LOGITS), jnp.zeros(labels), CLASSES, **options)
