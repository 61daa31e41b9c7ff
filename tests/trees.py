"""Changing one leaf of a tree of NamedTuples."""

from typing import Any

from vivit.reference.params import convert, leaves


def replaced(tree: Any, path: str, value: Any) -> Any:
    """The same tree with `value` at `path`."""
    changed = iter([value if here == path else leaf for here, leaf in leaves(tree)])
    return convert(tree, lambda _: next(changed))
