"""Trains the four models on the digit carousel and compares them, as the paper's ablations do.

Each model trains from scratch in minutes on two cores. The verb (the direction of the motion) cannot be read from a
single frame; the noun (the digit) can be read from every frame. The rows are the four models, different numbers of
temporal layers of the factorised encoder, tubelets against sampled frames, and a control that receives the frames of
each clip in random order. Protocol: Arnab et al. 2021, section 4.2, tables 1 to 3.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vivit.data.carousel import NOUNS, SIZE, VERBS, write_carousel
from vivit.data.sources import Dataset
from vivit.data.tables import read_table
from vivit.files.atomic import write_text
from vivit.files.json_files import read_object
from vivit.reference.config import Config
from vivit.reference.params import parameters
from vivit.training.from_checkpoint import initial_model
from vivit.training.lock import locked
from vivit.training.loop import Progress, Run, train
from vivit.training.recipe import Recipe, schedule_steps
from vivit.training.validation import evaluate_recipe
from vivit.video.cache import Cache

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
    flip=0.0,  # mirroring would turn clockwise into anticlockwise
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the comparison: the model and the recipe to train it with."""

    name: str
    config: Config
    recipe: Recipe = RECIPE


def rows() -> tuple[Row, ...]:
    """Returns the rows of the comparison, the four models first."""
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
    """Returns the splits train, validation and test of the carousel.

    Writes the videos first if train.csv is missing.
    """
    if not (folder / "train.csv").is_file():
        write_carousel(folder)
    files = {split: folder / f"{split}.csv" for split in ("train", "validation", "test")}
    return read_table(files, heads=HEADS, names=NAMES)


RESULT = "result.json"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The results of one row on the test split, in percent, and the cost of its training."""

    name: str
    parameters: int
    steps: int
    seconds: float  # sum over the updates, including the wait for batches
    verb: float
    noun: float
    action: float


def compare(
    folder: Path, rows: tuple[Row, ...], *, threads: int = 2, show: Callable[[str, Progress], None] = lambda *_: None
) -> list[Outcome]:
    """Trains the rows in order, each in its own folder under `folder`; skips rows that already have a result.

    show: called with the row's name and its progress after every update.
    """
    with locked(folder):
        return _compared(folder, rows, threads, show)


def _compared(
    folder: Path, rows: tuple[Row, ...], threads: int, show: Callable[[str, Progress], None]
) -> list[Outcome]:
    splits = datasets(folder / "videos")
    cache = Cache(folder / "frames")
    outcomes = []
    for row in rows:
        row_folder = folder / row.name.replace(" ", "-").replace(",", "")
        if (row_folder / RESULT).is_file():
            outcomes.append(read_outcome(row_folder / RESULT))
            continue
        seconds: list[float] = []

        def record(progress: Progress, name: str = row.name, seconds: list[float] = seconds) -> None:
            seconds.append(progress.figures["seconds"])
            show(name, progress)

        run = Run(folder=row_folder, save_every=250, threads=threads, cache=cache.folder)
        model = train(initial_model(splits["train"], row.config, None), splits["train"], row.recipe, run, show=record)
        report = evaluate_recipe(model, splits["test"], row.recipe, threads=threads, cache=cache).report
        outcome = Outcome(
            name=row.name,
            parameters=parameters(row.config),
            steps=schedule_steps(row.recipe, len(splits["train"].examples)).total,
            seconds=sum(seconds),
            verb=100 * report["heads"]["verb"]["top_1"],
            noun=100 * report["heads"]["noun"]["top_1"],
            action=100 * report["action"]["top_1"],
        )
        write_text(row_folder / RESULT, json.dumps(asdict(outcome)))
        outcomes.append(outcome)
    return outcomes


def read_outcome(path: Path) -> Outcome:
    """Reads the result of a row. Raises ValueError, naming the file, if it is not such a result."""
    fields = read_object(path)
    numbers = {name: fields.number(name) for name in ("seconds", "verb", "noun", "action")}
    return Outcome(
        name=fields.text("name"), parameters=fields.count("parameters"), steps=fields.count("steps"), **numbers
    )
