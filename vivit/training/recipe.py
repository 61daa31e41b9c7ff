"""Defines Recipe, the options of a training run, and the published recipes by name. The model itself is a Config."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

from vivit.reference.config import Config, named
from vivit.reference.nearest import did_you_mean
from vivit.reference.values import MAX_COUNT, is_count, is_number, quoted

Optimiser = Literal["sgd", "adamw"]
Loss = Literal["softmax", "sigmoid"]
Heads = Literal["mean", "sum"]
Dtype = Literal["float32", "bfloat16"]
Remat = Literal["none", "fast", "lean"]
Short = Literal["loop", "pad"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The options of a training run, apart from the model, the data and the devices.

    Each field is annotated with its description, which `vivit train --help` shows. Raises ValueError, naming the field
    and the requirement, for an invalid value. Source: Arnab et al. 2021, section 4.1 and the published training
    configs.
    """

    optimiser: Annotated[Optimiser, "momentum SGD or AdamW"] = "sgd"
    momentum: Annotated[float, "momentum of SGD"] = 0.9
    beta1: Annotated[float, "AdamW: decay of the mean of the gradient"] = 0.9
    beta2: Annotated[float, "AdamW: decay of the mean of the squared gradient"] = 0.999
    weight_decay: Annotated[float, "weight decay; sgd adds it to the gradient, adamw to the update"] = 0.0
    learning_rate: Annotated[float, "peak of the schedule: linear warm-up, then half a cosine to 0"]
    epochs: Annotated[float | None, "length of the training in epochs; alternative to steps"] = None
    steps: Annotated[int | None, "length of the training in updates; alternative to epochs"] = None
    warmup_epochs: Annotated[float | None, "length of the warm-up in epochs; alternative to warmup_steps"] = None
    warmup_steps: Annotated[int | None, "length of the warm-up in updates; alternative to warmup_epochs"] = None
    batch_size: Annotated[int, "clips in one update, over all devices"] = 64
    accumulation: Annotated[int, "number of microbatches per update; more need less memory"] = 1
    clip_norm: Annotated[float | None, "largest norm of the gradient; None: no clipping"] = 1.0
    layer_decay: Annotated[
        float, "factor of the learning rate from each layer to the one before it; 1: all layers have the same"
    ] = 1.0
    freeze: Annotated[tuple[str, ...], "patterns of parameters that are not trained, such as encoder/*"] = ()
    ema_decay: Annotated[float | None, "decay of the running average of the parameters; None: no average"] = None

    loss: Annotated[Loss, "softmax: one class per head; sigmoid: any number of labels"] = "softmax"
    head_losses: Annotated[Heads, "how the losses of several heads are combined"] = "mean"
    label_smoothing: Annotated[float, "probability that is spread over all classes; 0: off"] = 0.0
    mixup: Annotated[float, "parameter of mixup's beta distribution; 0: off"] = 0.0

    dropout: Annotated[float, "dropout rate of the blocks' outputs"] = 0.0
    attention_dropout: Annotated[float, "dropout rate of the attention weights"] = 0.0
    stochastic_depth: Annotated[float, "drop rate of the last block; earlier blocks have lower rates"] = 0.0
    dtype: Annotated[Dtype, "dtype of the blocks' matrix products; parameters stay float32"] = "bfloat16"
    remat: Annotated[
        Remat, "what the backward pass recomputes: none; fast: what is cheap; lean: all but each layer's input"
    ] = "fast"

    stride: Annotated[int, "frames from one sampled frame to the next"] = 2
    resize: Annotated[int, "shorter side of the decoded frames, in pixels"] = 256
    crop: Annotated[int, "side of the square crop: the model's height and width"] = 224
    scale_jitter: Annotated[tuple[float, float], "range of the random scale of each axis"] = (0.9, 1.33)
    random_crop: Annotated[bool, "crop at a random position in training; False: centre crop"] = True
    flip: Annotated[float, "probability of a horizontal flip"] = 0.5
    color: Annotated[float, "probability of color jitter"] = 0.0
    grey: Annotated[float, "probability of conversion to grey"] = 0.0
    erase: Annotated[float, "probability of erasing a rectangle"] = 0.0
    randaugment_layers: Annotated[int, "RandAugment operations per clip; 0: off"] = 0
    randaugment_magnitude: Annotated[float, "strength of the RandAugment operations"] = 0.0
    short: Annotated[Short, "videos shorter than a clip: looped, or padded and masked"] = "loop"
    shuffle_frames: Annotated[bool, "shuffle the frames of every clip: a control without motion"] = False

    seed: Annotated[int, "seed of all random numbers"] = 0

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
    """A field of Recipe: its description, its type, and its default, or REQUIRED."""

    text: str
    type: Any
    default: Any


def recipe_fields() -> dict[str, Field]:
    """Returns every field of Recipe by name, in order."""
    types = get_type_hints(Recipe, include_extras=True)
    return {
        field.name: Field(
            types[field.name].__metadata__[0],
            types[field.name].__origin__,
            REQUIRED if field.default is MISSING else field.default,
        )
        for field in fields(Recipe)
    }


def _check_choices(recipe: Recipe) -> None:
    choices = {
        **{"optimiser": Optimiser, "loss": Loss, "head_losses": Heads},
        **{"dtype": Dtype, "remat": Remat, "short": Short},
    }
    for field, allowed in choices.items():
        if getattr(recipe, field) not in get_args(allowed):
            value = quoted(getattr(recipe, field))
            raise ValueError(f"{field} is {value}: it must be one of {', '.join(get_args(allowed))}")
    if not all(isinstance(pattern, str) for pattern in recipe.freeze):
        raise ValueError(f"freeze is {quoted(recipe.freeze)}: it must be a tuple of patterns")
    for field in ("random_crop", "shuffle_frames"):
        if not isinstance(getattr(recipe, field), bool):
            raise ValueError(f"{field} is {quoted(getattr(recipe, field))}: it must be True or False")


_POSITIVE = ("batch_size", "accumulation", "stride", "resize", "crop")
_COUNTS = {"randaugment_layers": 100, "seed": 2**32 - 1}  # with the largest allowed value
_OPTIONAL_COUNTS = {"steps": 1, "warmup_steps": 0}  # with the smallest allowed value
_RATES = ("momentum", "beta1", "beta2", "label_smoothing", "dropout", "attention_dropout", "stochastic_depth")
_PROBABILITIES = ("flip", "color", "grey", "erase")
_FROM_ZERO = ("weight_decay", "mixup", "randaugment_magnitude")
_MAX_EPOCHS = 1e6


def _check_numbers(recipe: Recipe) -> None:
    def check(field: str, kinds: tuple[type, ...], fits: Any, required: str) -> None:
        value = getattr(recipe, field)
        if not isinstance(value, kinds) or not is_number(value) or not fits(value):
            raise ValueError(f"{field} is {quoted(value)}: it must be {required}")

    number = (int, float)
    for field in _POSITIVE:
        check(field, (int,), lambda value: 1 <= value <= MAX_COUNT, f"a positive integer, at most {MAX_COUNT}")
    for field, most in _COUNTS.items():
        check(field, (int,), lambda value, most=most: 0 <= value <= most, f"an integer, 0 or more, at most {most}")
    for field, least in _OPTIONAL_COUNTS.items():
        if getattr(recipe, field) is not None:
            check(
                field, (int,), lambda value, least=least: is_count(value, least), f"an integer, {least} to {MAX_COUNT}"
            )
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
        check("epochs", number, lambda value: 0 < value <= _MAX_EPOCHS, f"a number above 0, at most {_MAX_EPOCHS:g}")
    if recipe.warmup_epochs is not None:
        required = f"a number, 0 or more, at most {_MAX_EPOCHS:g}"
        check("warmup_epochs", number, lambda value: 0 <= value <= _MAX_EPOCHS, required)


def _check_together(recipe: Recipe) -> None:
    if (recipe.epochs is None) == (recipe.steps is None):
        raise ValueError(f"epochs is {recipe.epochs} and steps is {recipe.steps}: one of them must be given, not both")
    if recipe.warmup_epochs is not None and recipe.warmup_steps is not None:
        both = f"warmup_epochs is {recipe.warmup_epochs} and warmup_steps is {recipe.warmup_steps}"
        raise ValueError(f"{both}: at most one of them may be given")
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
    """The length of the schedule and of its warm-up, in updates."""

    total: int
    warmup: int


def schedule_steps(recipe: Recipe, examples: int | None = None) -> Steps:
    """Returns the length of the schedule for a number of training clips. Epochs are rounded to whole steps.

    Raises ValueError if the recipe counts epochs and `examples` is not given, or if the warm-up is not shorter than the
    training.
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


class NamedRecipe(NamedTuple):
    """A published recipe and the model that it trained."""

    recipe: Recipe
    config: Config


_KINETICS = Recipe(learning_rate=0.1, epochs=30, warmup_epochs=2.5, color=0.8, grey=0.1)
_SMALL = replace(_KINETICS, color=0.0, grey=0.0, stride=1, randaugment_layers=2)  # for small datasets
_LARGE = named("vivit-l/16x2-fe")
_PUBLISHED = {
    "k400-b": NamedRecipe(_KINETICS, named("vivit-b/16x2")),
    "k400-b-fe": NamedRecipe(replace(_KINETICS, learning_rate=0.05), named("vivit-b/16x2-fe")),
    "k400-l-fe": NamedRecipe(_KINETICS, replace(_LARGE, temporal_layers=24)),
    "k600-l-fe": NamedRecipe(
        replace(_KINETICS, learning_rate=0.05), replace(_LARGE, temporal_layers=24, classes=(600,))
    ),
    "mit-l-fe": NamedRecipe(replace(_KINETICS, learning_rate=0.25, epochs=10), replace(_LARGE, classes=(339,))),
    "ssv2-l-fe": NamedRecipe(
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
    "epic-l-fe": NamedRecipe(
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


def recipe(name: str) -> NamedRecipe:
    """Returns a published recipe and its model: "k400-b-fe", "epic-l-fe", … (RECIPES lists the names).

    Source: the published training configs of ViViT. "mit-l-fe" has no published config: its learning rate and epochs
    are from Arnab et al. 2021, appendix, not checked against a config; the rest is that of Kinetics. The published
    epic-l-fe puts the 300 nouns first; here the 97 verbs are first. The labels of Something-Something distinguish left
    from right, so its recipe flips no clip. Raises ValueError for an unknown name.
    """
    if name not in _PUBLISHED:
        hint = did_you_mean(name, [*RECIPES, "carousel"])  # the command accepts carousel as well
        raise ValueError(f"no recipe is named {quoted(name)}: {hint}it must be one of {', '.join(RECIPES)}")
    return _PUBLISHED[name]
