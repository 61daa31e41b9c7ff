"""How the attention kernels cut their work: the sizes, and the table of those that were searched for.

`python -m bench tune` searches and writes the table, block_sizes.json: a row for each chip, core, tokens, channels,
heads and dtype. A shape without a row, a mask, dropout and exact products, which need more VMEM, get `BlockSizes()`:
as much as fits.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vivit.reference.values import is_count, quoted

TABLE = Path(__file__).with_name("block_sizes.json")


class BlockSizes(NamedTuple):
    """How the attention kernels cut their work. None: as much as fits in VMEM.

    longest: tokens of a sequence that is taken whole; longer ones are cut as `flash` says. windows: windows of heads in
    a step (spatial, temporal). positions: positions in a step over time, a multiple of 8. queries, queries_backward,
    keys, keys_backward: tokens in a step of flash, multiples of 8; on a TPU keys and queries_backward, which lie in
    lanes, of 128. keys_together, keys_together_backward: keys of one product in flash, multiples of 128 and of 8; None
    forward: all.
    """

    longest: int = 512
    windows: int | None = None
    positions: int | None = None
    queries: int = 224  # 3136 = 14 · 224
    queries_backward: int = 128
    keys: int | None = None
    keys_backward: int | None = None
    keys_together: int | None = None
    keys_together_backward: int | None = None


class Shape(NamedTuple):
    """What a row of the table is for."""

    chip: str | None  # as `chip.name` calls it
    core: str
    tokens: tuple[int, ...]  # t and s; for joint 1 and n
    channels: int
    heads: int
    dtype: str  # in which query, key and value are stored


def tuned(shape: Shape) -> BlockSizes:
    """The row of a shape, or `BlockSizes()`."""
    return table().get(shape, BlockSizes())


@cache
def table() -> dict[Shape, BlockSizes]:
    """The rows of block_sizes.json."""
    return parsed(TABLE.read_text("utf-8"))


def parsed(text: str) -> dict[Shape, BlockSizes]:
    """The rows of a table. Raises ValueError for what is no row, and for two of one shape."""
    rows: dict[Shape, BlockSizes] = {}
    for row in json.loads(text):
        if not isinstance(row, dict) or row.keys() != _FITS.keys() or not all(_FITS[name](row[name]) for name in row):
            raise ValueError(
                f"{TABLE.name} has the row {quoted(row)}: it must have {', '.join(_FITS)}, and known sizes"
            )
        shape = Shape(**{name: row[name] for name in Shape._fields})._replace(tokens=tuple(row["tokens"]))
        if shape in rows:
            raise ValueError(f"{TABLE.name} has the row {quoted(row)}: its shape must have no other")
        rows[shape] = BlockSizes(**row["sizes"])
    return rows


def written(rows: dict[Shape, BlockSizes]) -> str:
    """The table as `parsed` reads it: a line for each row, without the sizes that are BlockSizes()'s."""
    usual = BlockSizes()._asdict()
    lines = []
    for shape, sizes in sorted(rows.items()):
        searched = {name: size for name, size in sizes._asdict().items() if size != usual[name]}
        lines.append(json.dumps(shape._asdict() | {"sizes": searched}))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_sizes(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= set(BlockSizes._fields) and all(map(is_count, value.values()))


_FITS: dict[str, Callable[[Any], bool]] = {
    "chip": _is_text,
    "core": _is_text,
    "tokens": lambda value: isinstance(value, list) and len(value) == 2 and all(map(is_count, value)),
    "channels": is_count,
    "heads": is_count,
    "dtype": _is_text,
    "sizes": _is_sizes,
}
