"""Draws the expected and the actual result side by side in text: the numbers around the worst one."""

import numpy as np

ROWS, COLUMNS = 5, 3  # that are drawn of each
CELL = 12  # characters; twice three of them fit in 80 columns


def drawn(actual: np.ndarray, expected: np.ndarray, worst: tuple[int, ...]) -> list[str]:
    """Lines of at most 80 characters: a window of both arrays, the worst number in brackets, a heading first.

    The arrays have one shape, and `worst` is an index of it. The last two axes are drawn.
    """
    *outer, row, column = (0,) * (2 - len(worst)) + tuple(worst)
    planes = [np.atleast_2d(array)[tuple(outer)] for array in (actual, expected)]
    rows, columns = _window(planes[0].shape[0], row, ROWS), _window(planes[0].shape[1], column, COLUMNS)
    where = ", ".join([*map(str, outer), _named(rows), _named(columns)])
    width = CELL * len(columns)
    lines = [f"[{where}]", f"{'actual ':>{width}}  {'expected ':>{width}}".rstrip()]
    for i in rows:
        parts = ["".join(_cell(plane[i, j], (i, j) == (row, column)) for j in columns) for plane in planes]
        lines.append(f"{parts[0]}  {parts[1]}".rstrip())
    return lines


def _window(size: int, centre: int, most: int) -> range:
    first = max(0, min(centre - most // 2, size - most))
    return range(first, min(first + most, size))


def _named(window: range) -> str:
    return f"{window.start}:{window.stop}"


def _cell(value: np.generic, worst: bool) -> str:
    text = str(value) if value.dtype.kind in "b" else f"{value:.3g}"
    return f"{f'[{text}]' if worst else f'{text} ':>{CELL}}"
