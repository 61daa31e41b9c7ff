"""Formats a table as lines of text that fit a width. A row that is too long becomes several lines; no text is cut."""

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

GAP, INDENT = "  ", "  "
FAIL = "FAIL"


class Table(NamedTuple):
    """Rows under column names. The first `texts` columns are text, left-aligned; the others are figures, right-aligned.

    A last column without a name is a verdict: it is at the end of a row's first line, and FAIL is red. A row with fewer
    cells ends with a remark, which gets its own line.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    title: str = ""


def lines(table: Table, width: int | None) -> list[Text]:
    """Returns the lines of a table, at most `width` cells long where the words allow it; None: one line per row."""
    count = len(table.columns)
    whole = [row for row in table.rows if len(row) == count]
    cut = [row[:-1] for row in table.rows if len(row) < count]
    widths = [
        max(cell_len(row[column]) for row in (table.columns, *whole, *cut) if column < len(row))
        for column in range(count)
    ]
    groups = _groups(widths, width, verdict=not table.columns[-1])
    head = _row(table.columns, widths, groups, table.texts, style="bold")
    body, remarks = [], []
    for row in table.rows:
        short = len(row) < count
        body += _row(row[:-1] if short else row, widths, groups, table.texts, name="bold" if len(groups) > 1 else "")
        if short:
            remarks.append(len(body))
            body.append(Text(INDENT + row[-1]))
    longest = max(line.cell_len for index, line in enumerate([*head, *body]) if index - len(head) not in remarks)
    return [*([Text(table.title, style="italic")] if table.title else []), *head, Text("─" * longest), *body]


def _groups(widths: Sequence[int], width: int | None, *, verdict: bool) -> list[list[int]]:
    """Returns the columns of each line of a row."""
    columns = list(range(len(widths)))
    if width is None or sum(widths) + len(GAP) * (len(widths) - 1) <= width:
        return [columns]
    last = columns.pop() if verdict else None
    left = iter(columns)
    groups = [list(islice(left, 1))]
    room = width - widths[0] - (0 if last is None else len(GAP) + widths[last])
    for column in left:
        needed = len(GAP) + widths[column]
        if needed > room:
            groups.append([])
            room = width - len(INDENT) + len(GAP)
        groups[-1].append(column)
        room -= needed
    if last is not None:
        groups[0].append(last)
    return groups


def _row(
    cells: Sequence[str], widths: Sequence[int], groups: list[list[int]], texts: int, *, style: str = "", name: str = ""
) -> list[Text]:
    """Returns the lines of one row. style: of the row; name: of its first cell."""
    result = []
    for number, group in enumerate(groups):
        line = Text(INDENT if number else "", style=style)
        for position, column in enumerate(column for column in group if column < len(cells)):
            cell = cells[column]
            padding = " " * (widths[column] - cell_len(cell))
            shown = Text(cell, style="bold red" if cell == FAIL else name if column == 0 else "")
            line.append(GAP if position else "")
            line.append_text(shown + Text(padding) if column < texts else Text(padding) + shown)
        line.rstrip()
        if line or not number:
            result.append(line)
    return result
