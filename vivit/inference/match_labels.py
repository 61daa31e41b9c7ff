"""Matches the labels of a dataset with the classes of a model by name, never by index."""

from dataclasses import replace

from vivit.data.sources import Dataset
from vivit.labels import Labels
from vivit.reference.nearest import did_you_mean

MAX_NAMES = 5  # in a message


def match_labels(dataset: Dataset, labels: Labels, heads: tuple[str, ...] | None = None) -> Dataset:
    """Returns the dataset with the class names of the model, `labels`, and the examples' indices into them.

    heads: names of the model's heads. Heads are matched by name if the dataset has the same names; otherwise, or if
    heads is None, by order. The result has the model's names. Classes that the dataset lacks have no examples.
    Raises ValueError if the dataset has other labels, naming them, if the numbers of heads differ, or if two classes of
    the model have the same name.
    """
    if heads is not None and len(heads) == len(dataset.heads):
        dataset = _with_heads(dataset, heads)
    if dataset.names == labels:
        return dataset
    if len(dataset.names) != len(labels):
        raise ValueError(
            f"the data has the heads {', '.join(dataset.heads)}: they must be {len(labels)}, as the model has"
        )
    new_indices = []
    for head, names, known in zip(dataset.heads, dataset.names, labels, strict=True):
        index = {name: position for position, name in enumerate(known)}
        if len(index) < len(known):
            twice = next(name for position, name in enumerate(known) if index[name] != position)
            raise ValueError(f"{head}: the model has two classes {twice!r}: names must differ to be matched")
        if unknown := [name for name in names if name not in index]:
            unused = [name for name in known if name not in set(names)]
            raise ValueError(
                f"{head}: the data has {_listed(unknown)}, which the model does not: "
                f"{did_you_mean(unknown[0], known)}its names must be among the model's {len(known)}, of which the "
                f"data lacks {_listed(unused) if unused else 'none'}"
            )
        new_indices.append([index[name] for name in names])
    examples = tuple(
        replace(
            example,
            labels=tuple(
                tuple(sorted(new[label] for label in old)) for new, old in zip(new_indices, example.labels, strict=True)
            ),
        )
        for example in dataset.examples
    )
    return replace(dataset, examples=examples, names=labels)


def _with_heads(dataset: Dataset, heads: tuple[str, ...]) -> Dataset:
    if set(heads) == set(dataset.heads):
        order = [dataset.heads.index(head) for head in heads]
        examples = tuple(
            replace(example, labels=tuple(example.labels[index] for index in order)) for example in dataset.examples
        )
        dataset = replace(dataset, examples=examples, names=tuple(dataset.names[index] for index in order))
    return replace(dataset, heads=heads)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(map(repr, names[:MAX_NAMES])) + more
