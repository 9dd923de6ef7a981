"""How the documentation is built."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "napari-seg3d"
author = "the napari-seg3d developers"
project_copyright = "2026, the napari-seg3d developers"
version = release = installed_version("napari-seg3d")

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "from_code"]
exclude_patterns = ["_build", "reference/generated"]
default_role = "code"
nitpicky = False

html_theme = "furo"
html_title = f"napari-seg3d {release}"
html_static_path: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
