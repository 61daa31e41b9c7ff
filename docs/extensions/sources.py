"""The directive `sources`: an equation and the functions that compute it in NumPy, JAX and Pallas, beside each other.

    ```{sources}
    :numpy: vivit.reference.attention.attend
    :jax: vivit.attention.attend
    :pallas: vivit.kernels.softmax_av.attend

    $$\\mathrm{softmax}(Q K^T / \\sqrt d) V$$
    ```

The code is read from the tested source, never pasted. An option takes several names, with spaces between them. Where
there is no kernel, `:no-kernel:` says why in place of `:pallas:`. A name that no longer exists fails the build.
"""

import ast
from pathlib import Path

from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

FORMS = {"numpy": "NumPy", "jax": "JAX", "pallas": "Pallas"}


class Sources(SphinxDirective):
    has_content = True
    option_spec = dict.fromkeys((*FORMS, "no-kernel"), directives.unchanged_required)

    def run(self) -> list:
        wanted = {"numpy", "jax", "no-kernel" if "no-kernel" in self.options else "pallas"}
        if self.options.keys() != wanted or not self.content:
            raise self.error(f"sources needs an equation and the options {', '.join(sorted(wanted))}")
        lines = ["`````{tab-set}", ":sync-group: form", *self._tab("Equation", "equation", list(self.content))]
        for form, title in FORMS.items():
            if form in self.options:
                code = [line for name in self.options[form].split() for line in self._code(name)]
                lines += self._tab(title, form, code)
            else:
                lines += self._tab(title, form, [f"There is no kernel here. {self.options['no-kernel']}"])
        self.state.nested_parse(StringList([*lines, "`````"], self.get_location()), self.content_offset, node := _box())
        return [node]

    @staticmethod
    def _tab(title: str, form: str, body: list[str]) -> list[str]:
        return [f"````{{tab-item}} {title}", f":sync: {form}", "", *body, "````"]

    def _code(self, name: str) -> list[str]:
        root = Path(self.env.srcdir)
        try:
            path, inside = locate(name, root)
        except LookupError as error:
            raise self.error(str(error)) from None
        return ["```{literalinclude} /" + path, ":language: python", f":pyobject: {inside}", f":caption: {path}", "```"]


def locate(name: str, root: Path) -> tuple[str, str]:
    """The file that holds a dotted name, relative to root, and the name inside it. Raises LookupError if it is gone."""
    words = name.split(".")
    for count in range(len(words) - 1, 0, -1):
        file = root.joinpath(*words[:count]).with_suffix(".py")
        if not file.is_file():
            continue
        found = ast.parse(file.read_text(encoding="utf-8"))
        path = file.resolve().relative_to(root.resolve()).as_posix()
        for word in words[count:]:
            body = [node for node in getattr(found, "body", []) if getattr(node, "name", None) == word]
            if not body:
                raise LookupError(f"{name} is gone: {path} defines no {'.'.join(words[count:])}")
            found = body[-1]
        return path, ".".join(words[count:])
    raise LookupError(f"{name} is gone: there is no such module")


def _box():
    from docutils import nodes

    return nodes.container(classes=["sources"])


def setup(app) -> dict:
    app.add_directive("sources", Sources)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
