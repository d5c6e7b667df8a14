"""Sphinx configuration of the documentation. `make docs` runs `build.py`, which prepares the sources first."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import headnb
from headnb._lazy_names import public_modules

sys.path.insert(0, str(Path(__file__).parent))
from docstrings import as_restructured_text

if TYPE_CHECKING:
    from sphinx.application import Sphinx

for module in set(public_modules().values()):  # otherwise a class is a placeholder function
    importlib.import_module(f"headnb.{module}")

project = "headnb"
author = "The headnb authors"
copyright = author  # noqa: A001  the name is Sphinx's
release = version = headnb.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]

# Docstrings are plain text with `names` in backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
toc_object_entries_show_parents = "hide"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# Types of other packages have no pages here: a build needs no network, so it reads no other project's index.
nitpick_ignore_regex = [("py:(class|exc)", ".*")]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # build.py executes the notebooks
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # the pages load nothing from other sites
nb_merge_streams = True
nb_output_stderr = "remove"
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "pydata_sphinx_theme"
html_title = "headnb"
html_static_path = ["_static"]
html_css_files = ["headnb.css"]
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 9,
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "gallery": [], "install": [], "how-to/read_a_grid": []}  # pages without pages below them


def convert_docstring(_app: object, what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    lines[:] = as_restructured_text(lines, public_modules())
    if what == "property":
        lines.insert(0, "\\ ")  # otherwise napoleon reads the text before a colon as a type


def hide_private_arguments(
    _app: object, what: str, _name: str, _obj: object, _options: object, arguments: str | None, _returned: str | None
) -> tuple[str, None] | None:
    """No signature for results, which users do not create."""
    return ("", None) if what == "class" and " _" in (arguments or "") else None


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", convert_docstring, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", hide_private_arguments)
