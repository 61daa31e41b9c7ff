"""Targets, label smoothing and mixup against NumPy, inside jit."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import seeds
from vivit.data.mixing import mix, mixup, one_hot, smooth

HEADS = (4, 7)
JITTED = jax.jit(mixup, static_argnums=3)
classes = st.sampled_from(((5,), HEADS, (2, 3, 11)))


def random_labels(seed, classes, batch=6):
    generator = np.random.default_rng(seed)
    return np.stack([generator.integers(count, size=batch) for count in classes], axis=1)


def plain_targets(labels, classes, smoothing):
    """Row by row: 1 − ε + ε/n for the label, ε/n for the other classes of its head."""
    rows = []
    for row in labels:
        rows.append(
            [
                (1 - smoothing) * (index == label) + smoothing / count
                for label, count in zip(row, classes, strict=True)
                for index in range(count)
            ]
        )
    return np.array(rows)


@given(seeds, classes, st.sampled_from((0.0, 0.2, 0.3)))
def test_smoothed_targets_are_their_definition(seed, classes, smoothing):
    labels = random_labels(seed, classes)
    actual = smooth(one_hot(labels, classes), classes, smoothing)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, plain_targets(labels, classes, smoothing), atol=1e-6)


def test_smoothing_stays_within_its_head():
    targets = np.zeros((1, 397), np.float32)
    targets[0, 5] = 1  # a verb, and no noun
    smoothed = np.asarray(smooth(targets, (97, 300), 0.2))
    np.testing.assert_allclose(smoothed[0, :97].sum(), 1, atol=1e-6)
    assert not smoothed[0, 97:].any()


def test_a_label_that_is_missing_is_a_row_of_zeros_in_its_head():
    targets = np.asarray(one_hot(np.array([[2, -1], [-1, 3]]), HEADS))
    np.testing.assert_array_equal(targets[0], np.eye(11)[2])
    np.testing.assert_array_equal(targets[1], np.eye(11)[4 + 3])


@given(seeds, st.sampled_from(("uint8", "float32")), st.booleans())
def test_mixup_is_its_definition(seed, dtype, jit):
    generator = np.random.default_rng(seed)
    video = generator.uniform(0, 255, (5, 2, 3, 2, 3)).astype(dtype)
    targets = plain_targets(random_labels(seed, HEADS, 5), HEADS, 0.1).astype(np.float32)
    key = jax.random.key(seed)
    mixed, mixed_targets = (JITTED if jit else mixup)(key, video, targets, 0.3)

    for_weight, for_partners = jax.random.split(key)
    weight = float(jax.random.beta(for_weight, 0.3, 0.3))
    partners = np.asarray(jax.random.permutation(for_partners, 5))
    floats = video / 127.5 - 1 if dtype == "uint8" else video
    for index in range(5):
        for values, expected in ((mixed, floats), (mixed_targets, targets)):
            blend = weight * expected[index] + (1 - weight) * expected[partners[index]]
            np.testing.assert_allclose(values[index], blend, rtol=2e-6, atol=2e-6)
    assert mixed.dtype == mixed_targets.dtype == np.float32


def test_partners_are_a_permutation_and_weights_follow_the_beta_distribution():
    values = np.eye(4, dtype=np.float32)
    keys = jax.random.split(jax.random.key(0), 2000)
    mixed = jax.vmap(lambda key: mixup(key, values, values, 0.3)[1])(keys)
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(mixed.sum(axis=2), 1, atol=1e-5)
    weights = jax.vmap(lambda key: jax.random.beta(jax.random.split(key)[0], 0.3, 0.3))(keys)
    assert abs(float(weights.mean()) - 1 / 2) < 0.03
    assert abs(float(weights.var()) - 1 / (4 * 1.6)) < 0.01  # 1 / (4 (2α + 1))


def test_a_weight_of_one_keeps_the_clip_and_of_zero_takes_the_partners():
    values, partners = np.arange(12, dtype=np.float32).reshape(3, 4), np.array([2, 0, 1])
    np.testing.assert_array_equal(mix(values, np.float32(1), partners), values)
    np.testing.assert_array_equal(mix(values, np.float32(0), partners), values[partners])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(one_hot, np.zeros((3, 1), int), HEADS), r"labels is int64\[3, 1\]: .* int\[b heads\], heads = 2"),
        (partial(one_hot, np.zeros((3, 2)), HEADS), r"labels is float64\[3, 2\]: it must be int"),
        (partial(smooth, np.zeros((3, 11)), HEADS, 1.0), r"smoothing is 1.0: it must be a number from 0 to below 1"),
        (partial(smooth, np.zeros((3, 10)), HEADS, 0.1), r"targets has shape \(3, 10\): .* v = 11"),
        (partial(mixup, None, np.zeros((3, 2)), np.zeros((3, 2)), 0.0), r"alpha is 0.0: it must be positive"),
        (partial(mixup, None, np.zeros((3, 2)), np.zeros((2, 2)), 0.1), r"targets has 2 rows: it must"),
    ],
)
def test_invalid_arguments_are_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
