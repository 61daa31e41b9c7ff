"""The digit carousel, trained from scratch on two cores in minutes a model: a comparison as the paper's ablations.

Which way a digit goes round (the verb) no single frame tells; which digit it is (the noun) every frame does. The rows
are the four models, the factorised encoder's temporal layers, tubelets against sampled frames, and the control that
sees each clip's frames in random order. Source of the protocol: Arnab et al. 2021, section 4.2, tables 1 to 3.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from vivit.data.carousel import NOUNS, SIZE, VERBS, write_carousel
from vivit.data.sources import Dataset
from vivit.data.tables import read_table
from vivit.reference.config import Config
from vivit.training.recipe import Recipe

HEADS = ("verb", "noun")
NAMES = {"verb": VERBS, "noun": NOUNS}

CONFIG = Config(
    model="spatio_temporal",
    frames=8,
    height=SIZE,
    width=SIZE,
    tubelet=(2, 8, 8),
    channels=64,
    heads=4,
    hidden=256,
    layers=3,
    temporal_layers=2,
    classes=(4, 10),
)
RECIPE = Recipe(
    optimiser="adamw",
    learning_rate=1e-3,
    beta2=0.98,
    weight_decay=0.05,
    epochs=8,
    warmup_epochs=1.6,
    batch_size=32,
    dtype="float32",
    stride=1,
    resize=SIZE,
    crop=SIZE,
    scale_jitter=(1.0, 1.0),
    random_crop=False,
    flip=0.0,  # mirrored, clockwise is anticlockwise
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the comparison: what is trained, and how."""

    name: str
    config: Config
    recipe: Recipe = RECIPE


def rows() -> tuple[Row, ...]:
    """The comparison's lines, the four models first."""
    encoder = replace(CONFIG, model="factorised_encoder")
    self_attention = replace(CONFIG, model="factorised_self_attention", pooling="mean")
    dot_product = replace(CONFIG, model="factorised_dot_product", pooling="mean")
    sampled = replace(encoder, tubelet=(1, 8, 8), sampled_frames=8)
    return (
        Row(name="model 1, spatio-temporal", config=CONFIG),
        Row(name="model 2, factorised encoder, L_t = 2", config=encoder),
        Row(name="model 3, factorised self-attention", config=self_attention),
        Row(name="model 4, factorised dot-product", config=dot_product),
        *(
            Row(name=f"model 2, L_t = {layers}", config=replace(encoder, temporal_layers=layers))
            for layers in (0, 1, 4)
        ),
        Row(name="model 1, sampled frames", config=replace(CONFIG, tubelet=(1, 8, 8), sampled_frames=8)),
        *(
            Row(name=f"model 2, sampled frames, L_t = {layers}", config=replace(sampled, temporal_layers=layers))
            for layers in (0, 2)
        ),
        Row(name="model 4, frames in random order", config=dot_product, recipe=replace(RECIPE, shuffle_frames=True)),
    )


def datasets(folder: Path) -> dict[str, Dataset]:
    """The carousel's videos in a folder, written there if they are not: train, validation, test."""
    if not (folder / "train.csv").is_file():
        write_carousel(folder)
    files = {split: folder / f"{split}.csv" for split in ("train", "validation", "test")}
    return read_table(files, heads=HEADS, names=NAMES)
