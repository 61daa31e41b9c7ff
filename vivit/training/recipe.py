"""What one training run chooses, and the published choices by name. What the model is, is its Config."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

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

    A field's description stands beside it; `vivit train --help` shows them. Raises ValueError, naming the field and the
    requirement, for what does not fit. Source: Arnab et al. 2021, section 4.1 and the published training configs.
    """

    optimiser: Annotated[Optimiser, "momentum SGD or AdamW"] = "sgd"
    momentum: Annotated[float, "SGD's"] = 0.9
    beta1: Annotated[float, "AdamW's, of the gradient's mean"] = 0.9
    beta2: Annotated[float, "AdamW's, of its square's mean"] = 0.999
    weight_decay: Annotated[float, "sgd adds it to the gradient, adamw to the update"] = 0.0
    learning_rate: Annotated[float, "the largest of the schedule: a linear warm-up, then a half cosine to 0"]
    epochs: Annotated[float | None, "how long, in passes over the training clips; or steps"] = None
    steps: Annotated[int | None, "how long, in updates; or epochs"] = None
    warmup_epochs: Annotated[float | None, "of the learning rate; or warmup_steps"] = None
    warmup_steps: Annotated[int | None, "of the learning rate; or warmup_epochs"] = None
    batch_size: Annotated[int, "clips in one update, on all devices together"] = 64
    accumulation: Annotated[int, "parts that a batch is taken in, one after the other: less memory"] = 1
    clip_norm: Annotated[float | None, "the gradient's largest norm; None: not clipped"] = 1.0
    layer_decay: Annotated[float, "each layer's learning rate is the next one's times this; 1: all have the same"] = 1.0
    freeze: Annotated[tuple[str, ...], "patterns of parameters that stay as they are, such as encoder/*"] = ()
    ema_decay: Annotated[float | None, "of the running average of the parameters; None: there is none"] = None

    loss: Annotated[Loss, "softmax: one class a head; sigmoid: any number of labels"] = "softmax"
    head_losses: Annotated[Heads, "how the heads' losses are put together"] = "mean"
    label_smoothing: Annotated[float, "probability that is spread over all classes; 0: none"] = 0.0
    mixup: Annotated[float, "strength: the beta distribution's parameter; 0: none"] = 0.0

    dropout: Annotated[float, "of the blocks' outputs"] = 0.0
    attention_dropout: Annotated[float, "of attention weights"] = 0.0
    stochastic_depth: Annotated[float, "probability that the last block is left out; earlier ones less"] = 0.0
    dtype: Annotated[Dtype, "of the blocks' products; parameters stay float32"] = "bfloat16"
    remat: Annotated[bool, "recompute activations in the backward pass: less memory, more time"] = False

    stride: Annotated[int, "frames from one taken frame to the next"] = 2
    resize: Annotated[int, "the shorter side in pixels"] = 256
    crop: Annotated[int, "the square cut from it: the model's height and width"] = 224
    scale_jitter: Annotated[tuple[float, float], "smallest and largest random factor of each axis"] = (0.9, 1.33)
    random_crop: Annotated[bool, "cut anywhere in training; else in the centre"] = True
    flip: Annotated[float, "probability of mirroring a clip"] = 0.5
    color: Annotated[float, "probability of color jitter"] = 0.0
    grey: Annotated[float, "probability of grey"] = 0.0
    erase: Annotated[float, "probability of a rectangle painted over"] = 0.0
    randaugment_layers: Annotated[int, "random operations a clip; 0: none"] = 0
    randaugment_magnitude: Annotated[float, "their strength"] = 0.0
    short: Annotated[Short, "videos that end before the clip does: looped, or padded and masked"] = "loop"
    shuffle_frames: Annotated[bool, "every clip's frames in random order: a control that sees no motion"] = False

    seed: Annotated[int, "of everything random"] = 0

    def __post_init__(self) -> None:
        for field in ("freeze", "scale_jitter"):
            value = getattr(self, field)
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise ValueError(f"{field} is {quoted(value)}: it must be a tuple")
            object.__setattr__(self, field, tuple(value))
        _check_choices(self)
        _check_numbers(self)
        _check_together(self)


REQUIRED = "required"


class Field(NamedTuple):
    """A field of the recipe: its description, its type and its default, REQUIRED if it has none."""

    text: str
    kind: Any
    default: Any


def recipe_fields() -> dict[str, Field]:
    """Every field by name, in order."""
    kinds = get_type_hints(Recipe, include_extras=True)
    return {
        field.name: Field(
            kinds[field.name].__metadata__[0],
            kinds[field.name].__origin__,
            REQUIRED if field.default is MISSING else field.default,
        )
        for field in fields(Recipe)
    }


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
_LARGEST = 1e6  # of epochs


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
        check(field, number, lambda value: value >= 0, "a number, 0 or more")
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
        by, of = ("steps" if value is not None else "epochs" for value in (recipe.warmup_steps or None, recipe.steps))
        flags = f"--warmup-{by} is {getattr(recipe, f'warmup_{by}')}, --{of} is {getattr(recipe, of)}"
        raise ValueError(f"the warm-up is {warmup} steps: it must be shorter than the training, {total} steps: {flags}")
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
