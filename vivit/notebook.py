"""What a notebook shows: results as tables, and a bar while a long call runs. Outside a notebook there is no bar."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup

from vivit.files.paths import printable

PERIOD = 0.2  # seconds between two updates of a bar


def table(caption: str, rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Returns a table as HTML, in which every text is escaped. The first cell of a row is its heading."""
    head = Markup("<tr>{}</tr>").format(_joined(Markup('<th scope="col">{}</th>'), header)) if header else ""
    body = _joined(
        Markup("<tr>{}</tr>"),
        (_joined(Markup('<th scope="row">{}</th>'), row[:1]) + _joined(Markup("<td>{}</td>"), row[1:]) for row in rows),
    )
    shown = Markup("<table><caption>{}</caption><thead>{}</thead><tbody>{}</tbody></table>")
    return str(shown.format(printable(caption), head, body))


def _joined(around: Markup, texts: Iterable[str]) -> Markup:
    return Markup("").join(around.format(text if isinstance(text, Markup) else printable(text)) for text in texts)


class _Bar:
    """A bar as a notebook draws it: how much of a call is done, and how long it took."""

    def __init__(self, what: str, done: int, total: int, seconds: float) -> None:
        self.what, self.done, self.total, self.seconds = what, done, total, seconds

    def __repr__(self) -> str:
        left = f", {self.seconds / self.done * (self.total - self.done):.0f} s left" if self.done else ""
        return f"{self.what}: {self.done} of {self.total}, {self.seconds:.0f} s{left}"

    def _repr_html_(self) -> str:
        bar = Markup('<progress value="{}" max="{}"></progress> {}')
        return str(bar.format(self.done, self.total, repr(self)))


class _Nothing:
    """What takes the place of a bar when the call is done."""

    def __repr__(self) -> str:
        return ""

    def _repr_html_(self) -> str:
        return ""


def progress_bar(what: str) -> Callable[[int, int], None]:
    """Returns a function of (done, total) that draws a bar below the cell of a notebook, and removes it at the end.

    Elsewhere the function does nothing. It needs no widgets: every notebook can replace what it displays.
    """
    interactive = sys.modules.get("IPython")  # it is loaded wherever there is a notebook
    if not hasattr(interactive and interactive.get_ipython(), "kernel"):
        return lambda done, total: None
    from IPython.display import display  # pyright: ignore[reportMissingImports]

    begin = last = time.monotonic()
    handle = None

    def show(done: int, total: int) -> None:
        nonlocal handle, last
        now = time.monotonic()
        if done >= total:
            if handle is not None:
                handle.update(_Nothing())
        elif handle is None:
            handle = display(_Bar(what, done, total, now - begin), display_id=True)
        elif now - last >= PERIOD:
            handle.update(_Bar(what, done, total, now - begin))
            last = now

    return show
