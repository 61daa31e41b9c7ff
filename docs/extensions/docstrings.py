"""Docstrings are plain text: this makes them reStructuredText for autodoc, with no sign of theirs taken for markup.

Code in single backticks becomes a literal. In a paragraph every line that names arguments ("mask: True for …") begins a
line of its own, and so does one that is indented without belonging to such a line: an equation.
"""

import re

NAMED = re.compile(r"\w[\w, /.]*: ")


def _escaped(text: str) -> str:
    parts = re.split(r"`([^`]+)`", text)
    parts[::2] = [re.sub(r"([\\*_|`])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part}``\\ " if after[:1].isalnum() else f"``{part}``" for part, after in _pairs(parts)]
    return "".join(parts)


def _pairs(parts: list[str]):
    return zip(parts[1::2], parts[2::2], strict=True)


def _lines(paragraph: list[str]) -> list[str]:
    """The lines that the text should have, each with what continues it."""
    found: list[str] = []
    separate = True  # whether what follows begins a line of its own
    for line in paragraph:
        text, indented = line.strip(), line.startswith(" ")
        equation = indented and not (found and NAMED.match(found[-1]))
        if separate or equation or (not indented and NAMED.match(text)):
            found.append(text)
        else:
            found[-1] += f" {text}"
        separate = equation
    return found


def _paragraphs(lines: list[str]):
    found: list[str] = []
    for line in (*lines, ""):
        if line.strip():
            found.append(line)
        elif found:
            yield found
            found = []


def _convert(app, what, name, obj, options, lines: list[str]) -> None:
    text: list[str] = []
    for paragraph in _paragraphs(lines):
        if paragraph[0].startswith("* "):
            items = re.split(r"^\* ", "\n".join(paragraph), flags=re.MULTILINE)[1:]
            text += [f"* {_escaped(' '.join(item.split()))}" for item in items]
        else:
            shown = [_escaped(line) for line in _lines(paragraph)]
            text += shown if len(shown) == 1 else [f"| {line}" for line in shown]
        text.append("")
    lines[:] = text


def setup(app) -> dict:
    app.connect("autodoc-process-docstring", _convert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
