"""What a training is about to do, and what looks like a mistake in it, in words, before it does anything."""

from collections.abc import Iterator

from vivit.data.sources import Dataset
from vivit.training.recipe import Recipe, Steps

SHOWN = 5  # names in a message


def overview(splits: dict[str, Dataset], recipe: Recipe, steps: Steps) -> Iterator[str]:
    """Classes, clips of each split, steps and warm-up, a line each."""
    dataset = splits["train"]
    heads = ", ".join(f"{len(names):,} of {head}" for head, names in zip(dataset.heads, dataset.names, strict=True))
    yield f"classes: {heads if len(dataset.heads) > 1 else f'{sum(dataset.classes):,}'}"
    yield f"clips: {', '.join(f'{len(one.examples):,} in {split}' for split, one in splits.items())}"
    epochs = steps.total * recipe.batch_size / len(dataset.examples)
    warmup = f"the first {steps.warmup:,} of them warm-up" if steps.warmup else "no warm-up"
    yield f"steps: {steps.total:,} of {recipe.batch_size:,} clips, {epochs:.3g} epochs, {warmup}"


def doubts(splits: dict[str, Dataset], recipe: Recipe) -> Iterator[str]:
    """What is possible but hardly meant, a line each."""
    dataset = splits["train"]
    if recipe.batch_size > len(dataset.examples):
        yield (
            f"batch_size is {recipe.batch_size:,}, and there are {len(dataset.examples):,} clips to train on: every "
            "batch has some of them more than once"
        )
    for head, names in zip(dataset.heads, dataset.names, strict=True):
        if len(names) == 1:
            yield f"{head} has one class, {names[0]!r:.200}: there is nothing to be told apart"
    for split, one in splits.items():
        for number, (head, names) in enumerate(zip(one.heads, one.names, strict=True)):
            there = {label for example in one.examples for label in example.labels[number]}
            absent = [repr(name)[:200] for label, name in enumerate(names) if label not in there]
            if absent:
                more = f" and {len(absent) - SHOWN:,} more" if len(absent) > SHOWN else ""
                yield f"{split} has no clip of {', '.join(absent[:SHOWN])}{more}, of {len(names):,} classes of {head}"
