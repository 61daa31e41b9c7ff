"""What the last line of a picture's cell shows: its HTML, style and script of this folder, and its data as JSON inside.

Nothing is loaded from anywhere, so a page works from a disk, and so does the notebook.
"""

from pathlib import Path
from typing import Any

from jinja2.utils import htmlsafe_json_dumps

FOLDER = Path(__file__).parent


class Interactive:
    """A picture for notebooks. name: that of the .html and .js file. data: what the script reads, as JSON data."""

    def __init__(self, name: str, data: Any) -> None:
        self.name, self.data = name, data

    def _repr_html_(self) -> str:
        return (
            f"<style>{_text('pictures.css')}</style>\n"
            f'<div class="interactive">{_text(f"{self.name}.html")}</div>\n'
            f'<script type="application/json" id="{self.name}-data">{htmlsafe_json_dumps(self.data)}</script>\n'
            f'<script type="module">\n{_text(f"{self.name}.js")}</script>'
        )


def _text(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")
