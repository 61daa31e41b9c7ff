"""The step: what an update is, how a batch may be taken in parts, what is random and what is not."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategies import random_params, small
from training import DROPS, STEPS, assert_same, examples, small_recipe, taken

import vivit
from vivit.training import step
from vivit.training.step import accumulate, example_losses, init_state, make_step

CONFIG = small("spatio_temporal", layers=2)


@pytest.mark.parametrize("loss_name", ["softmax", "sigmoid"])
def test_an_update_is_the_gradient_of_the_mean_loss_times_the_rate(loss_name):
    recipe, batch = small_recipe(momentum=0.0, clip_norm=None, loss=loss_name), examples(CONFIG)
    params = jax.tree.map(jnp.asarray, random_params(CONFIG, 1))

    def loss(params):
        logits = vivit.forward(params, batch.video, CONFIG, frames_valid=batch.frames_valid)
        return example_losses(logits, jnp.asarray(batch.labels), CONFIG.classes, loss=loss_name).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    state, metrics = taken(CONFIG, recipe, batch, batch)  # the first update of a warm-up has rate 0
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)
    rate = float(metrics["learning_rate"])
    assert rate == pytest.approx(0.15)
    assert_same(state.params, jax.tree.map(lambda leaf, slope: leaf - rate * slope, params, gradient))
    assert state.step == 2


def test_a_batch_taken_in_parts_gives_the_same_update_with_the_same_drops():
    weight = np.array([1, 1, 0, 1, 0.5, 1, 1, 0], np.float32)
    batch = examples(CONFIG, weight=weight)
    whole, metrics = taken(CONFIG, small_recipe(**DROPS), batch, batch)
    in_parts, same = taken(CONFIG, small_recipe(**DROPS, accumulation=4), batch, batch)
    assert_same(in_parts.params, whole.params)
    np.testing.assert_allclose(same["loss"], metrics["loss"], rtol=1e-5)
    assert metrics["weight"] == weight.sum()


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_batch_is_taken_in_as_many_parts_as_asked_for(parts):
    seen = []

    def total(rows):
        seen.append(rows.shape)
        return rows.sum(axis=0)

    found = jax.eval_shape(lambda rows: accumulate(total, (rows,), parts), np.ones((8, 3), np.float32))
    assert found.shape == (3,)
    assert set(seen) == {(8 // parts, 3)}


def test_examples_of_weight_0_change_nothing():
    batch = examples(CONFIG, weight=np.array([1, 0, 1, 1, 0, 1, 1, 1], np.float32))
    video, labels = batch.video.copy(), batch.labels.copy()
    video[[1, 4]], labels[[1, 4]] = 0.3, 0.0
    one, other = (
        taken(CONFIG, small_recipe(), each, each) for each in (batch, batch._replace(video=video, labels=labels))
    )
    assert_same(one[0].params, other[0].params, 1e-6)
    assert one[1]["loss"] == pytest.approx(float(other[1]["loss"]))


def test_without_weights_every_example_counts_once():
    batches = examples(CONFIG), examples(CONFIG, weight=None)
    weighted, plain = (taken(CONFIG, small_recipe(), batch, batch) for batch in batches)
    assert_same(plain[0].params, weighted[0].params, 0.0)
    assert plain[1] == weighted[1]


def test_the_seed_the_step_and_the_place_decide_what_is_dropped():
    batch = examples(CONFIG)
    same = jax.tree.map(lambda leaf: leaf[:1].repeat(8, axis=0), batch)

    def losses(seed, steps):
        recipe = small_recipe(**DROPS, seed=seed)
        return [
            float(taken(CONFIG, recipe, *[same._replace(weight=one)] * steps)[1]["loss"])
            for one in np.eye(8, dtype="f")
        ]

    first = losses(0, 1)
    assert first == losses(0, 1)
    assert len({*first, *losses(1, 1), *losses(0, 2)}) == 24  # distinct at every place, seed and step


def test_masters_and_optimiser_are_float32_when_products_are_bfloat16():
    recipe = small_recipe(dtype="bfloat16", optimiser="adamw", ema_decay=0.9)
    state, metrics = taken(CONFIG, recipe, examples(CONFIG))
    dtypes = {leaf.dtype.name for leaf in jax.tree.leaves((state.params, state.optimiser, state.ema))}
    assert dtypes == {"float32", "int32"}
    exact = taken(CONFIG, small_recipe(), examples(CONFIG))[1]
    assert float(metrics["loss"]) == pytest.approx(float(exact["loss"]), rel=0.05)
    assert float(metrics["loss"]) != float(exact["loss"])


def test_the_average_follows_the_parameters_and_what_is_frozen_stays():
    recipe, batch = small_recipe(ema_decay=0.75, freeze=("embedding/*",)), examples(CONFIG)
    before, _ = taken(CONFIG, recipe, batch)
    expected = jax.tree.map(np.asarray, before.ema)
    after, _ = taken(CONFIG, recipe, batch, batch)
    assert_same(after.ema, jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, expected, after.params), 1e-6)
    assert np.array_equal(after.params.embedding.kernel, random_params(CONFIG, 1).embedding.kernel)
    assert not np.array_equal(after.params.head.kernel, random_params(CONFIG, 1).head.kernel)


def test_the_model_runs_as_the_recipe_says(monkeypatch):
    fields = {**DROPS, "dtype": "bfloat16", "remat": "fast"}
    seen = {}

    def forward(*arguments, rng, attention, **options):
        seen.update(options)
        return vivit.forward(*arguments)

    monkeypatch.setattr(step, "forward", forward)
    recipe, batch = small_recipe(**fields), examples(CONFIG)
    state = init_state(jax.tree.map(jnp.asarray, random_params(CONFIG, 1)), CONFIG, recipe, STEPS)
    jax.eval_shape(make_step(CONFIG, recipe, STEPS), state, batch)
    assert seen.pop("frames_valid").shape == (8,)
    assert seen == fields


def test_rematerialisation_changes_memory_only():
    batch = examples(CONFIG)
    stored, *recomputed = (
        taken(CONFIG, small_recipe(**DROPS, remat=remat), batch, batch)[0] for remat in ("none", "fast", "lean")
    )
    for one in recomputed:
        assert_same(stored.params, one.params)


def test_mixup_and_smoothing_are_called_with_what_the_recipe_says():
    seen = []

    def mixup(key, video, labels, strength):
        seen.append(strength)
        return 0.5 * (video + video[::-1]), 0.5 * (labels + labels[::-1])

    def smooth(labels, classes, amount):
        seen.append((classes, amount))
        return labels * (1.0 - amount)

    recipe, batch = (
        small_recipe(mixup=0.3, label_smoothing=0.25),
        examples(CONFIG, frames_valid=np.full(8, 6, np.int32)),
    )
    _, metrics = taken(CONFIG, recipe, batch, mixup=mixup, smooth=smooth)
    mixed = batch._replace(
        video=0.5 * (batch.video + batch.video[::-1]), labels=0.375 * (batch.labels + batch.labels[::-1])
    )
    _, expected = taken(CONFIG, small_recipe(), mixed)
    assert metrics["loss"] == pytest.approx(float(expected["loss"]), rel=1e-6)
    assert {0.3, (CONFIG.classes, 0.25)} == set(seen)
    with pytest.raises(ValueError, match=r"mixup is 0.3: make_step needs mixup=, such as vivit.data.mixing.mixup"):
        make_step(CONFIG, recipe, STEPS, smooth=smooth)
    with pytest.raises(ValueError, match=r"label_smoothing is 0.25: make_step needs smooth="):
        make_step(CONFIG, recipe, STEPS, mixup=mixup)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="params do not fit the config"):
        init_state(jax.tree.map(jnp.asarray, random_params(CONFIG)), replace(CONFIG, layers=3), small_recipe(), STEPS)
    with pytest.raises(ValueError, match="the batch has 6 examples: they must be a multiple of accumulation, 4"):
        taken(CONFIG, small_recipe(accumulation=4), examples(CONFIG, batch=6))


def test_a_few_steps_learn_the_batch():
    batch, recipe = examples(CONFIG), small_recipe()
    _, first = taken(CONFIG, recipe, batch)
    _, last = taken(CONFIG, recipe, *[batch] * 9)
    assert last["loss"] < 0.5 * first["loss"]
