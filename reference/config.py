"""The configuration of a ViViT: the sizes and choices that define one model, and the named variants.

Shapes, positions and costs are derived from a Config. Options of training and of devices are elsewhere.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from vivit.reference.nearest import did_you_mean
from vivit.reference.values import MAX_COUNT, is_count, is_number, quoted

Model = Literal["spatio_temporal", "factorised_encoder", "factorised_self_attention", "factorised_dot_product"]
Pooling = Literal["token", "first", "mean", "max", "sum"]
Positions = Literal["learned", "sinusoidal_1d", "sinusoidal_3d", "none"]
Order = Literal["time_space", "space_time"]
Gelu = Literal["tanh", "erf"]

COLORS = 3


@dataclass(frozen=True, kw_only=True)
class Config:
    """The sizes and choices of one model. Sizes are in the order (time, height, width).

    model: the paper's models 1 to 4, in the order of `Model`.
    sampled_frames: number of uniformly sampled frames (tubelet[0] must be 1); None uses every frame.
    temporal_layers: layers of the factorised encoder's temporal encoder; 0 averages the frames instead.
    temporal_heads, temporal_hidden: sizes of the temporal encoder; None uses those of the spatial encoder.
    order: order of the two attentions in a factorised self-attention layer.
    pooling: "token" adds a class token; "first" pools the first token without adding one.
    representation: width of a dense + tanh layer before the head; None omits the layer.
    classes: number of classes of each head; (97, 300) gives 397 logits, 97 verbs then 300 nouns. () omits the head: the
        model then returns the head's input.
    gelu, epsilon: the form of the GELU and the epsilon of the layer norms; they must match the checkpoint.

    Raises ValueError, naming the field and the requirement, if sizes do not divide or choices do not fit together.
    Source: Arnab et al. 2021, sections 3 and 4.1.
    """

    model: Model
    frames: int = 32
    height: int = 224
    width: int = 224
    tubelet: tuple[int, int, int] = (2, 16, 16)
    sampled_frames: int | None = None
    channels: int = 768
    heads: int = 12
    hidden: int = 3072
    layers: int = 12
    temporal_layers: int = 4
    temporal_heads: int | None = None
    temporal_hidden: int | None = None
    order: Order = "time_space"
    pooling: Pooling = "token"
    positions: Positions = "learned"
    representation: int | None = None
    classes: tuple[int, ...] = (400,)
    gelu: Gelu = "tanh"
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        for field in ("tubelet", "classes"):
            value = getattr(self, field)
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise ValueError(f"{field} is {quoted(value)}: it must be a tuple of positive integers")
            object.__setattr__(self, field, tuple(value))
        _check_choices(self)
        _check_counts(self)
        _check_sizes(self)
        _check_model(self)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of tokens along (time, height, width)."""
        return self.grid_of(self.frames, self.height, self.width)

    def grid_of(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Returns the number of tokens along (time, height, width) for a video of this size.

        Raises ValueError if the size is not a multiple of the tubelet's.
        """
        for name, size, part in zip(("frames", "height", "width"), (frames, height, width), self.tubelet, strict=True):
            if size < 1 or size % part:
                raise ValueError(f"{name} is {size}: it must be a positive multiple of the tubelet's {part}")
        time = frames // self.tubelet[0] if self.sampled_frames is None else min(self.sampled_frames, frames)
        return time, height // self.tubelet[1], width // self.tubelet[2]

    @property
    def class_token(self) -> bool:
        """Whether the model prepends a learned class token."""
        return self.pooling == "token"

    @property
    def temporal(self) -> "Config":
        """A config with the temporal encoder's sizes in place of the spatial encoder's."""
        return replace(
            self,
            layers=self.temporal_layers,
            heads=self.temporal_heads or self.heads,
            hidden=self.temporal_hidden or self.hidden,
        )

    @property
    def canonical(self) -> "Config":
        """An equivalent config, with every field that its model ignores set to the default."""
        temporal: dict = dict(temporal_layers=4, temporal_heads=None, temporal_hidden=None)
        if self.model == "factorised_encoder":
            temporal = dict(temporal_layers=self.temporal_layers)
            if self.temporal_layers:
                temporal |= dict(temporal_heads=self.temporal.heads, temporal_hidden=self.temporal.hidden)
            else:
                temporal |= dict(temporal_heads=None, temporal_hidden=None)
        order = self.order if self.model == "factorised_self_attention" else "time_space"
        return replace(self, order=order, **temporal)


def _check_choices(config: Config) -> None:
    choices = {"model": Model, "order": Order, "pooling": Pooling, "positions": Positions, "gelu": Gelu}
    for field, allowed in choices.items():
        if getattr(config, field) not in get_args(allowed):
            value = quoted(getattr(config, field))
            raise ValueError(f"{field} is {value}: it must be one of {', '.join(get_args(allowed))}")


def _check_counts(config: Config) -> None:
    positive = ("frames", "height", "width", "channels", "heads", "hidden", "layers")
    optional = ("sampled_frames", "temporal_heads", "temporal_hidden", "representation")
    counts = [(field, getattr(config, field)) for field in positive]
    counts += [(field, getattr(config, field)) for field in optional if getattr(config, field) is not None]
    counts += [("tubelet", part) for part in config.tubelet] + [("classes", head) for head in config.classes]
    for field, count in counts:
        if not is_count(count):
            raise ValueError(f"{field} has {quoted(count)}: it must be a positive integer, at most {MAX_COUNT}")
    if not is_count(config.temporal_layers, 0):
        raise ValueError(f"temporal_layers is {quoted(config.temporal_layers)}: it must be an integer, 0 or more")
    if len(config.tubelet) != 3:
        raise ValueError(f"tubelet is {quoted(config.tubelet)}: it must be three sizes (time, height, width)")
    if not is_number(config.epsilon) or not 0 < config.epsilon < 1:
        raise ValueError(f"epsilon is {quoted(config.epsilon)}: it must be a number between 0 and 1")


def _check_sizes(config: Config) -> None:
    config.grid_of(config.frames, config.height, config.width)
    if config.sampled_frames is not None and config.tubelet[0] != 1:
        raise ValueError(f"tubelet[0] is {config.tubelet[0]}: it must be 1 when frames are sampled")
    if config.sampled_frames is not None and config.sampled_frames > config.frames:
        raise ValueError(f"sampled_frames is {config.sampled_frames}: it must be at most frames, {config.frames}")
    for field, heads in (("heads", config.heads), ("temporal_heads", config.temporal_heads or config.heads)):
        if config.channels % heads:
            raise ValueError(f"{field} is {heads}: it must divide channels, {config.channels}")
    parts = {"sinusoidal_1d": 2, "sinusoidal_3d": 6}.get(config.positions, 1)
    if config.channels % parts:
        raise ValueError(f"channels is {config.channels}: {config.positions} positions need a multiple of {parts}")


def _check_model(config: Config) -> None:
    factorised_blocks = ("factorised_self_attention", "factorised_dot_product")
    if config.model in factorised_blocks and config.pooling in ("token", "first"):
        raise ValueError(
            f"pooling is {config.pooling!r}: {config.model} has no class token, it must be one of mean, max, sum"
        )
    if config.model == "factorised_dot_product" and config.heads % 2:
        raise ValueError(f"heads is {config.heads}: factorised_dot_product needs an even number, half for each axis")


_VIDEO = dict(frames=32, height=224, width=224)
_SIZES: dict[str, dict] = {  # Arnab et al. 2021, section 4.1, after Dosovitskiy et al. 2021, table 1
    "b": dict(_VIDEO, layers=12, channels=768, heads=12, hidden=3072),
    "l": dict(_VIDEO, layers=24, channels=1024, heads=16, hidden=4096),
    "h": dict(_VIDEO, layers=32, channels=1280, heads=16, hidden=5120),
    "tiny": dict(
        frames=8, height=32, width=32, layers=3, channels=48, heads=4, hidden=96, temporal_layers=2, classes=(5,)
    ),
}
_MODELS: dict[str, dict] = {
    "": dict(model="spatio_temporal"),
    "-fe": dict(model="factorised_encoder"),
    "-fsa": dict(model="factorised_self_attention", pooling="mean"),
    "-fdp": dict(model="factorised_dot_product", pooling="mean"),
    "-fe-average": dict(model="factorised_encoder", temporal_layers=0),
}
_PATCH = {"b": "16x2", "l": "16x2", "h": "16x2", "tiny": "8x2"}

NAMES = tuple(f"vivit-{size}/{patch}{model}" for size, patch in _PATCH.items() for model in _MODELS)


def named(name: str) -> Config:
    """Returns the config of a named variant, such as "vivit-b/16x2-fe": size / patch x tubelet length - model.

    No suffix is model 1; -fe, -fsa, -fdp are models 2 to 4; -fe-average is model 2 without its temporal encoder.
    Patch sizes and tubelet lengths that are not in NAMES are accepted too ("vivit-l/32x4-fe").
    Raises ValueError for an unknown name and for a patch size that does not divide the video.
    Source: Arnab et al. 2021, section 4.1 and table 2.
    """
    pattern = r"vivit-([a-z]+)/(\d{1,6})x(\d{1,6})(-[a-z-]+)?"
    parts = re.fullmatch(pattern, name.lower()) if isinstance(name, str) else None
    size, patch, length, model = parts.groups(default="") if parts else ("", "", "", "")
    if size not in _SIZES or model not in _MODELS:
        hint = did_you_mean(name, NAMES)
        raise ValueError(f"no variant is named {quoted(name)}: {hint}it must be one of {', '.join(NAMES)}")
    return Config(**{**_SIZES[size], **_MODELS[model]}, tubelet=(int(length), int(patch), int(patch)))
