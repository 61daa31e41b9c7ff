"""A page with the source of every Python file that another page links to, so that such links stay inside the site."""

import inspect
import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

FOLDER = "source"
DEPTH = 2  # of the API's pages, docs/api/*.html, which are the only ones with links to objects
_linked: set[str] = set()


def linkcode_resolve(domain: str, info: dict) -> str | None:
    """Where the source of a documented object begins, for sphinx.ext.linkcode."""
    found = sys.modules[info["module"]]
    for name in info["fullname"].split("."):
        found = inspect.unwrap(getattr(found, name, None) or found)
    try:
        file, (_, line) = inspect.getsourcefile(found), inspect.getsourcelines(found)
    except (TypeError, OSError):  # not a class or a function
        return None
    root = Path(__file__).resolve().parents[2]
    path = Path(str(file)).resolve()
    if not path.is_relative_to(root):
        return None
    _linked.add(path.relative_to(root).as_posix())
    return f"{'../' * DEPTH}{FOLDER}/{path.relative_to(root).as_posix()}.html#line-{line}"


def _to_pages(app, doctree) -> None:
    """Links to Python files, which Sphinx would copy as downloads, lead to their pages."""
    for node in list(doctree.findall(addnodes.download_reference)):
        file = Path(app.srcdir, node["reftarget"].lstrip("/"))
        if not node["reftarget"].startswith("/"):
            file = Path(app.srcdir, app.env.docname).parent / node["reftarget"]
        path = file.resolve().relative_to(app.srcdir.resolve()).as_posix()
        if not path.endswith(".py"):
            continue
        _linked.add(path)
        target = app.builder.get_relative_uri(app.env.docname, f"{FOLDER}/{path}")
        link = nodes.reference("", "", *node.children, internal=True, refuri=target)
        node.replace_self(link)


def _pages(app):
    highlight = app.builder.highlighter.highlight_block
    for path in sorted(_linked):
        code = Path(app.srcdir, path).read_text(encoding="utf-8")
        text = highlight(code, "python", linenos="inline", lineanchors="line", anchorlinenos=False)
        yield (
            f"{FOLDER}/{path}",
            {"title": path, "body": f'<div class="source-page"><h1>{path}</h1>\n{text}</div>'},
            "page.html",
        )


def setup(app) -> dict:
    app.connect("doctree-read", _to_pages, priority=100)  # before Sphinx collects downloads
    app.connect("html-collect-pages", _pages)
    return {"parallel_read_safe": False}
