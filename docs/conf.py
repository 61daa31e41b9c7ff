"""The site's settings. `make docs` gives sphinx-build the repository's root as source folder, so pages stand once."""

import logging
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "extensions")]

from source_pages import linkcode_resolve  # noqa: E402, F401  # for sphinx.ext.linkcode

logging.getLogger("traitlets").setLevel(logging.WARNING)

project = "ViViT"
author = "the vivit authors"
project_copyright = "the vivit authors, Apache-2.0"
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "reference/README.md", "kernels/README.md", "vivit/demo/README.md"]
exclude_patterns = [".*", "build", "dist", "docs/_build", "tests", "vivit/reference", "vivit/kernels"]
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.linkcode",
    "sphinx_design",
    "docstrings",
    "mathml",
    "source_pages",
    "sources",
]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120  # seconds for one cell
nb_merge_streams = True
nb_code_prompt_show = "Show the code of the figure"
nb_code_prompt_hide = "Hide the code of the figure"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
toc_object_entries = False

html_theme = "furo"
html_title = "ViViT"
html_theme_options = {"top_of_page_buttons": []}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_additional_pages = {"index": "redirect.html"}  # the pages lie in docs/; whoever opens the folder finds them
templates_path = ["templates"]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # it would fetch pages, which a browser refuses for files on a disk
