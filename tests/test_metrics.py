"""Metrics against numbers made by hand, plain loops and scikit-learn; undefined values are left out and counted."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivit.inference import metrics

pytestmark = pytest.mark.fast

SEEDS = st.integers(0, 2**32 - 1)


def one_hot(numbers, v):
    return np.eye(v)[np.asarray(numbers)]


def drawn(seed, n, classes, *, coarse):
    """Logits, of few different values if coarse so that many are equal, and a label a head."""
    generator = np.random.default_rng(seed)
    logits = generator.standard_normal((n, sum(classes)))
    logits = np.round(logits) if coarse else logits
    return logits, [generator.integers(0, v, n) for v in classes]


def names_of(classes):
    return [[f"class {number}" for number in range(v)] for v in classes]


def preferred(values):
    """Numbers by falling value, equal ones in order."""
    return sorted(range(len(values)), key=lambda number: (-values[number], number))


def test_numbers_made_by_hand():
    logits = np.array([[3.0, 1, 2], [1, 3, 2], [1, 2, 3], [3, 2, 1]])
    labels = one_hot([0, 0, 2, 1], 3)
    assert metrics.top_k(logits, labels, 1) == 0.5
    assert metrics.top_k(logits, labels, 2) == 0.75
    assert metrics.confusion(logits, labels).tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert metrics.per_class_accuracy(metrics.confusion(logits, labels)).tolist() == [0.5, 0, 1]
    # positives come 1st and 3rd of 4: (1/1 + 2/3) / 2
    assert metrics.average_precision(np.array([9.0, 8, 7, 6]), np.array([1, 0, 1, 0]) > 0) == pytest.approx(5 / 6)
    # two of equal score are found together: precision 1/2 for all the recall
    assert metrics.average_precision(np.array([5.0, 5, 1]), np.array([0, 1, 0]) > 0) == 0.5
    assert metrics.average_precision(np.array([5.0, 5, 1]), np.array([1, 0, 0]) > 0) == 0.5


@given(SEEDS, st.booleans())
def test_accuracies_equal_loops_and_scikit_learn(seed, coarse):
    sk = pytest.importorskip("sklearn.metrics")
    logits, (numbers,) = drawn(seed, 29, (7,), coarse=coarse)
    labels = one_hot(numbers, 7)
    for k in (1, 5):
        hits = [number in preferred(row)[:k] for row, number in zip(logits, numbers, strict=True)]
        assert metrics.top_k(logits, labels, k) == pytest.approx(np.mean(hits))
    if not coarse:
        assert metrics.top_k(logits, labels, 5) == pytest.approx(
            sk.top_k_accuracy_score(numbers, logits, k=5, labels=range(7))
        )
    counts = metrics.confusion(logits, labels)
    assert np.array_equal(counts, sk.confusion_matrix(numbers, logits.argmax(1), labels=range(7)))
    recalls = [(logits.argmax(1) == v)[numbers == v].mean() if (numbers == v).any() else np.nan for v in range(7)]
    np.testing.assert_allclose(metrics.per_class_accuracy(counts), recalls)
    assert metrics.mean(metrics.per_class_accuracy(counts)) == pytest.approx(np.nanmean(recalls))


@given(SEEDS, st.sampled_from([(5, 3), (2, 7), (3, 2, 5)]), st.sampled_from([1, 5]), st.booleans())
def test_actions_equal_the_best_of_the_whole_outer_product(seed, classes, k, coarse):
    logits, numbers = drawn(seed, 17, classes, coarse=coarse)
    labels = np.concatenate([one_hot(own, v) for own, v in zip(numbers, classes, strict=True)], axis=1)
    hits = []
    for example, truth in enumerate(zip(*numbers, strict=True)):
        heads = [np.exp(head[example]) / np.exp(head[example]).sum() for head in metrics.split_heads(logits, classes)]
        actions = list(itertools.product(*map(range, classes)))
        # rounded: what is equal in the sum of logits differs in the last digit of a product of quotients
        products = [np.prod([head[c] for head, c in zip(heads, action, strict=True)]) for action in actions]
        scores = np.log(products).round(9)
        hits.append(truth in [actions[place] for place in preferred(scores)[:k]])
    assert metrics.action_accuracy(logits, labels, classes, k) == pytest.approx(np.mean(hits))


def test_actions_of_many_classes_take_little_memory():
    logits, numbers = drawn(0, 500, (3000, 4000), coarse=False)  # all pairs at once would be 48 GB
    labels = np.concatenate([one_hot(own, v) for own, v in zip(numbers, (3000, 4000), strict=True)], axis=1)
    logits += 20 * labels
    assert metrics.action_accuracy(logits, labels, (3000, 4000), 5) == 1


@given(SEEDS, st.booleans())
def test_average_precision_equals_scikit_learns_with_and_without_ties(seed, coarse):
    sk = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(seed)
    logits = generator.standard_normal((23, 5))
    logits = np.round(logits) if coarse else logits
    labels = (generator.random((23, 5)) < 0.3).astype(np.float32)
    labels[:, 2] = 0
    found = metrics.average_precisions(logits, labels)
    assert np.isnan(found[2])
    expected = [sk.average_precision_score(labels[:, v], logits[:, v]) for v in range(5) if labels[:, v].any()]
    np.testing.assert_allclose(found[labels.any(0)], expected, rtol=1e-12)


def test_a_report_of_two_heads_is_plain_json_and_leaves_out_classes_without_examples():
    classes = (4, 6)
    logits, numbers = drawn(1, 31, classes, coarse=False)
    numbers[0] %= 3
    labels = np.concatenate([one_hot(own, v) for own, v in zip(numbers, classes, strict=True)], axis=1)
    found = metrics.report(logits, labels, classes, names_of(classes), heads=("verb", "noun"))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    verb, noun = found["heads"]["verb"], found["heads"]["noun"]
    assert verb["classes_without_examples"] == 1
    assert verb["per_class"][3] == {"name": "class 3", "examples": 0, "accuracy": None}
    assert verb["mean_class_accuracy"] == pytest.approx(np.mean([one["accuracy"] for one in verb["per_class"][:3]]))
    assert np.sum(verb["confusion"]) == found["examples"] == 31
    assert "top_5" not in verb  # of four classes it would be 1
    assert verb["top_1"] == metrics.top_k(logits[:, :4], labels[:, :4], 1)
    assert noun["top_5"] == metrics.top_k(logits[:, 4:], labels[:, 4:], 5)
    assert found["action"] == {f"top_{k}": metrics.action_accuracy(logits, labels, classes, k) for k in (1, 5)}
    assert set(metrics.scalars(found)) == {
        *("verb/top_1", "verb/mean_class_accuracy", "noun/top_1", "noun/top_5", "noun/mean_class_accuracy"),
        *("action/top_1", "action/top_5"),
    }


def test_a_multi_label_report_counts_classes_without_positives():
    logits = np.array([[2.0, 0, 1], [1, 1, 1], [0, 2, 1]])
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])
    found = metrics.report(logits, labels, (3,), [["a", "b", "c"]], multi_label=True)
    assert found["heads"]["label"]["per_class"] == [
        {"name": "a", "positives": 2, "average_precision": 1.0},
        {"name": "b", "positives": 1, "average_precision": 0.5},
        {"name": "c", "positives": 0, "average_precision": None},
    ]
    assert found["map"] == found["heads"]["label"]["map"] == 0.75
    assert found["heads"]["label"]["classes_without_positives"] == 1
    assert metrics.scalars(found) == {"map": 0.75}
    empty = metrics.report(logits, 0 * labels, (3,), [["a", "b", "c"]], multi_label=True)
    assert empty["map"] is None


def test_a_head_of_zeros_is_right_for_its_first_class_only():
    labels = one_hot([0, 1, 2, 3, 4, 5, 6], 7)
    found = metrics.report(np.zeros((7, 7)), labels, (7,), names_of((7,)))["heads"]["label"]
    assert (found["top_1"], found["top_5"]) == pytest.approx((1 / 7, 5 / 7))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(logits=np.zeros((2, 4))), r"logits has shape \(2, 4\): it must be \(examples, 3\)"),
        (dict(logits=np.zeros((0, 3))), r"logits has shape \(0, 3\): it must be"),
        (dict(logits=np.zeros((3, 3))), "labels has 2 rows: it must have 3, as logits has"),
        (dict(logits=np.array([[0, 0, 0], [0, np.nan, 0]])), "logits has NaN or infinity in row 1"),
        (dict(labels=np.full((2, 3), 0.5)), "labels has 0.5: it must be 0 or 1"),
        (dict(labels=np.ones((2, 3))), "labels has a row that is not one-hot"),
        (dict(classes=()), r"classes is \(\): it must be a positive integer for every head"),
        (dict(names=[["a", "b"]]), r"names has \(2,\) names: it must have \(3,\)"),
        (dict(heads=["a", "b"]), "heads has 2 entries: it must have one for each of the 1 heads"),
    ],
)
def test_invalid_arguments_are_rejected(changed, message):
    given_ = dict(logits=np.zeros((2, 3)), labels=one_hot([0, 1], 3), classes=(3,), names=names_of((3,))) | changed
    with pytest.raises(ValueError, match=message):
        metrics.report(**given_)
