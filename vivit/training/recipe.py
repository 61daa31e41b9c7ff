"""What one training run chooses, and the published choices by name. What the model is, is its Config."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

from vivit.reference.config import Config, named
from vivit.reference.nearest import did_you_mean
from vivit.reference.values import MOST, is_count, is_number, quoted

Optimiser = Literal["sgd", "adamw"]
Loss = Literal["softmax", "sigmoid"]
Heads = Literal["mean", "sum"]
Dtype = Literal["float32", "bfloat16"]
Short = Literal["loop", "pad"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a training run chooses, apart from the model, the data and the devices.

    Optimisation. optimiser: momentum SGD or AdamW; momentum is SGD's, the betas AdamW's. weight_decay: "sgd" adds it to
    the gradient, "adamw" to the update. learning_rate: the schedule's base. epochs or steps, one of them, and
    warmup_epochs or warmup_steps: see `steps_of`. batch_size: clips in one update, on all devices together.
    accumulation: parts that a batch is taken in, one after the other. clip_norm: of the gradient; None: not clipped.
    layer_decay: learning rates of earlier layers are this much smaller from layer to layer. freeze: patterns of leaf
    paths, see optimiser.frozen. ema_decay: of the running average of the parameters; None: there is none.

    Loss. loss: "softmax" of one class a head, or "sigmoid" of any number of labels. head_losses: how the losses of the
    heads are put together. label_smoothing, mixup: strengths; 0: none.

    Model in training. dropout, attention_dropout, stochastic_depth: as vivit.forward's. dtype: of the blocks' products;
    parameters stay float32. remat: recompute activations in the backward pass.

    Clips. stride: frames from one taken frame to the next. resize: the shorter side in pixels, crop: the square cut
    from it. scale_jitter: smallest and largest factor per axis. random_crop: the square is cut anywhere in training.
    flip, color, grey, erase: probabilities of mirroring, color jitter, grey, a rectangle painted over.
    randaugment_layers, randaugment_magnitude: operations a clip and their strength; 0 layers: none. short: videos that
    end before the clip does are looped, or padded and masked. shuffle_frames: every clip's frames in random order: the
    control that shows what a model knows without it.

    seed: of everything random. Raises ValueError, naming the field and the requirement, for what does not fit.
    Source: Arnab et al. 2021, section 4.1 and the published training configs.
    """

    optimiser: Optimiser = "sgd"
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    learning_rate: float
    epochs: float | None = None
    steps: int | None = None
    warmup_epochs: float | None = None
    warmup_steps: int | None = None
    batch_size: int = 64
    accumulation: int = 1
    clip_norm: float | None = 1.0
    layer_decay: float = 1.0
    freeze: tuple[str, ...] = ()
    ema_decay: float | None = None

    loss: Loss = "softmax"
    head_losses: Heads = "mean"
    label_smoothing: float = 0.0
    mixup: float = 0.0

    dropout: float = 0.0
    attention_dropout: float = 0.0
    stochastic_depth: float = 0.0
    dtype: Dtype = "bfloat16"
    remat: bool = False

    stride: int = 2
    resize: int = 256
    crop: int = 224
    scale_jitter: tuple[float, float] = (0.9, 1.33)
    random_crop: bool = True
    flip: float = 0.5
    color: float = 0.0
    grey: float = 0.0
    erase: float = 0.0
    randaugment_layers: int = 0
    randaugment_magnitude: float = 0.0
    short: Short = "loop"
    shuffle_frames: bool = False

    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("freeze", "scale_jitter"):
            value = getattr(self, field)
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise ValueError(f"{field} is {quoted(value)}: it must be a tuple")
            object.__setattr__(self, field, tuple(value))
        _check_choices(self)
        _check_numbers(self)
        _check_together(self)


def _check_choices(recipe: Recipe) -> None:
    choices = {"optimiser": Optimiser, "loss": Loss, "head_losses": Heads, "dtype": Dtype, "short": Short}
    for field, allowed in choices.items():
        if getattr(recipe, field) not in get_args(allowed):
            value = quoted(getattr(recipe, field))
            raise ValueError(f"{field} is {value}: it must be one of {', '.join(get_args(allowed))}")
    if not all(isinstance(pattern, str) for pattern in recipe.freeze):
        raise ValueError(f"freeze is {quoted(recipe.freeze)}: it must be a tuple of patterns")
    for field in ("remat", "random_crop", "shuffle_frames"):
        if not isinstance(getattr(recipe, field), bool):
            raise ValueError(f"{field} is {quoted(getattr(recipe, field))}: it must be True or False")


_POSITIVE = ("batch_size", "accumulation", "stride", "resize", "crop")
_COUNTS = {"randaugment_layers": 100, "seed": 2**32 - 1}  # and the largest allowed
_OPTIONAL_COUNTS = {"steps": 1, "warmup_steps": 0}  # and the smallest allowed
_RATES = ("momentum", "beta1", "beta2", "label_smoothing", "dropout", "attention_dropout", "stochastic_depth")
_PROBABILITIES = ("flip", "color", "grey", "erase")
_FROM_ZERO = ("weight_decay", "mixup", "randaugment_magnitude")
_LARGEST = 1e6  # of these and of epochs


def _check_numbers(recipe: Recipe) -> None:
    def check(field: str, kinds: tuple[type, ...], fits: Any, required: str) -> None:
        value = getattr(recipe, field)
        if not isinstance(value, kinds) or not is_number(value) or not fits(value):
            raise ValueError(f"{field} is {quoted(value)}: it must be {required}")

    number = (int, float)
    for field in _POSITIVE:
        check(field, (int,), lambda value: 1 <= value <= MOST, f"a positive integer, at most {MOST}")
    for field, most in _COUNTS.items():
        check(field, (int,), lambda value, most=most: 0 <= value <= most, f"an integer, 0 or more, at most {most}")
    for field, least in _OPTIONAL_COUNTS.items():
        if getattr(recipe, field) is not None:
            check(field, (int,), lambda value, least=least: is_count(value, least), f"an integer, {least} to {MOST}")
    for field in _RATES:
        check(field, number, lambda value: 0 <= value < 1, "a number from 0 up to, not including, 1")
    for field in _PROBABILITIES:
        check(field, number, lambda value: 0 <= value <= 1, "a number from 0 to 1")
    for field in _FROM_ZERO:
        check(field, number, lambda value: 0 <= value <= _LARGEST, f"a number, 0 or more, at most {_LARGEST:g}")
    check("learning_rate", number, lambda value: 0 < value < float("inf"), "a number above 0")
    check("layer_decay", number, lambda value: 0 < value <= 1, "a number above 0 and at most 1")
    if recipe.clip_norm is not None:
        check("clip_norm", number, lambda value: value > 0, "a number above 0, or None")
    if recipe.ema_decay is not None:
        check("ema_decay", number, lambda value: 0 <= value < 1, "a number from 0 up to, not including, 1, or None")
    if recipe.epochs is not None:
        check("epochs", number, lambda value: 0 < value <= _LARGEST, f"a number above 0, at most {_LARGEST:g}")
    if recipe.warmup_epochs is not None:
        required = f"a number, 0 or more, at most {_LARGEST:g}"
        check("warmup_epochs", number, lambda value: 0 <= value <= _LARGEST, required)


def _check_together(recipe: Recipe) -> None:
    if (recipe.epochs is None) == (recipe.steps is None):
        raise ValueError(f"epochs is {recipe.epochs} and steps is {recipe.steps}: one of them must be given, not both")
    if recipe.warmup_epochs is not None and recipe.warmup_steps is not None:
        given = f"warmup_epochs is {recipe.warmup_epochs} and warmup_steps is {recipe.warmup_steps}"
        raise ValueError(f"{given}: at most one of them may be given")
    if recipe.batch_size % recipe.accumulation:
        raise ValueError(f"accumulation is {recipe.accumulation}: it must divide batch_size, {recipe.batch_size}")
    if recipe.crop > recipe.resize:
        raise ValueError(f"crop is {recipe.crop}: it must be at most resize, {recipe.resize}")
    jitter = recipe.scale_jitter
    if len(jitter) != 2 or not all(map(is_number, jitter)) or not 0 < jitter[0] <= jitter[1] <= 100:
        raise ValueError(
            f"scale_jitter is {quoted(jitter)}: it must be (smallest, largest) factor, above 0, at most 100"
        )


class Steps(NamedTuple):
    """How long the schedule is, in updates."""

    total: int
    warmup: int


def steps_of(recipe: Recipe, examples: int | None = None) -> Steps:
    """The schedule's length for this many training clips. Epochs are rounded to whole steps.

    Raises ValueError if examples are needed (epochs are given) and missing, or the warm-up is longer than the training.
    """

    def steps(epochs: float) -> int:
        if type(examples) is not int or examples < 1:
            given = quoted(examples)
            raise ValueError(f"examples is {given}: it must be a positive integer, since the recipe counts epochs")
        return max(1, round(epochs * examples / recipe.batch_size)) if epochs else 0

    total = recipe.steps if recipe.steps is not None else steps(recipe.epochs or 0)
    warmup = recipe.warmup_steps or (steps(recipe.warmup_epochs) if recipe.warmup_epochs else 0)
    if warmup >= total:
        raise ValueError(f"the warm-up is {warmup} steps: it must be shorter than the training, {total} steps")
    return Steps(total, warmup)


class Named(NamedTuple):
    """A published recipe and the model that it trained."""

    recipe: Recipe
    config: Config


_KINETICS = Recipe(learning_rate=0.1, epochs=30, warmup_epochs=2.5, color=0.8, grey=0.1)
_SMALL = replace(_KINETICS, color=0.0, grey=0.0, stride=1, randaugment_layers=2)  # sets that are small for ViViT
_LARGE = named("vivit-l/16x2-fe")
_PUBLISHED = {
    "k400-b": Named(_KINETICS, named("vivit-b/16x2")),
    "k400-b-fe": Named(replace(_KINETICS, learning_rate=0.05), named("vivit-b/16x2-fe")),
    "k400-l-fe": Named(_KINETICS, replace(_LARGE, temporal_layers=24)),
    "k600-l-fe": Named(replace(_KINETICS, learning_rate=0.05), replace(_LARGE, temporal_layers=24, classes=(600,))),
    "mit-l-fe": Named(replace(_KINETICS, learning_rate=0.25, epochs=10), replace(_LARGE, classes=(339,))),
    "ssv2-l-fe": Named(
        replace(
            _SMALL,
            learning_rate=0.4,
            epochs=35,
            resize=288,
            crop=256,
            flip=0.0,
            randaugment_magnitude=20,
            mixup=0.3,
            label_smoothing=0.3,
            stochastic_depth=0.3,
        ),
        replace(_LARGE, height=256, width=256, classes=(174,)),
    ),
    "epic-l-fe": Named(
        replace(
            _SMALL,
            learning_rate=0.5,
            epochs=50,
            randaugment_magnitude=15,
            mixup=0.1,
            label_smoothing=0.2,
            stochastic_depth=0.2,
        ),
        replace(_LARGE, classes=(97, 300)),
    ),
}
RECIPES = tuple(_PUBLISHED)


def recipe(name: str) -> Named:
    """The recipe of a published training, and its model: "k400-b-fe", "epic-l-fe", … (RECIPES lists them).

    Source: the published training configs of ViViT; "mit-l-fe" has none: its learning rate and epochs are those of
    Arnab et al. 2021, appendix (not checked against a config), the rest is Kinetics'. The published epic-l-fe puts the
    300 nouns first; here the 97 verbs are. Something-Something's labels tell left from right: no clip is flipped.
    Raises ValueError for an unknown name.
    """
    if name not in _PUBLISHED:
        hint = did_you_mean(name, [*RECIPES, "carousel"])  # which the command knows beside these
        raise ValueError(f"no recipe is named {quoted(name)}: {hint}it must be one of {', '.join(RECIPES)}")
    return _PUBLISHED[name]
