"""Formulas as MathML, converted from LaTeX when the site is built: browsers draw it without a script or a font file."""

from docutils import nodes
from latex2mathml.converter import convert


def _inline(translator, node) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _display(translator, node) -> None:
    translator.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app) -> dict:
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
