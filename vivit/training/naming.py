"""A dataset's labels in the order of a model's classes: they are matched by name, never by place."""

from dataclasses import replace

from vivit.data.sources import Dataset
from vivit.labels import Labels
from vivit.reference.nearest import did_you_mean

SHOWN = 5  # names in a message


def matched(dataset: Dataset, labels: Labels, heads: tuple[str, ...] | None = None) -> Dataset:
    """The dataset with the model's classes: head after head the names of `labels`, and each example's numbers in them.

    heads: what the model calls its heads. Where the dataset has the same names they are matched by these, else in
    order, and called as the model does; None: in order.
    Classes that the dataset does not know stay without examples. Raises ValueError that names the differing ones if the
    dataset has others, if the heads are not equally many, or if the model calls two classes the same.
    """
    if heads is not None and len(heads) == len(dataset.heads):
        dataset = _with_heads(dataset, heads)
    if dataset.names == labels:
        return dataset
    if len(dataset.names) != len(labels):
        raise ValueError(
            f"the data has the heads {', '.join(dataset.heads)}: they must be {len(labels)}, as the model has"
        )
    places = []
    for head, names, known in zip(dataset.heads, dataset.names, labels, strict=True):
        number = {name: place for place, name in enumerate(known)}
        if len(number) < len(known):
            twice = next(name for place, name in enumerate(known) if number[name] != place)
            raise ValueError(f"{head}: the model has two classes {twice!r}: names must differ to be matched")
        if strangers := [name for name in names if name not in number]:
            unused = [name for name in known if name not in set(names)]
            raise ValueError(
                f"{head}: the data has {_shown(strangers)}, which the model does not: "
                f"{did_you_mean(strangers[0], known)}its names must be among the model's {len(known)}, of which the "
                f"data lacks {_shown(unused) if unused else 'none'}"
            )
        places.append([number[name] for name in names])
    examples = tuple(
        replace(
            example,
            labels=tuple(
                tuple(sorted(place[label] for label in own)) for place, own in zip(places, example.labels, strict=True)
            ),
        )
        for example in dataset.examples
    )
    return replace(dataset, examples=examples, names=labels)


def _with_heads(dataset: Dataset, heads: tuple[str, ...]) -> Dataset:
    if set(heads) == set(dataset.heads):
        order = [dataset.heads.index(head) for head in heads]
        examples = tuple(
            replace(example, labels=tuple(example.labels[place] for place in order)) for example in dataset.examples
        )
        dataset = replace(dataset, examples=examples, names=tuple(dataset.names[place] for place in order))
    return replace(dataset, heads=heads)


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
