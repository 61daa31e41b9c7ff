"""Renders a page as one HTML document with its styles and script inside, and a policy that forbids any other."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from markupsafe import Markup

from vivit.explanation.tables import percent
from vivit.files.paths import printable


def render(template: str, *, styles: Sequence[str], script: str | None = None, **values: Any) -> str:
    """Returns a template of this folder, filled with values, which it escapes.

    The template extends document.html. styles, script: files of this folder, which document.html puts inside, with
    their hashes in its content security policy.
    """
    style, code = "".join(map(_file, styles)), "" if script is None else _file(script)
    inside = dict(style=Markup(style), script=Markup(code), style_hash=_hash(style), script_hash=_hash(code))
    return _templates().get_template(template).render(**values, **inside)


@cache
def _templates() -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # here: commands without pages do not load it

    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_file),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters["percent"] = percent
    return environment


def _hash(text: str) -> str:
    """Returns the name of a style or script in a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _file(name: str) -> str:
    return resources.files("vivit").joinpath("explanation", name).read_text("utf-8")
