"""The recipes: the published numbers, the schedule's length, what is refused."""

import pytest

from vivit.reference.params import parameters
from vivit.training.recipe import RECIPES, Recipe, Steps, recipe, schedule_steps

pytestmark = pytest.mark.fast

PUBLISHED = [  # name, layers, classes, stride, resize/crop, base rate, epochs, augmentation of the published table
    ("k400-b", (12, 4), (400,), 2, (256, 224), 0.1, 30, (0, 0, 0, 0, 0, 0.8, 0.1)),
    ("k400-b-fe", (12, 4), (400,), 2, (256, 224), 0.05, 30, (0, 0, 0, 0, 0, 0.8, 0.1)),
    ("k400-l-fe", (24, 24), (400,), 2, (256, 224), 0.1, 30, (0, 0, 0, 0, 0, 0.8, 0.1)),
    ("k600-l-fe", (24, 24), (600,), 2, (256, 224), 0.05, 30, (0, 0, 0, 0, 0, 0.8, 0.1)),
    ("ssv2-l-fe", (24, 4), (174,), 1, (288, 256), 0.4, 35, (2, 20, 0.3, 0.3, 0.3, 0, 0)),
    ("epic-l-fe", (24, 4), (97, 300), 1, (256, 224), 0.5, 50, (2, 15, 0.1, 0.2, 0.2, 0, 0)),
]


@pytest.mark.parametrize(("name", "layers", "classes", "stride", "sizes", "rate", "epochs", "augmentation"), PUBLISHED)
def test_a_published_recipe_has_the_published_numbers(name, layers, classes, stride, sizes, rate, epochs, augmentation):
    one, config = recipe(name)
    assert (config.layers, config.temporal_layers) == layers
    assert config.classes == classes
    assert (config.frames, config.height, config.tubelet) == (32, sizes[1], (2, 16, 16))
    assert (one.stride, (one.resize, one.crop), one.learning_rate, one.epochs) == (stride, sizes, rate, epochs)
    found = (one.randaugment_layers, one.randaugment_magnitude, one.mixup, one.label_smoothing)
    assert (*found, one.stochastic_depth, one.color, one.grey) == augmentation
    assert (one.batch_size, one.momentum, one.clip_norm, one.warmup_epochs) == (64, 0.9, 1, 2.5)
    assert one.flip == (0 if name == "ssv2-l-fe" else 0.5)


def test_the_paper_s_base_models_are_trained_by_their_recipes():
    assert parameters(recipe("k400-b").config) == 88_954_000
    assert parameters(recipe("k400-b-fe").config) == 115_062_928


def test_an_unknown_recipe_lists_the_known():
    with pytest.raises(ValueError, match="no recipe is named 'k700': it must be one of k400-b, k400-b-fe"):
        recipe("k700")
    assert "mit-l-fe" in RECIPES


def test_epochs_become_steps():
    assert schedule_steps(recipe("k400-b").recipe, 6400) == Steps(3000, 250)
    assert schedule_steps(Recipe(learning_rate=1, steps=7, warmup_steps=3)) == Steps(7, 3)
    assert schedule_steps(Recipe(learning_rate=1, steps=7)) == Steps(7, 0)
    with pytest.raises(ValueError, match="examples is None: it must be a positive integer"):
        schedule_steps(recipe("k400-b").recipe)
    with pytest.raises(ValueError, match="the warm-up is 7 steps: it must be shorter than the training, 7 steps"):
        schedule_steps(Recipe(learning_rate=1, steps=7, warmup_steps=7))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimiser": "adam"}, "optimiser is 'adam': it must be one of sgd, adamw"),
        ({"remat": True}, "remat is True: it must be one of none, fast, lean"),
        ({"learning_rate": 0}, "learning_rate is 0: it must be a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"epochs": 3}, "epochs is 3 and steps is 9: one of them must be given, not both"),
        ({"steps": None}, "epochs is None and steps is None"),
        ({"steps": 2.5}, "steps is 2.5: it must be an integer, 1 to"),
        ({"warmup_epochs": 1, "warmup_steps": 1}, "warmup_epochs is 1 and warmup_steps is 1"),
        ({"accumulation": 3}, "accumulation is 3: it must divide batch_size, 64"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be a number from 0 up to, not including, 1"),
        ({"flip": True}, "flip is True: it must be a number from 0 to 1"),
        ({"layer_decay": 1.1}, "layer_decay is 1.1: it must be a number above 0 and at most 1"),
        ({"clip_norm": 0}, "clip_norm is 0: it must be a number above 0, or None"),
        ({"crop": 300}, "crop is 300: it must be at most resize, 256"),
        ({"freeze": "head/*"}, "freeze is 'head/\\*': it must be a tuple"),
        ({"scale_jitter": (1.2, 0.9)}, r"scale_jitter is \(1.2, 0.9\)"),
    ],
)
def test_what_does_not_fit_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{"learning_rate": 0.1, "steps": 9, **fields})
