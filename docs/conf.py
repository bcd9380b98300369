"""Sphinx configuration."""

from __future__ import annotations

from importlib.metadata import version as _version

project = "hotswap"
author = "The hotswap maintainers"
copyright = "The hotswap maintainers"
release = _version("hotswap")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
default_role = "code"

html_theme = "furo"
html_title = f"hotswap {release}"
html_static_path = ["_static"]
