"""Sphinx settings: Markdown pages and the docstrings of the package."""

project = "tfvamp"
author = "the tfvamp authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
napoleon_use_ivar = True
html_theme = "alabaster"
autodoc_typehints = "none"
exclude_patterns: list[str] = []
suppress_warnings = ["myst.xref_missing", "docutils", "ref.python"]
