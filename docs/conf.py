"""How Sphinx builds the documentation: `make docs`, which takes every warning for an error."""

from __future__ import annotations

import nbhull

project = "nbhull"
author = copyright = "nbhull developers"
release = version = nbhull.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["build"]

# Notebooks are shown as they are stored; the tests execute them.
nb_execution_mode = "off"
myst_heading_anchors = 3

html_theme = "furo"
html_title = "nbhull"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
