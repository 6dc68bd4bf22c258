"""How Sphinx builds the documentation: `make docs`, which takes every warning for an error."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbhull

project = "nbhull"
author = copyright = "nbhull developers"
release = version = nbhull.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["build"]

# The tutorials lie with the other notebooks, and Sphinx takes what lies below this folder; links do not do.
HERE = Path(__file__).parent
shutil.rmtree(HERE / "tutorials", ignore_errors=True)
shutil.copytree(HERE.parent / "notebooks/tutorials", HERE / "tutorials", ignore=shutil.ignore_patterns(".*"))

# Notebooks are shown as they are stored; the tests execute them.
nb_execution_mode = "off"
myst_heading_anchors = 3

html_theme = "furo"
html_title = "nbhull"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
